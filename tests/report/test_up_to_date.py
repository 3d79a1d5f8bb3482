"""An up-to-date report is not written again."""

import subprocess
import sys

import pytest

from cai_base.cli import main

from .conftest import MakeRun


def test_pages_are_written_again_only_if_a_file_changed(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(seeds=1, arms="sft")
    page = run / "report.html"
    assert main(["report", str(run)]) == 0
    first, written = capsys.readouterr(), page.stat().st_mtime_ns

    assert main(["report", str(run)]) == 0
    second = capsys.readouterr()
    assert "is up to date" in second.err
    assert second.out == first.out
    assert page.stat().st_mtime_ns == written

    content = page.read_bytes()
    page.write_bytes(b"spoiled")
    assert main(["report", str(run)]) == 0
    assert page.read_bytes() == content

    # What this machine lacks is another state: with Inspect installed, its logs are wanted too.
    monkeypatch.setattr("cai_base.cli.look.inspect_is_installed", lambda: True)
    assert main(["report", str(run)]) == 0
    assert list((run / "inspect").glob("*.eval"))


def test_a_table_is_printed_without_loading_torch_or_matplotlib() -> None:
    code = "import sys, cai_base.report.table; print({'torch', 'matplotlib', 'transformers'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
