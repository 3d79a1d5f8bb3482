"""The files that a model's name stands for, as stored at a run's start and compared when it goes on."""

import hashlib
from pathlib import Path

import pytest

from cai_base import cache
from cai_base.errors import UserError
from cai_base.run.identity import FILES, check_files, files_digest, record_of_files
from cai_base.settings.command_line import load_settings
from cai_base.store import Run
from cai_base.studies.shared_stages import Stages, copy_stages


def model(folder: Path, weights: bytes = b"weights") -> Path:
    """A folder with the names of a model's files; nothing loads it."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.mark.parametrize("changed", ["judge/model.safetensors", "second.gguf", "chat/tokenizer_config.json"])
def test_a_judge_or_an_instruct_model_with_other_files_is_refused_by_its_flag(tmp_path: Path, changed: str) -> None:
    judge, chat, second = model(tmp_path / "judge"), model(tmp_path / "chat"), tmp_path / "second.gguf"
    second.write_bytes(b"GGUF")
    flags = ["--judge", f"hf:{judge}", "--second-judge", f"gguf:{second}", "--arms", "sft,cai,instruct"]
    settings = load_settings([*flags, "--instruct", str(chat)]).settings
    arms = settings.evaluated_arms
    run = Run.create(tmp_path / "run", {}, {}, {FILES: record_of_files(settings.models, arms)})
    check_files(run, settings.models, arms)
    (judge / "README.md").write_text("A page about the model is no part of it.")
    check_files(run, settings.models, arms)
    (tmp_path / changed).write_bytes(b"other")
    flag = {"judge": "--judge", "second.gguf": "--second-judge", "chat": "--instruct"}[changed.partition("/")[0]]
    path = tmp_path / changed.partition("/")[0]
    with pytest.raises(UserError) as refusal:
        check_files(run, settings.models, arms)
    assert str(refusal.value) == (
        f"{flag} {path}: its files are not those with which {run.directory} began; restore the old files, or start a "
        "new run"
    )


def test_a_run_of_a_version_that_stored_no_files_goes_on(tmp_path: Path) -> None:
    settings = load_settings(["--judge", f"hf:{model(tmp_path / 'judge')}"]).settings
    check_files(Run.create(tmp_path / "run", {}, {}), settings.models, settings.evaluated_arms)


@pytest.mark.parametrize("other", ["the base model", "the judge", None])
def test_runs_of_a_study_share_only_what_the_same_weights_made(tmp_path: Path, other: str | None) -> None:
    records = [
        {"engine": {"model": number if other == "the base model" else "0"}}
        | {FILES: {"judge": {"files": number if other == "the judge" else "0", "commit": None}}}
        for number in "01"
    ]
    donor, run = (Run.create(tmp_path / f"run-{place}", {}, {}, one) for place, one in enumerate(records))
    donor.commit("evaluation of base", 1, write={"seed-0/evaluation/base/attack.jsonl": b"{}\n"})
    whole = Stages({}, {}, "self")
    copy_stages(run, whole, donor, whole)
    assert run.progress("evaluation of base") == (other is None)


def test_a_large_file_is_read_once_and_again_when_it_was_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LARGE", 4)
    file = tmp_path / "model.gguf"
    file.write_bytes(b"first")
    first = files_digest(str(file))
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", None)  # a second reading would call it
        assert files_digest(str(file)) == first
    file.write_bytes(b"other")
    assert files_digest(str(file)) != first
