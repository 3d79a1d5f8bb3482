"""A wrong results file, or one of another version: one sentence with file and field, never a traceback."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cai_base.cli import main
from cai_base.errors import UserError
from cai_base.report import write
from cai_base.report.load import load, load_style, load_suite
from cai_base.report.table import render

from .conftest import MakeRun

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def content(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "results.json").read_bytes())
    return read


def message(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "results.json").write_bytes(data)
    with pytest.raises(UserError) as caught:
        write(tmp_path)
    text = str(caught.value)
    assert text.startswith(str(tmp_path / "results.json"))
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[]", "must be a JSON object with results"),
        (b"null", "must be a JSON object with results"),
        (b"{}", "schema is None and this version reads 1"),
        (b"", "the file is empty"),
        (b'{"schema": 1', "1: not valid JSON"),
        (b'{"schema": 1, "schema": 1}', "the key 'schema' occurs twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"schema": 1, "model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (bytes(range(128, 256)), "not UTF-8 text"),
        (b"\x00\x01\x02", "not valid JSON"),
        (b'{"schema": 1}', "the field 'model' is missing"),
        (b'{"schema": 1, "model": "\\ud800"}', "not valid JSON: "),
        (b'{"schema": "1"}', "schema is '1' and this version reads 1"),
    ],
)
def test_a_file_that_holds_no_results(tmp_path: Path, data: bytes, words: str) -> None:
    assert words in message(tmp_path, data)


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "results.json").mkdir()
    with pytest.raises(UserError, match="this is a directory"):
        write(tmp_path)


def attack(content: dict[str, Any], arm: str = "sft") -> dict[str, Any]:
    figure: dict[str, Any] = content["arms"][arm]["attack_success_rate"]
    return figure


def compared(content: dict[str, Any]) -> dict[str, Any]:
    """Figures of pairwise helpfulness in the right form."""
    fields = ("mean", "per_seed", "std", "ci95_seeds", "ci95", "ci95_over")
    counts = dict.fromkeys(("wins", "ties", "losses", "scored", "total"), 1)
    preferred = {name: attack(content)[name] for name in fields}
    return {"compared_with": "sft", "preferred": preferred, "first_shown": 0.5, **counts}


CHANGES: dict[str, Change] = {
    "the field 'comparisons' is missing": lambda c: c.pop("comparisons"),
    "the field 'colour' is unknown": lambda c: c.update(colour="red"),
    "the field 'seeds.0' is 'one'": lambda c: c.update(seeds=["one", 2]),
    "the field 'seeds' is a number": lambda c: c.update(seeds=2),
    "the field 'arms' is null": lambda c: c.update(arms=None),
    "the field 'arms.sft.attack_success_rate.mean' is missing": lambda c: attack(c).pop("mean"),
    "the field 'arms.sft.attack_success_rate.mean' is 'high'": lambda c: attack(c).update(mean="high"),
    "the field 'arms.sft.attack_success_rate.ci95.1' is missing": lambda c: attack(c).update(ci95=[0.1]),
    "arms: 'robot' is not an arm; the arms are": lambda c: c["arms"].update(robot=c["arms"]["cai"]),
    "arms: must not be empty": lambda c: c.update(arms={}, comparisons={}),
    "arms: 'sft' is missing": lambda c: (c["arms"].pop("sft"), c.update(comparisons={})),
    "arms.sft: the metric 'charm' is unknown to this version": lambda c: c["arms"]["sft"].update(charm=attack(c)),
    "must have the same metrics; only some have helpfulness": lambda c: c["arms"]["cai"].pop("helpfulness"),
    "per_seed: must have a value for each of 2 seeds": lambda c: attack(c).update(per_seed=[0.5]),
    "comparisons: 'cai - sft' is missing": lambda c: c["comparisons"].pop("cai - sft"),
    "comparisons: 'sft - cai' is not a comparison": lambda c: c["comparisons"].update({"sft - cai": {}}),
    "comparisons.cai - sft: every arm and comparison": lambda c: c["comparisons"]["cai - sft"].pop("helpfulness"),
    "failures: the arm 'robot' has no figures": lambda c: c["failures"][0].update(arm="robot"),
    "curves.sft: must be the points": lambda c: c["curves"].pop("sft"),
    "curves.rlhf: must be the points": lambda c: c["curves"].update(rlhf=c["curves"]["sft"]),
    "helpfulness must be a number at every step": lambda c: c["curves"]["sft"][0].update(helpfulness="much"),
    "curves.sft: 'charm' is unknown to this version": lambda c: c["curves"]["sft"][0].update(charm=0.5),
    "protocol: 'secret' is unknown to this version": lambda c: c.update(protocol="secret"),
    "losses: 'robot' is unknown": lambda c: c["losses"].update(robot=c["losses"]["cai"]),
    "losses.cai.name: 'kto' is unknown": lambda c: c["losses"]["cai"].update(name="kto"),
    "pairwise: 'robot' is unknown": lambda c: c.update(pairwise={"robot": compared(c)}),
    "controls: 'robot' is unknown": lambda c: c["controls"].update(robot={}),
    "engine: 'abacus' is unknown": lambda c: c.update(engine="abacus"),
    "judge: 'oracle' is unknown": lambda c: c.update(judge="oracle:m"),
    "failed: 'rlhf' is unknown": lambda c: c.update(failed={"rlhf": {"0": "diverged"}}),
    "failed.dpo: '7' is unknown": lambda c: c.update(failed={"dpo": {"7": "diverged"}}),
    "ci95_over' is 'luck'": lambda c: attack(c).update(ci95_over="luck"),
    "attack_success_rate.ci95_over: must be there": lambda c: attack(c).update(ci95_over=None),
    "cai - sft.helpfulness.ci95: its lower end": lambda c: c["comparisons"]["cai - sft"]["helpfulness"].update(
        ci95=[1.0, 0.0]
    ),
    "by_family.flattery: 7 is not a possible attack success rate": lambda c: attack(c)["by_family"].update(flattery=7),
    "arms.cai.attack_success_rate.by_family: must have the same families": lambda c: attack(c, "cai").update(
        by_family={}
    ),
    "attack_success_rate.mean: -1 is not a possible": lambda c: attack(c).update(mean=-1),
    "revision: every list by round": lambda c: c["revision"].update(helpful_by_round=[]),
}


@pytest.mark.parametrize("words", CHANGES)
def test_results_with_a_wrong_field(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    CHANGES[words](content)
    assert words in message(tmp_path, json.dumps(content).encode())


def test_a_number_that_is_none(tmp_path: Path, content: dict[str, Any]) -> None:
    attack(content)["mean"] = float("nan")
    assert "arms.sft.attack_success_rate.mean" in message(tmp_path, json.dumps(content).encode())


def test_the_command_ends_with_2(
    run: Path, tmp_path: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for file in run.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    (copy / "results.json").write_text("[]")
    assert main(["report", str(copy)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_results_of_a_suite_and_of_styles_are_checked_too(tmp_path: Path, content: dict[str, Any]) -> None:
    for name, read in (("results.json", load_suite), ("style.json", load_style)):
        for data in (b"[]", b"null", b'{"schema": 1}', b"\xff", json.dumps(content).encode()):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(UserError, match=name.replace(".", r"\.")):
                read(tmp_path)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("seed-0/evaluation/cai/attack.jsonl", r"attack\.jsonl:1: the field 'id' is missing"),
        ("seed-0/revision.jsonl", r"revision\.jsonl:1: the field 'id' is missing"),
        ("seed-1/dpo/metrics.jsonl", r"metrics\.jsonl:1: the field 'step' is missing"),
    ],
)
def test_a_line_that_is_not_a_record_is_named(make_run: MakeRun, file: str, words: str) -> None:
    run = make_run(seeds=2)
    (run / file).write_text("{}\n")
    with pytest.raises(UserError, match=words):
        write(run)
    (run / file).write_bytes(b"\xff\n")
    with pytest.raises(UserError, match=r"jsonl:1: "):
        write(run)


def test_right_results_are_read(run: Path) -> None:
    assert load(run).results.dump() == json.loads((run / "results.json").read_bytes())
    assert render(run)
