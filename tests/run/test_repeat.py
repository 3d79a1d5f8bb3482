"""A run repeated from only its folder, and the folder's README."""

import importlib.metadata
import json
import shutil
from pathlib import Path

import pytest

from cai_base.cli import main
from cai_base.progress import Progress
from cai_base.run.accepted import accept_changed
from cai_base.run.repeat import read_repeated
from cai_base.settings.command_line import load_settings


@pytest.fixture(scope="module")
def moved(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder at another place, without anything that lay beside it."""
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("moved") / "a run"))


def test_a_run_is_repeated_from_its_folder_alone_byte_for_byte(moved: Path, tmp_path: Path) -> None:
    assert main(["run", "--from", str(moved), "--out", str(tmp_path / "again")]) == 0
    for name in ("results.json", "config.json", "inputs.json", "seed-1/dpo/adapter/adapter_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (moved / name).read_bytes(), name


def test_a_run_that_repeats_changed_inputs_says_so(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = Path(shutil.copytree(finished, tmp_path / "changed"))
    (changed / "inputs.json").write_bytes((changed / "inputs.json").read_bytes() + b"\n")
    accept_changed(changed, ["inputs.json"], Progress.quiet())
    repeated = read_repeated(changed)
    (warning,) = {*repeated.same_warnings([], Progress())} - {*read_repeated(finished).same_warnings([], Progress())}
    assert warning.startswith("inputs.json is that of the repeated run, where it was changed")
    assert warning in " ".join(capsys.readouterr().err.split())


def test_a_repeated_run_refuses_other_settings(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--from", str(moved), "--sft.steps", "3"]) == 2
    message = capsys.readouterr().err
    assert "--sft.steps: --from" in message
    assert f"to change a setting, use --config {moved / 'config.json'}" in message
    assert main(["run", "--from", str(moved / "nowhere")]) == 2
    assert "not a run" in capsys.readouterr().err
    assert main(["cost", "--from", str(moved)]) == 2
    assert "for cai-base cost give --config" in capsys.readouterr().err


def test_the_configuration_of_a_run_can_be_used_by_another_run(moved: Path, finished: Path) -> None:
    given = load_settings(["--config", str(moved / "config.json"), "--sft.steps", "3"]).settings
    stored = json.loads((finished / "config.json").read_bytes())
    again = given.model_dump(mode="json", by_alias=True)
    assert again == stored | {"sft": stored["sft"] | {"steps": 3}}


def test_the_manifest_has_the_versions_with_which_a_run_was_made(finished: Path) -> None:
    (session,) = json.loads((finished / "manifest.json").read_bytes())["environment"]["sessions"]
    assert {"torch", "transformers", "tokenizers", "numpy", "python", "cai-base"} <= session["versions"].keys()
    assert session["versions"]["torch"] == importlib.metadata.version("torch")
    assert session["device"]
    assert session["date"].startswith("20")
    assert session["commit"] is None or len(session["commit"].removesuffix("-changed")) == 40


def test_the_readme_of_a_run_names_its_files_and_the_next_commands(finished: Path) -> None:
    guide = (finished / "README.md").read_text(encoding="utf-8")
    top = {path.name for path in finished.iterdir()} - {"README.md"}
    assert [name for name in top if name not in guide and not name.startswith("seed-")] == []
    assert "cai-base run --from RUN" in guide
    assert str(finished) not in guide
