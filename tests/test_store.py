"""What a run's directory survives, and what it refuses."""

import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cai_base import store
from cai_base.errors import UserError
from cai_base.store import Run, scratch, to_json, to_lines, write_atomic


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", {"seeds": 2, "sft": {"steps": 5}}, {"inputs.json": b"{}\n"})


def test_a_unit_counts_once_it_is_committed(run: Run) -> None:
    assert run.progress("sft") == 0
    run.commit("sft", 3, write={"a/b.json": b"1"}, append={"a/log.jsonl": to_lines([{"x": 1}])})
    again = Run.open(run.directory)
    assert again.progress("sft") == 3
    assert again.lines("a/log.jsonl") == [{"x": 1}]


def test_a_torn_tail_is_dropped_and_written_again(run: Run) -> None:
    run.commit("revision", 1, append={"log.jsonl": to_lines([{"x": 1}])})
    with (run.directory / "log.jsonl").open("ab") as file:
        file.write(b'{"x": 2}\n{"x"')
    again = Run.open(run.directory)
    assert again.lines("log.jsonl") == [{"x": 1}]
    again.commit("revision", 2, append={"log.jsonl": to_lines([{"x": 2}])})
    assert Run.open(run.directory).lines("log.jsonl") == [{"x": 1}, {"x": 2}]


def test_a_line_after_the_end_of_a_complete_file_is_a_change(run: Run) -> None:
    for name in ("whole.jsonl", "growing.jsonl"):
        run.commit("revision", 1, append={name: to_lines([{"x": 1}])})
    run.commit("results", 1, complete=["whole.jsonl"])
    for name in ("growing.jsonl", "whole.jsonl"):
        Run.open(run.directory)
        with (run.directory / name).open("ab") as file:
            file.write(b'{"x": 2}\n')
    with pytest.raises(UserError, match=r"whole.jsonl: differs from what this run stored"):
        Run.open(run.directory)
    Run.watch(run.directory).commit("more", 1, append={"whole.jsonl": to_lines([{"x": 3}])})
    assert Run.open(run.directory).lines("whole.jsonl") == [{"x": 1}, {"x": 3}], "more may be appended by the program"


@pytest.mark.parametrize("length", [0, 1, 70_000, 200_000])
def test_the_last_line_is_read_alone_however_long_the_lines_are(run: Run, length: int) -> None:
    assert run.last_line("log.jsonl") is None
    run.commit("revision", 1, append={"log.jsonl": to_lines([{"x": "a" * length}, {"x": "b" * length, "n": 2}])})
    with (run.directory / "log.jsonl").open("ab") as file:
        file.write(b'{"torn"')
    assert Run.open(run.directory).last_line("log.jsonl") == {"x": "b" * length, "n": 2}


def test_what_is_appended_is_vouched_for_with_what_was_there_and_a_change_between_is_noticed(run: Run) -> None:
    again = Run.open(run.directory)
    for number in range(3):
        again.commit("revision", number, append={"log.jsonl": to_lines([{"x": number}])})
    assert len(Run.open(run.directory).lines("log.jsonl")) == 3
    (run.directory / "log.jsonl").write_bytes(b'{"x": 9}\n{"x": 1}\n{"x": 2}\n')
    again.commit("revision", 4, append={"log.jsonl": to_lines([{"x": 4}])})
    with pytest.raises(UserError, match=r"log.jsonl: differs from what this run stored"):
        Run.open(run.directory)


def test_what_was_written_before_the_manifest_does_not_count(run: Run) -> None:
    write_atomic(run.directory / "seed-0/pairs.jsonl", b"half a unit")
    again = Run.open(run.directory)
    assert again.lines("seed-0/pairs.jsonl") == []
    again.commit("pairs", 1, write={"seed-0/pairs.jsonl": b"{}\n"})
    assert Run.open(run.directory).lines("seed-0/pairs.jsonl") == [{}]


def test_reading_a_run_that_another_process_works_on_changes_nothing(run: Run) -> None:
    run.commit("revision", 1, append={"log.jsonl": to_lines([{"x": 1}])})
    with (run.directory / "log.jsonl").open("ab") as file:
        file.write(b'{"x": 2}\n')
    before = (run.directory / "log.jsonl").read_bytes()
    Run.open(run.directory).lines("log.jsonl")
    assert (run.directory / "log.jsonl").read_bytes() == before


def test_two_processes_cannot_work_on_one_run(run: Run) -> None:
    other = Run.open(run.directory)
    with run.locked(), pytest.raises(UserError, match="another process is working on this run"), other.locked():
        pass
    with other.locked():
        pass


def test_a_changed_configuration_is_refused_by_its_field(run: Run) -> None:
    (run.directory / "config.json").write_bytes(to_json({"seeds": 2, "sft": {"steps": 6}}))
    with pytest.raises(UserError, match=r"config\.json: sft\.steps was 5 when this run began and is 6 now"):
        Run.open(run.directory)


@pytest.mark.parametrize("damage", ["change", "remove", "cut"])
def test_a_damaged_artifact_is_refused_by_its_name(run: Run, damage: str) -> None:
    run.commit("pairs", 1, write={"seed-0/pairs.jsonl": b"{}\n{}\n"})
    path = run.directory / "seed-0/pairs.jsonl"
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(b"{}\n[]\n" if damage == "change" else b"{}\n")
    with pytest.raises(UserError, match=r"seed-0/pairs\.jsonl"):
        Run.open(run.directory)


def test_a_directory_that_exists_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="already exists"):
        Run.create(tmp_path, {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_stop_before_the_first_manifest_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = store.write_atomic

    def dying(path: Path, content: bytes) -> None:
        if path.name == store.MANIFEST:
            raise KeyboardInterrupt
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_atomic", dying)
        with pytest.raises(KeyboardInterrupt):
            Run.create(tmp_path / "run", {"seeds": 2}, {})
    assert list(tmp_path.iterdir()) == []
    assert Run.create(tmp_path / "run", {"seeds": 2}, {}).directory == tmp_path / "run"
    assert Run.open(tmp_path / "run").config == {"seeds": 2}


def test_a_directory_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run"):
        Run.open(tmp_path)
    with pytest.raises(UserError, match="not a run"):
        Run.open(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json:1: not valid JSON"):
        Run.open(tmp_path)


SHA = "0" * 64


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda manifest: [], "this is a list; it must be a table of fields: schema, config, progress, files"),
        (lambda manifest: None, "this is null; it must be a table of fields"),
        (lambda manifest: {}, "the field 'schema' is missing; the fields are schema, config"),
        (lambda manifest: manifest | {"schema": 2}, "the field 'schema' is a number; it must be 1"),
        (lambda manifest: manifest | {"schema": "1"}, "the field 'schema' is '1'; it must be 1"),
        (lambda manifest: manifest | {"progres": {}}, "unknown field 'progres'; did you mean 'progress'?"),
        (lambda manifest: manifest | {"config": 3}, "the field 'config' is a number; it must be a table of fields"),
        (
            lambda manifest: manifest | {"progress": {"sft": "all"}},
            "the field 'progress.sft' is 'all'; it must be a whole number",
        ),
        (
            lambda manifest: manifest | {"progress": {"sft": -1}},
            "the field 'progress.sft' is a number; it must be at least 0",
        ),
        (lambda manifest: manifest | {"files": ["config.json"]}, "the field 'files' is a list; it must be a table"),
        (lambda manifest: manifest | {"files": {"a": 3}}, "the field 'files.a' is a number; it must be a table"),
        (lambda manifest: manifest | {"files": {"a": {}}}, "the field 'files.a.bytes' is missing"),
        (
            lambda manifest: manifest | {"files": {"a": {"bytes": 1, "sha256": "x", "appended": False}}},
            "the field 'files.a.sha256' is 'x'; it must match the pattern",
        ),
        (
            lambda manifest: manifest | {"files": {"../a": {"bytes": 1, "sha256": SHA, "appended": False}}},
            '"../a" is not the path of a file inside the run',
        ),
        (
            lambda manifest: manifest | {"files": {"a\0b": {"bytes": 1, "sha256": SHA, "appended": False}}},
            "is not the path of a file inside the run",
        ),
        (lambda manifest: manifest | {"found": {"engine": 3}}, "the field 'found.engine' is a number"),
    ],
)
def test_a_manifest_of_another_form_is_one_sentence(run: Run, change: Callable[[Any], Any], says: str) -> None:
    path = run.directory / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_bytes()))))
    assert says in refusal(run.directory, "manifest.json")


NOT_JSON = [
    (b"", "the file is empty"),
    (b"\x89PNG\r\n\x1a\n\x00", "not UTF-8 text"),
    (json.dumps({"schema": 1}).encode("utf-16"), "not UTF-8 text"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a":' * 900 + b"1" + b"}" * 900, ""),
    (b'{"seeds": 2, "seeds": 3}', "the key 'seeds' occurs twice"),
    (b"9" * 5000, "not valid JSON"),
]


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
@pytest.mark.parametrize(("content", "says"), NOT_JSON)
def test_a_file_of_a_run_that_is_not_json_is_one_sentence(run: Run, name: str, content: bytes, says: str) -> None:
    (run.directory / name).write_bytes(content)
    assert says in refusal(run.directory, name)


@pytest.mark.parametrize("content", ["[]", "null", "3", "{}", '{"seeds": 2}', '{"seeds": 2, "sft": 3}'])
def test_a_configuration_of_another_form_is_one_sentence(run: Run, content: str) -> None:
    (run.directory / "config.json").write_text(content)
    assert "a run keeps its configuration" in refusal(run.directory, "config.json")


def test_a_long_value_of_a_changed_configuration_is_cut_short(run: Run) -> None:
    (run.directory / "config.json").write_text(json.dumps({"seeds": "x" * 10_000}))
    assert len(refusal(run.directory, "config.json")) < 300


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "inputs.json"])
@pytest.mark.parametrize("damage", ["missing", "a folder", "a link to itself"])
def test_something_else_where_a_file_of_a_run_should_be_is_one_sentence(run: Run, name: str, damage: str) -> None:
    path = run.directory / name
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    if damage == "a link to itself":
        path.symlink_to(path)
    refusal(run.directory, "" if name == "manifest.json" else name)


@pytest.mark.parametrize("content", [b"[]\n", b"{}\n3\n", b"{}\n{\n", b"\xff\n"])
def test_a_stored_line_that_is_not_an_object_is_one_sentence(run: Run, content: bytes) -> None:
    run.commit("pairs", 1, write={"pairs.jsonl": content})
    with pytest.raises(UserError, match=r"pairs\.jsonl:\d: not a JSON object; restore it, or start a new run"):
        Run.open(run.directory).lines("pairs.jsonl")


def refusal(directory: Path, name: str) -> str:
    """The one sentence with which a run is refused for one of its files."""
    with pytest.raises(UserError) as caught:
        Run.open(directory)
    message = str(caught.value)
    assert message.startswith(str(directory / name))
    assert "\n" not in message
    return message


def test_states_that_are_no_longer_needed_are_deleted(run: Run) -> None:
    for step in (1, 2):
        (run.directory / f"seed-0/sft/state-{step}").mkdir(parents=True)
        (run.directory / f"seed-0/sft/state-{step}/state.bin").write_bytes(b"x")
    run.commit("sft", 1, adopt=["seed-0/sft/state-1"])
    run.commit("sft", 2, adopt=["seed-0/sft/state-2"], forget=["seed-0/sft/state-1"])
    assert not (run.directory / "seed-0/sft/state-1").exists()
    Run.open(run.directory)


def test_a_resumed_run_has_the_records_of_its_last_commit(run: Run) -> None:
    engine = {"packed": True}
    run.record_on_commit("engine", lambda: dict(engine))
    run.commit("sft", 1)
    engine["packed"] = False  # and the process dies before the next unit is stored
    assert Run.open(run.directory).recorded("engine") == {"packed": True}
    run.commit("sft", 2)
    assert Run.open(run.directory).recorded("engine") == {"packed": False}


def test_not_a_number_never_reaches_a_file(run: Run) -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json({"loss": float("nan")})
    assert json.loads((run.directory / "manifest.json").read_bytes())["progress"] == {}


def test_the_scratch_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(
    tmp_path: Path,
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, alive = (tmp_path / f".logs-{platform.node()}-{number}-abc" for number in (ended.pid, os.getpid()))
    elsewhere = tmp_path / f".logs-elsewhere-{ended.pid}-abc"
    for folder in (left, alive, elsewhere):
        folder.mkdir()
        (folder / "half.eval").write_bytes(b"half")
    with scratch(tmp_path, "logs") as new:
        assert {*tmp_path.iterdir()} == {new, alive, elsewhere}
    assert {*tmp_path.iterdir()} == {alive, elsewhere}


def test_a_link_where_a_file_is_written_first_is_refused_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("keep")
    (tmp_path / ".results.json.new").symlink_to(outside)
    with pytest.raises(UserError, match=r"\.results\.json\.new: is a link, and another file"):
        write_atomic(tmp_path / "results.json", b"x")
    assert outside.read_text() == "keep"


def test_a_file_that_another_process_is_writing_now_is_written_whole_by_each(tmp_path: Path) -> None:
    path, new = tmp_path / "page.html", tmp_path / ".page.html.new"
    new.write_bytes(b"left by a killed process, and longer than what is written next")
    write_atomic(path, b"ours")
    assert (path.read_bytes(), new.exists()) == (b"ours", False)
    with new.open("ab") as of_another:
        fcntl.flock(of_another, fcntl.LOCK_EX)
        of_another.write(b"half of the oth")
        of_another.flush()
        write_atomic(path, b"ours again")
        assert path.read_bytes() == b"ours again"
        assert new.read_bytes() == b"half of the oth"
    assert {*tmp_path.iterdir()} == {path, new}


def test_a_file_whose_place_a_folder_has_is_not_written_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "report.html", b"a page")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
