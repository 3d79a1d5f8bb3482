"""What is no regular file, or too large, is refused at once by every command, before it is opened."""

import gzip
import os
import shutil
import socket
from pathlib import Path

import pytest
from refusals import refused
from report.conftest import _make

from cai_base import reading
from cai_base.cli import main
from cai_base.embedded import weights
from cai_base.errors import UserError
from cai_base.evaluation.tasks import suite_rows
from cai_base.store import Run

pytestmark = pytest.mark.timeout(60)  # one that is opened is waited for without end


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make(tmp_path_factory, seeds=1)


def special(path: Path, kind: str) -> None:
    """Put a file of this kind at the path."""
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's address has at most 107 characters
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
        os.chdir(here)
    else:
        path.symlink_to("/dev/zero")


KINDS = ("a FIFO", "a socket", "a device")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--config", "one.toml"),
        ("--constitution", "one.toml"),
        ("--prompts", "one.jsonl"),
        ("--evaluation.prompts", "one.csv"),
        ("--critique-examples", "one.toml"),
        ("--sft.examples", "one.jsonl"),
    ],
)
def test_an_input_that_is_no_regular_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, flag: str, name: str
) -> None:
    special(tmp_path / name, kind)
    message = refused(capsys, "run", flag, str(tmp_path / name), "--out", str(tmp_path / "run"))
    assert f"{name}: this is {kind} and no regular file; give" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "name", "kind"),
    [
        ("--model", "model.safetensors", "a FIFO"),
        ("--model", "config.json", "a socket"),
        ("--instruct", "tokenizer.json", "a FIFO"),
        ("--judge", "chat_template.jinja", "a device"),
        ("--interpreter", "tokenizer_config.json", "a FIFO"),
    ],
)
def test_a_model_s_file_that_is_no_regular_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, name: str, kind: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(weights(), folder)
    (folder / name).unlink(missing_ok=True)
    special(folder / name, kind)
    value = f"hf:{folder}" if flag == "--judge" else str(folder)
    arms = ("--arms", "sft,cai,instruct") if flag == "--instruct" else ()
    message = refused(capsys, "run", flag, value, *arms, "--out", str(tmp_path / "run"))
    assert f"{folder / name}: this is {kind} and no regular file" in message


COMMANDS = {
    "report": "report {run}",
    "evaluate": "evaluate {run} --suite {suite}",
    "style": "style {run}",
    "resume": "resume {run}",
    "verify": "verify {run}",
    "watch": "watch {run}",
    "compare": "compare {run} {other}",
    "export": "export {run} --out {new}",
}


def words(command: str, run: Path, other: Path, place: Path) -> list[str]:
    suite = place / "suite.jsonl"
    suite.write_text('{"kind": "benign", "text": "How would you sweep the mill?"}\n')
    return [word.format(run=run, other=other, suite=suite, new=place / "new") for word in COMMANDS[command].split()]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["manifest.json", "config.json", "results.json", "unknown"])
def test_a_fifo_in_a_run_s_folder(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    message = refused(capsys, *words(command, run, finished, tmp_path))
    assert f"{run / name}: this is a FIFO and no regular file" in message


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["results.json", "seed-0/revision.jsonl", "seed-0"])
def test_a_link_out_of_a_run_s_folder(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(finished, run)
    (run / name).rename(outside)  # with the bytes that the manifest vouches for
    (run / name).symlink_to(outside)
    message = refused(capsys, *words(command, run, finished, tmp_path))
    assert f"{run / name}: is a link out of the run, to {outside}; put a copy of the file in its place" in message


def test_a_link_inside_a_run_s_folder_is_followed(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "results.json").rename(run / "elsewhere.json")
    (run / "results.json").symlink_to("elsewhere.json")
    Run.open(run)


def test_a_tracker_s_links_are_its_own(finished: Path, tmp_path: Path) -> None:
    """W&B puts a link to a log in the user's cache into its folder."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "trackers/wandb").mkdir(parents=True)
    (run / "trackers/wandb/debug.log").symlink_to("/dev/null")
    Run.open(run)


def test_a_folder_called_trackers_is_looked_at_elsewhere_than_at_the_top_of_a_run(
    finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "seed-0/trackers").mkdir()
    (run / "seed-0/trackers/attack.jsonl").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match=r"seed-0/trackers/attack\.jsonl: is a link out of the run"):
        Run.open(run)


def odd(kind: str, folder: Path) -> str:
    """A path of this kind in the folder, where nothing can be written."""
    place = folder / "o"
    match kind:
        case "below a file":
            place.write_text("mine")
            return f"{place}/new"
        case "a FIFO":
            os.mkfifo(place)
        case "a socket":
            special(place, kind)
        case "a link to itself":
            place.symlink_to("o")
        case "a link to nowhere":
            place.symlink_to("nowhere")
        case "a link to a file":
            (folder / "mine").write_text("mine")
            place.symlink_to("mine")
        case "a NUL":
            return f"{place}\0"
        case "no UTF-8":
            return f"{place}\udcff"
        case "a long name":
            return f"{folder}/{'n' * 300}"
        case "a long name in a new folder":
            return f"{place}/{'n' * 300}"
    return str(place)


ODD = (
    *("below a file", "a FIFO", "a socket", "a link to itself", "a link to nowhere", "a link to a file", "a NUL"),
    *("no UTF-8", "a long name", "a long name in a new folder"),
)
WRITERS = {
    "run": "run --out",
    "run --from": "run --from {run} --out",
    "evaluate": "evaluate {run} --suite {suite} --out",
    "export": "export {run} --out",
    "export --preferences": "export {run} --preferences --out",
    "compare": "compare {run} {run} --out",
    "calibrate": "calibrate --judge refusal-phrases --labels {labels} --out",
    "organism build": "organism build --out",
    "organism sibling": "organism sibling --out",
}
LABELS = "prompt,completion,final_label\nHow?,I'm sorry.,full_refusal\nWhy?,Because.,full_compliance\n"


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("kind", ODD)
def test_a_place_where_nothing_can_be_written_is_refused_before_any_work(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, kind: str
) -> None:
    names = {"run": finished, "suite": tmp_path / "suite.jsonl", "labels": tmp_path / "labels.csv"}
    names["suite"].write_text('{"kind": "benign", "text": "How would you sweep the mill?"}\n')
    names["labels"].write_text(LABELS)
    out = odd(kind, tmp_path)
    before = {path: path.lstat().st_ino for path in tmp_path.rglob("*")}
    message = refused(capsys, *[word.format(**names) for word in WRITERS[command].split()], out)
    assert "--out " in message
    assert "; give " in " ".join(message.split())
    assert {path: path.lstat().st_ino for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["figures", "report.html"])
def test_what_is_in_the_way_of_a_page_is_named_in_a_sentence(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    if name == "figures":
        (run / name).write_text("mine")
    else:
        (run / name).mkdir()
        monkeypatch.setattr("cai_base.report.figures.draw", lambda stored: [])  # takes seconds, and is not in the way
    assert main(["report", str(run)]) == 2
    message = capsys.readouterr().err  # the table stands on stdout: it is printed before the pages are written
    assert "Traceback" not in message
    assert f"{run / name}: cannot be read or written (" in message
    assert "remove what is in its place, or give this user the right to it" in message


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "one.jsonl").open("wb") as file:
        file.truncate(reading.LARGEST + 1)  # takes no space on the disk
    message = refused(capsys, "run", "--prompts", str(tmp_path / "one.jsonl"), "--out", str(tmp_path / "run"))
    assert "one.jsonl: has 268,435,457 bytes and at most 268,435,456 are read" in message


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite_rows, "LARGEST", 1 << 20)  # the same with fewer bytes
    (tmp_path / "suite.jsonl.gz").write_bytes(gzip.compress(b" " * (5 << 20)))
    message = refused(capsys, "evaluate", str(finished), "--suite", str(tmp_path / "suite.jsonl.gz"))
    assert "suite.jsonl.gz: unpacks to more than 1,048,576 bytes, which are read at most; divide it" in message


@pytest.mark.parametrize(
    ("flag", "name", "content", "says"),
    [
        ("--prompts", "one.txt", "word " * (1 << 20), "one.txt:1: the field 'text' is 'word word"),
        (
            "--prompts",
            "one.jsonl",
            f'{{"text": "{"word " * (1 << 20)}"}}',
            "one.jsonl:1: the field 'text' is 'word word",
        ),
        (
            "--constitution",
            "one.toml",
            f'a = "{"word " * (1 << 21)}"',
            "one.toml: has 10,485,",
        ),
    ],
)
def test_a_text_of_megabytes_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content)
    message = refused(capsys, "run", flag, str(tmp_path / name), "--out", str(tmp_path / "run"))
    assert says in message
    assert "at most 1,048,576 characters" in message or "at most 8,388,608 of TOML are read" in message
