"""What a command says when it refuses its input."""

import pytest

from cai_base.cli import main


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The message of a command that must end with exit code 2, one message and no traceback."""
    assert main([*args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err
