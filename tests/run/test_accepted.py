"""A file that was changed after the run: refused by name, or accepted and noted in the results."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from report.conftest import _make
from small_run import PROMPTS

from cai_base.cli import look, main
from cai_base.records import Answer
from cai_base.report.load import stored_records
from cai_base.run.evaluation.again import suite_again
from cai_base.store import Run, to_json, to_lines

ANSWERS = "seed-0/evaluation/cai/attack.jsonl"


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make(tmp_path_factory, seeds=1)


def change(run: Path, name: str = ANSWERS) -> None:
    """Edit an answer by hand, as a user would."""
    path = run / name
    path.write_text(path.read_text(encoding="utf-8").replace('"complied": false', '"complied": true'), encoding="utf-8")


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main([*command]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


@pytest.mark.parametrize("command", ["report", "inspect", "style", "evaluate", "resume"])
def test_every_command_that_reads_a_run_refuses_a_changed_file_and_says_how_to_go_on(
    command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "inspect_is_installed", lambda: True)
    suite = tmp_path / "mine.jsonl"
    suite.write_text('{"kind": "benign", "text": "How do I mend the gate?"}\n')
    change(run)
    arguments = [command, str(run), *(["--suite", str(suite)] if command == "evaluate" else [])]
    said = refused(capsys, *arguments)
    assert f"{run / ANSWERS}: differs from what this run stored; restore it, or start a new run, or" in said
    assert f"--accept-changed {ANSWERS}" in said
    said = refused(capsys, *arguments, "--accept-changed", "no/such.jsonl")
    assert f"--accept-changed no/such.jsonl: {run} stored no such file" in said


@pytest.mark.parametrize("command", ["report", "inspect", "style", "evaluate", "verify"])
def test_a_changed_reply_of_a_judge_is_named_by_every_command_that_reads_a_finished_run(
    command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "inspect_is_installed", lambda: True)
    suite = tmp_path / "mine.jsonl"
    suite.write_text('{"kind": "benign", "text": "How do I mend the gate?"}\n')
    record = {"key": "ab" * 32, "text": "It complies.", "failure": None}
    check = sha256(json.dumps(record).encode()).hexdigest()[:16]
    line = json.dumps([record, check]) + "\n"
    (run / "judge.jsonl").write_text(line + line.replace("It complies", "It refuses") + '[{"key": "a torn l')
    before = (run / "judge.jsonl").read_bytes()
    said = refused(capsys, command, str(run), *(["--suite", str(suite)] if command == "evaluate" else []))
    assert f"{run / 'judge.jsonl'}:2: differs from what was written; delete this line to ask again" in said
    assert (run / "judge.jsonl").read_bytes() == before, "no command that only reads cuts a torn line off"


def test_an_accepted_change_is_in_the_figures_in_the_results_and_on_the_page(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((run / "results.json").read_bytes())
    change(run)
    assert main(["report", str(run), "--accept-changed", ANSWERS]) == 0
    sentence = f"{ANSWERS} was changed after this run stored it, and accepted with --accept-changed"
    results = json.loads((run / "results.json").read_bytes())
    assert results["warnings"][0].startswith(sentence)
    attack = "attack_success_rate"
    assert results["arms"]["cai"][attack]["mean"] > before["arms"]["cai"][attack]["mean"]
    assert results["arms"]["sft"] == before["arms"]["sft"]
    for page in ("report.html", "report.md"):
        assert sentence in (run / page).read_text(encoding="utf-8").replace("&#x2F;", "/"), page
    assert sentence in " ".join(capsys.readouterr().out.split())
    stored = json.loads((run / "manifest.json").read_bytes())["accepted"]
    assert list(stored) == [ANSWERS]
    assert main(["report", str(run)]) == 0, "what is accepted is not refused again"


@pytest.fixture(scope="module")
def asked(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run whose arms were asked a suite."""
    folder = tmp_path_factory.mktemp("asked")
    run = Path(shutil.copytree(finished, folder / "run", ignore=shutil.ignore_patterns("suites", "style*")))
    suite = folder / "mine.jsonl"
    suite.write_text(PROMPTS)
    assert main(["evaluate", str(run), "--suite", str(suite), "--arms", "base,sft"]) == 0
    return run


def test_a_suite_is_computed_again_from_its_answers_byte_for_byte(asked: Path) -> None:
    suite = Run.open(asked / "suites/mine")
    again = to_json(suite_again(Run.open(asked), suite).dump())
    assert again == (suite.directory / "results.json").read_bytes()


def test_a_forged_figure_of_a_suite_is_found_by_verify(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(asked, tmp_path / "run"))
    suite = Run.open(run / "suites/mine")
    assert main(["verify", str(run)]) == 0
    assert "figures of suites/mine" not in capsys.readouterr().out
    forged = json.loads((suite.directory / "results.json").read_bytes())
    forged["arms"]["sft"]["over_refusal_rate"]["mean"] = 0.125
    suite.commit(write={"results.json": to_json(forged)})
    said = refused(capsys, "verify", str(run))
    assert f"{suite.directory / 'results.json'}: arms.sft.over_refusal_rate.mean is 0.125, but the stored" in said


def test_an_accepted_change_of_a_suite_is_in_its_figures_in_its_results_and_on_the_page(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(asked, tmp_path / "run"))
    name, suite = "suites/mine/sft/seed-0.jsonl", run / "suites/mine"
    before = json.loads((suite / "results.json").read_bytes())
    lines = [json.loads(line) for line in (run / name).read_bytes().splitlines()]
    for one in lines:
        one["verdict"]["refused"] = not one["verdict"]["refused"]
    (run / name).write_bytes(to_lines(lines))
    assert f"--accept-changed {name}" in refused(capsys, "report", str(run))
    assert main(["report", str(run), "--accept-changed", name]) == 0
    assert f"{name} is taken as it is; the results say so" in " ".join(capsys.readouterr().err.split())
    sentence = "sft/seed-0.jsonl was changed after this run stored it, and accepted with --accept-changed"
    after = json.loads((suite / "results.json").read_bytes())
    assert after["warnings"][0].startswith(sentence)
    for metric in ("refusal_rate", "over_refusal_rate"):
        assert after["arms"]["sft"][metric]["mean"] != before["arms"]["sft"][metric]["mean"]
    assert after["arms"]["base"] == before["arms"]["base"]
    for page in ("report.html", "report.md"):
        assert sentence in (run / page).read_text(encoding="utf-8").replace("&#x2F;", "/"), page
    assert main(["report", str(run)]) == 0, "what is accepted is not refused again"
    (run / name).write_bytes(to_lines(lines[:1]))
    assert "must have one answer to each of the 2 prompts" in refused(
        capsys, "report", str(run), "--accept-changed", name
    )


def test_the_flag_in_the_advice_of_a_refusal_is_one_that_is_taken(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = Run.create(run / "suites" / "mine", {"suite": {"name": "mine"}}, {"sft/seed-0.jsonl": b"{}\n"})
    (suite.directory / "sft/seed-0.jsonl").write_bytes(b"{ }\n")
    said = refused(capsys, "report", str(run))
    assert "--accept-changed suites/mine/sft/seed-0.jsonl" in said
    assert main(["report", str(run), "--accept-changed", "suites/mine/sft/seed-0.jsonl"]) == 0
    assert "the results will say so" in " ".join(capsys.readouterr().err.split()), "an evaluation that is not finished"
    (run / "results.json").write_bytes((run / "results.json").read_bytes() + b"\n")
    for command in ("verify", "report"):
        said = refused(capsys, command, str(run))
        assert "restore it, or start a new run; it is computed from the stored answers" in said
        assert "--accept-changed" not in said


@pytest.mark.parametrize("command", ["report", "style"])
def test_a_line_appended_to_a_file_of_a_finished_run_is_refused(
    command: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    path = run / "seed-0/revision.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[0])
    assert f"{path}: differs from what this run stored" in refused(capsys, command, str(run))


def test_accepting_one_file_does_not_accept_another(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = "seed-0/evaluation/sft/attack.jsonl"
    change(run)
    change(run, other)
    manifest = (run / "manifest.json").read_bytes()
    said = refused(capsys, "report", str(run), "--accept-changed", ANSWERS)
    assert f"{run / other}: differs from what this run stored" in said
    assert (run / "manifest.json").read_bytes() == manifest
    assert main(["report", str(run), "--accept-changed", ANSWERS, "--accept-changed", other]) == 0


def test_a_change_whose_acceptance_was_killed_after_the_results_is_accepted_again(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run)
    manifest = (run / "manifest.json").read_bytes()
    assert main(["report", str(run), "--accept-changed", ANSWERS]) == 0
    results = (run / "results.json").read_bytes()
    (run / "manifest.json").write_bytes(manifest)  # the process was killed before it was replaced
    assert main(["report", str(run), "--accept-changed", ANSWERS]) == 0
    assert (run / "results.json").read_bytes() == results


def test_an_edit_of_what_is_computed_is_not_accepted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, manifest = run / "results.json", (run / "manifest.json").read_bytes()
    path.write_bytes(to_json(json.loads(path.read_bytes()) | {"model": "a better model"}))
    edited = path.read_bytes()
    said = refused(capsys, "report", str(run), "--accept-changed", "results.json")
    assert "--accept-changed results.json: is computed from the stored answers, so an edit of it is not taken" in said
    assert (path.read_bytes(), (run / "manifest.json").read_bytes()) == (edited, manifest)
    assert "is computed from the stored answers" in refused(
        capsys, "report", str(run), "--accept-changed", "suites/mine/results.json"
    )


def test_answers_that_are_missing_doubled_or_foreign_are_not_accepted(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, manifest = run / ANSWERS, (run / "manifest.json").read_bytes()
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    first, second = (json.loads(line)["id"] for line in lines[:2])
    foreign = lines[0].replace(json.dumps(first), '"elsewhere"', 1)
    for content, why in (
        (lines[1:], f"'{first}' without an answer"),
        ([*lines, lines[1]], f"'{second}' with several answers"),
        ([*lines, foreign], "'elsewhere' not a prompt of this file"),
        ([foreign, *lines[1:]], f"'{first}' without an answer; 'elsewhere' not a prompt of this file"),
        ([], f"'{first}', '{second}'"),
    ):
        path.write_text("".join(content), encoding="utf-8")
        said = refused(capsys, "report", str(run), "--accept-changed", ANSWERS)
        assert f"{path}: must have one answer to each of its prompts, and has" in said
        assert why in said
    assert (run / "manifest.json").read_bytes() == manifest


def test_what_cannot_be_accepted_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, why in (
        ("config.json", "a run keeps its configuration"),
        ("../else", "is not the path of a file inside"),
    ):
        assert why in refused(capsys, "report", str(run), "--accept-changed", name)
    (run / ANSWERS).unlink()
    assert "is missing; restore it" in refused(capsys, "report", str(run), "--accept-changed", ANSWERS)
    (run / ANSWERS).write_text("[]\n")
    assert f"{run / ANSWERS}:1: not a JSON object" in refused(capsys, "report", str(run), "--accept-changed", ANSWERS)
    assert "accepted" not in json.loads((run / "manifest.json").read_bytes())
    no_run = ["evaluate", "organism", "--suite", "x.jsonl", "--accept-changed", "x"]
    assert "--accept-changed x: organism is no run; leave it out" in refused(capsys, *no_run)


def test_a_changed_state_is_refused_before_anything_is_trained_on_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = Run.create(tmp_path / "stopped", json.loads((run / "config.json").read_bytes()), {})
    state = stopped.directory / "seed-0/sft/state-10/optimizer.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(bytes(64))
    stopped.commit("sft", 10, adopt=["seed-0/sft/state-10"])
    state.write_bytes(bytes(63) + b"\1")
    assert f"{state}: differs from what this run stored" in refused(capsys, "resume", str(stopped.directory))


def test_a_suite_inside_a_run_is_checked_with_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = Run.create(run / "suites" / "mine", {"suite": {"name": "mine"}}, {"results.json": b"{}\n"})
    (suite.directory / "results.json").write_bytes(b"{ }\n")
    assert f"{suite.directory / 'results.json'}: differs" in refused(capsys, "report", str(run))


def test_what_the_run_did_not_store_is_not_read_as_its_own(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _make(tmp_path_factory, seeds=2, lost={1: "its loss was nan"})
    added = run / "seed-1/evaluation/cai/attack.jsonl"
    added.write_bytes((run / ANSWERS).read_bytes())
    assert f"{added}: this run did not store it; remove it" in refused(capsys, "report", str(run))


def test_a_torn_tail_is_not_read(run: Path) -> None:
    stored = Run.open(run)
    answer = json.loads((run / ANSWERS).read_bytes().splitlines()[0])
    stored.commit(append={"more.jsonl": to_lines([answer])})
    with (run / "more.jsonl").open("ab") as file:
        file.write(b'{"id": ')
    assert len(list(stored_records(Run.open(run), "more.jsonl", Answer))) == 1
