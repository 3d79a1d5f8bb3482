"""What `cai-base report` writes again, opens and imports."""

import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("has_browser", [True, False])
def test_the_page_is_opened_in_a_browser_or_it_is_said_that_there_is_none(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], has_browser: bool
) -> None:
    addresses: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: addresses.append(address) or has_browser)
    assert main(["report", str(run), "--open"]) == 0
    assert addresses == [(run / "report.html").as_uri()]
    said = " ".join(capsys.readouterr().err.split())
    assert (f"This machine has no browser; copy {run / 'report.html'} to one that has" in said) == (not has_browser)


def test_a_table_is_printed_without_loading_torch_or_matplotlib() -> None:
    code = "import sys, cai_base.report.table; print({'torch', 'matplotlib', 'transformers'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
