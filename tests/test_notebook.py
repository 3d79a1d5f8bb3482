"""The notebook: its code runs on a finished run, from the first cell to the last."""

import json
from pathlib import Path

import matplotlib as mpl
import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples/a_finished_run.ipynb"


def test_the_notebook_runs_on_a_finished_run_and_shows_its_figures_and_answers(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_bytes())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells), "what it shows is of the reader's run"
    monkeypatch.setenv("RUN", str(finished))
    names: dict[str, object] = {}
    with mpl.rc_context({"backend": "agg"}):
        for number, cell in enumerate(cells):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    shown = capsys.readouterr().out
    results = json.loads((finished / "results.json").read_bytes())
    for arm in results["arms"]:
        assert f"\n{arm} " in f"\n{shown}"
    rate = results["arms"]["sft"]["attack_success_rate"]["mean"]
    assert f"sft        attack success {rate:6.1%} [" in shown
    assert "SFT-only: " in shown
    assert "original: " in shown
    assert shown.rstrip().splitlines()[-1].startswith("full CAI: ")
