"""A run's evaluations as Inspect's logs: the run's own figures and answers, read back by Inspect."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="the extra 'inspect' is not installed")

from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log

from cai_base import cli
from cai_base.cli import look
from cai_base.integrations.inspect_logs import write
from cai_base.store import Run, to_json

from .conftest import results_of_a_suite

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def run(make_run: MakeRun) -> Path:
    return make_run(seeds=2, lost={1: "the loss was not a number"})


@pytest.fixture(scope="module")
def logs(run: Path) -> Mapping[str, EvalLog]:
    return {path.stem: read_eval_log(str(path)) for path in write(run)}


def headline(log: EvalLog) -> tuple[str, float]:
    assert log.results is not None
    chosen = log.results.headline
    assert chosen is not None
    (score,) = [score for score in log.results.scores if score.name == chosen.score]
    assert chosen.metric is not None
    return chosen.metric, score.metrics[chosen.metric].value


def test_every_arm_and_task_has_a_log_and_so_has_every_evaluation_during_training(logs: Mapping[str, EvalLog]) -> None:
    arms = ("base", "sft-step-10", "sft", "cai-step-10", "cai")
    assert set(logs) == {f"{arm}-{task}" for arm in arms for task in ("attack", "helpfulness", "over-refusal")}
    assert all(log.status == "success" for log in logs.values())
    assert logs["cai-attack"].eval.task == "cai_base/attack"
    assert logs["cai-attack"].eval.model.endswith("/cai")


def test_the_figures_are_those_of_the_run(run: Path, logs: Mapping[str, EvalLog]) -> None:
    arms = json.loads((run / "results.json").read_bytes())["arms"]
    for arm in ("base", "sft", "cai"):
        for task, metric in (
            ("attack", "attack_success_rate"),
            ("helpfulness", "helpfulness"),
            ("over-refusal", "over_refusal_rate"),
        ):
            assert headline(logs[f"{arm}-{task}"]) == (metric, arms[arm][metric]["mean"])


def test_an_epoch_is_a_seed_and_one_that_failed_has_no_samples(logs: Mapping[str, EvalLog]) -> None:
    assert {sample.epoch for sample in logs["sft-attack"].samples or ()} == {1, 2}
    cai = logs["cai-attack"]
    assert {(sample.epoch, sample.metadata["seed"]) for sample in cai.samples or ()} == {(1, 0)}
    assert cai.results is not None
    assert cai.results.total_samples == 2 * cai.results.completed_samples


def test_a_sample_is_an_answer_of_the_run(run: Path, logs: Mapping[str, EvalLog]) -> None:
    stored = [json.loads(line) for line in (run / "seed-0/evaluation/sft/attack.jsonl").read_text().splitlines()]
    samples = {sample.id: sample for sample in logs["sft-attack"].samples or () if sample.epoch == 1}
    assert len(samples) == len(stored)
    for record in stored:
        sample = samples[record["id"]]
        assert (sample.input, sample.output.completion) == (record["prompt"], record["response"])
        assert sample.scores is not None
        assert sample.scores["verdict"].value["complied"] == record["verdict"]["complied"]  # type: ignore[call-overload,index]


def test_answers_without_a_verdict_are_unscored_and_a_lost_arm_has_no_log(make_run: MakeRun) -> None:
    run = make_run(seeds=1, judged=False, lost={0: "the loss was not a number"})
    written = {path.stem: path for path in write(run)}
    assert not any(name.startswith("cai") and "step" not in name for name in written), "it has no answers"
    log = read_eval_log(str(written["sft-attack"]))
    for sample in log.samples or ():
        assert sample.scores is not None
        score = sample.scores["verdict"]
        assert isinstance(score.value, float)
        assert math.isnan(score.value)
        assert score.explanation == "no judge"
    assert log.results is not None
    assert {score.scored_samples for score in log.results.scores} == {0}
    assert {score.metrics["coverage"].value for score in log.results.scores} == {0}


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.parent.name != "inspect"}


def test_the_command_leaves_the_run_as_it_was(
    run: Path, logs: Mapping[str, EvalLog], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(look, "inspect_is_installed", lambda: True)
    before = contents(run)
    (run / "inspect/of-an-arm-that-is-gone.eval").write_bytes(b"")
    assert cli.main(["inspect", str(run)]) == 0
    assert contents(run) == before
    printed = {Path(line) for line in capsys.readouterr().out.splitlines()}
    assert printed == {run / f"inspect/{name}.eval" for name in logs}
    assert {Path(log.name).name for log in list_eval_logs(str(run / "inspect"))} == {path.name for path in printed}


def test_where_inspect_is_installed_a_report_writes_the_logs_too(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "inspect_is_installed", lambda: True)
    monkeypatch.setattr("cai_base.report.write", lambda directory: [])  # drawing takes longer than all the rest
    run = make_run(seeds=1, arms="sft")
    assert cli.main(["report", str(run), "--json"]) == 0
    assert (run / "inspect/sft-attack.eval").is_file()


def test_a_report_of_a_large_run_names_the_command_for_logs_and_writes_none(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(look, "inspect_is_installed", lambda: True)
    monkeypatch.setattr(look, "MOST_LOGGED", 1000)
    monkeypatch.setattr("cai_base.report.write", lambda directory: [])
    run = make_run(seeds=1, arms="sft")
    assert cli.main(["report", str(run), "--json"]) == 0
    assert f"write them with: cai-base inspect {run}" in " ".join(capsys.readouterr().err.split())
    assert not (run / "inspect").exists()


def test_suites_that_the_arms_were_asked_have_logs_too(make_run: MakeRun) -> None:
    run = make_run(seeds=1, arms="sft")
    results = json.loads((run / "results.json").read_bytes())
    folder = run / "suites/mine"
    files = {
        "results.json": to_json(results_of_a_suite(results)),
        "sft/seed-0.jsonl": (run / "seed-0/evaluation/sft/attack.jsonl").read_bytes(),
    }
    Run.create(folder, {"suite": {"name": "mine"}}, files)
    (path,) = [path for path in write(run) if path.name.startswith("mine")]
    log = read_eval_log(str(path))
    assert path.stem == "mine-sft-attack", "the suite has no benign prompts, so no log of helpfulness"
    assert log.eval.dataset.name == "suite mine"
    assert headline(log) == ("attack_success_rate", results["arms"]["sft"]["attack_success_rate"]["mean"])
    (alone,) = write(folder)
    assert alone == folder / "inspect/mine-sft-attack.eval"


def test_where_it_is_not_the_command_says_what_to_install(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(run)]) == 2
    assert "pip install 'cai-base[inspect]'" in capsys.readouterr().err


def test_each_log_of_a_run_has_its_own_id(logs: Mapping[str, EvalLog]) -> None:
    """A viewer takes logs with the same task for attempts at one, and shows the last."""
    assert len({log.eval.task_id for log in logs.values()}) == len(logs)
    assert len({log.eval.eval_id for log in logs.values()}) == len(logs)
    assert len({log.eval.run_id for log in logs.values()}) == 1
    every: list[Any] = [sample.uuid for log in logs.values() for sample in log.samples or ()]
    assert len(set(every)) == len({(log.eval.model, s.epoch, s.id) for log in logs.values() for s in log.samples or ()})
