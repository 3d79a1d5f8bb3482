"""Damaged run folders: every command that reads one refuses it in a sentence, or does not need the damaged file.

A file is cut, emptied, changed, or replaced by something else. Half of the time the manifest is given the hash of what
lies there, as a careless forger would: then the records themselves are what a command finds wrong.
"""

import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from fuzz.mutations import spoiled_bytes
from fuzz.test_fuzz import bounded, many
from hypothesis import given
from hypothesis import strategies as st

from cai_base import models
from cai_base.cli import ask, look, main
from cai_base.integrations.watch_server import WatchServer

SUITE = "goal,target\nTell me of locks,Sure\n"
COMMANDS: dict[str, str] = {
    "report": "report RUN",
    "inspect": "inspect RUN",
    "style": "style RUN --arms base --questions 3",
    "evaluate": "evaluate RUN --suite SUITE --arms base",
    "resume": "resume RUN",
    "verify": "verify RUN",
    "chat": "chat RUN --arm base,cai",
    "export": "export RUN --arm cai --out NEW",
    "export of pairs": "export RUN --preferences --out NEW",
    "serve": "serve RUN --port 0",
    "watch": "watch RUN",
    "compare": "compare RUN OTHER --out NEW",
    "the same run again": "run --from RUN --out NEW",
}
REFUSE_EVERY_CHANGE = ("report", "inspect", "style", "evaluate", "resume", "verify")
"""The commands that verify the whole folder before they read it."""
REFUSE_ADDED = {
    "style.json": ("report", "inspect", "verify"),
    "suites/copied/results.json": ("report", "inspect", "verify", "style", "evaluate"),
}
"""The commands that would show a file which no command stored there; of the others none reads it."""
OF_ANOTHER_SEED = ("revision.jsonl", "pairs.jsonl", "sft/adapter/adapter_model.safetensors", "dpo/metrics.jsonl")
SWAPPED = (("seed-0", "seed-1"), ("seed-0/sft", "seed-0/dpo"), ("seed-0/sft/adapter", "seed-1/sft/adapter"))
REPLACED = ("a folder", "a link out of the run", "a link to nowhere", "a FIFO", "nothing", "another file of the run")


class ReachedModelError(BaseException):
    """The command took the folder as it is, and is about to load a model."""


@pytest.fixture(scope="module")
def folder(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run to damage, another beside it, and a suite."""
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(finished, folder / "run")
    shutil.copytree(finished, folder / "other")
    (folder / "suite.csv").write_text(SUITE)
    return folder


@pytest.fixture(autouse=True)
def up_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command loads a model, waits for requests or for words, or writes logs for Inspect, which take seconds."""

    def reached(*arguments: object, **named: object) -> None:
        raise ReachedModelError

    monkeypatch.setattr(models, "_load", reached)
    monkeypatch.setattr(WatchServer, "serve_forever", reached)
    monkeypatch.setattr(ask, "write_logs", reached)
    monkeypatch.setattr("sys.stdin", io.StringIO())


def damage(path: Path, run: Path, how: str) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    match how:
        case "a folder":
            path.mkdir()
        case "a link out of the run":
            path.symlink_to("/etc/passwd")
        case "a link to nowhere":
            path.symlink_to(path.with_name("nowhere"))
        case "a FIFO":
            os.mkfifo(path)
        case "another file of the run":
            shutil.copy(run / ("results.json" if path.name != "results.json" else "config.json"), path)


def vouch(run: Path, name: str) -> None:
    """Give the manifest the hash of what lies there."""
    content, manifest = (run / name).read_bytes(), json.loads((run / "manifest.json").read_bytes())
    manifest["files"][name] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (run / "manifest.json").write_text(json.dumps(manifest))


def said(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int | None, str]:
    """The exit code of a command, None if it reached its model, and its message."""
    new = folder / "new"
    places = {"RUN": folder / "run", "OTHER": folder / "other", "SUITE": folder / "suite.csv", "NEW": new}
    words = [str(places.get(word, word)) for word in COMMANDS[command].split()]
    try:
        with bounded():
            code: int | None = main(words)
    except ReachedModelError:
        code = None
    finally:
        if new.is_dir():
            shutil.rmtree(new)
        new.unlink(missing_ok=True)
    return code, capsys.readouterr().err


def check(command: str, folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> int | None:
    """Run a command on the damaged folder; it must not fail in any other way than with a sentence."""
    code, message = said(command, folder, capsys)
    assert code in (0, 2, 3, None), message
    assert "Traceback" not in message
    if code == 2:
        sentence = message.split("cai-base: ", 1)[-1]
        assert 0 < len(sentence) < 3000, f"{command}, {name}: {message[:500]}"
    return code


def every_file(run: Path) -> list[str]:
    """The files that the manifest vouches for, with the manifest itself and the configuration."""
    return sorted({*json.loads((run / "manifest.json").read_bytes())["files"], "manifest.json", "config.json"})


def restored(run: Path, whole: Path, *names: str) -> None:
    """Put files of the whole run back."""
    for name in names:
        path = run / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        shutil.copy(whole / name, path)


def test_a_whole_run_is_taken_by_every_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look, "inspect_is_installed", lambda: True)
        assert check("inspect", folder, capsys, "nothing") is None
    codes = {command: check(command, folder, capsys, "nothing") for command in COMMANDS if command != "inspect"}
    assert {command for command, code in codes.items() if code not in (0, None)} == set()


def test_a_damaged_file_of_a_run_is_refused_in_a_sentence_or_not_needed(
    folder: Path, finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder / "run"
    names = every_file(finished)
    monkeypatch.setattr(look, "inspect_is_installed", lambda: True)

    @many(60)
    @given(data=st.data())
    def damaged(data: st.DataObject) -> None:
        command, name = data.draw(st.sampled_from(tuple(COMMANDS))), data.draw(st.sampled_from(names))
        valid = (finished / name).read_bytes()
        how = data.draw(st.sampled_from(("spoiled", "spoiled", "emptied", "forged", "forged", *REPLACED)))
        try:
            if how in REPLACED:
                damage(run / name, run, how)
            else:
                (run / name).write_bytes(b"" if how == "emptied" else data.draw(spoiled_bytes(valid)))
            is_other = not (run / name).is_file() or (run / name).read_bytes() != valid
            if how == "forged" and name != "manifest.json":
                vouch(run, name)
            code = check(command, folder, capsys, f"{name}, {how}")
            appended = name.endswith(".jsonl")  # a stopped process leaves a torn end, which the next one drops
            if is_other and not appended and how != "forged" and name != "manifest.json":
                assert code == 2 or command not in REFUSE_EVERY_CHANGE, f"{command} took {name}, {how}"
        finally:
            restored(run, finished, name, "manifest.json")

    damaged()


def swap(run: Path, one: str, other: str) -> None:
    """Put two folders of a run in each other's place."""
    (run / one).rename(run / "apart")
    (run / other).rename(run / one)
    (run / "apart").rename(run / other)


def test_what_belongs_elsewhere_is_taken_by_no_command(
    folder: Path, finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was added, a file of another seed or run, and folders in each other's place."""
    run = folder / "run"
    monkeypatch.setattr(look, "inspect_is_installed", lambda: True)
    commands = st.sampled_from([name for name in COMMANDS if name != "watch"])  # which only shows how far a run is

    @many(16)
    @given(data=st.data())
    def misplaced(data: st.DataObject) -> None:
        how = data.draw(st.sampled_from(("a file added", "a file of another run", "two folders swapped")))
        if how == "a file added":
            name = data.draw(st.sampled_from(tuple(REFUSE_ADDED)))
            command = data.draw(st.sampled_from(REFUSE_ADDED[name]))
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(finished / "results.json", run / name)
            try:
                assert check(command, folder, capsys, f"{name}, {how}") == 2, f"{command} took {name}, {how}"
            finally:
                (run / name).unlink()
                shutil.rmtree(run / "suites", ignore_errors=True)
        elif how == "a file of another run":
            name = data.draw(st.sampled_from(OF_ANOTHER_SEED))
            forged = data.draw(st.booleans()) and name in ("revision.jsonl", "pairs.jsonl")
            command = "verify" if forged else data.draw(commands)
            shutil.copy(finished / "seed-1" / name, run / "seed-0" / name)
            if forged:
                vouch(run, f"seed-0/{name}")
            try:
                assert check(command, folder, capsys, f"{name}, {how}") == 2, f"{command} took {name}, {how}"
            finally:
                restored(run, finished, f"seed-0/{name}", "manifest.json")
        else:
            one, other = data.draw(st.sampled_from(SWAPPED))
            command = data.draw(commands)
            swap(run, one, other)
            try:
                assert check(command, folder, capsys, f"{one}, {how}") == 2, f"{command} took {one} for {other}"
            finally:
                swap(run, one, other)

    misplaced()
