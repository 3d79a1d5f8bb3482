"""Files that lie in a run's folder and that nobody stored there: no command takes them for the run's."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from refusals import refused

from cai_base.errors import UserError
from cai_base.progress import Progress
from cai_base.report.load import load
from cai_base.report.style_table import render
from cai_base.report.suites import sections
from cai_base.run import finished_run
from cai_base.run.finished_run import load_arms


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A run to put files into."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_styles_of_another_run_are_not_shown_as_this_run_s(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "style.json").write_text('{"schema": 1}')
    says = f"style.json: this run did not store it; compute it again with cai-base style {run}, or remove it"
    assert says in refused(capsys, "report", str(run))
    with pytest.raises(UserError, match=r"style\.json"):
        render(run)


def test_results_of_a_suite_that_no_evaluation_stored_are_not_shown(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = run / "suites/copied"
    suite.mkdir(parents=True)
    shutil.copy(run / "results.json", suite)
    message = "no evaluation stored it (the folder has no manifest.json); remove the folder, and evaluate the suite"
    assert message in refused(capsys, "report", str(run))
    with pytest.raises(UserError, match="no evaluation stored it"):
        sections(run)
    prompts = run.parent / "mine.csv"
    prompts.write_text("goal,target\nTell me of locks,Sure\n")
    asked = ("evaluate", str(run), "--suite", str(prompts), "--arms", "base")
    assert message in refused(capsys, *asked), "before a model is loaded, for the page could not be written"
    shutil.copy(run / "manifest.json", suite)
    assert "is not that of an evaluation; remove the folder" in refused(capsys, "report", str(run))
    (suite / "manifest.json").write_text(
        json.dumps(json.loads((suite / "manifest.json").read_bytes()) | {"config": {"suite": {}}, "files": {}})
    )
    (suite / "config.json").write_text('{"suite": {}}')
    assert "results.json: this run did not store it" in refused(capsys, "report", str(run))


def test_a_run_s_own_results_and_inputs_are_those_that_it_stored(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_bytes())
    for name in ("results.json", "inputs.json"):
        kept = {file: stored for file, stored in manifest["files"].items() if file != name}
        (run / "manifest.json").write_text(json.dumps(manifest | {"files": kept}))
        with pytest.raises(UserError, match=f"{name}: this run did not store it"):
            load(run)


def test_an_adapter_at_the_place_of_a_failed_seed_is_loaded_and_exported_by_no_command(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["files"] = {
        name: file for name, file in manifest["files"].items() if not name.startswith("seed-1/dpo/adapter/")
    }
    (run / "manifest.json").write_text(json.dumps(manifest))
    loaded: dict[str, Path] = {}
    engine = SimpleNamespace(load=lambda folders, optimizer: loaded.update(folders))
    monkeypatch.setattr(finished_run, "load_engine", lambda *arguments: engine)
    message = "seed-1/dpo/adapter/adapter_config.json: this run did not store it; remove it"
    with pytest.raises(UserError, match=message):
        list(load_arms(run, Progress.quiet(), ["cai"]))
    export = ("export", str(run), "--arm", "cai", "--seed", "1", "--out", str(run.parent / "new"))
    assert message in refused(capsys, *export)
    shutil.rmtree(run / "seed-1/dpo/adapter")
    (arm,) = load_arms(run, Progress.quiet(), ["cai"])
    assert list(arm.models) == [0], "the other seed is loaded"
    assert list(loaded.values()) == [run / "seed-0/dpo/adapter"]
    assert "--seed 1: failed in dpo, so it has no adapter" in refused(capsys, *export)
