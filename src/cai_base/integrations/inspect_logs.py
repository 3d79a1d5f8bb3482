"""A finished run's evaluations as logs that `inspect view` opens: one for each arm and task, an epoch for each seed.

Those of suites that the run's arms were asked are among them. The logs stand beside the run's artifacts and are none of
them: they are made from `results.json` and the stored answers, and can be deleted and made again.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import inspect_ai
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalPlan,
    EvalPlanStep,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    HeadlineMetric,
    write_eval_log,
)
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput
from inspect_ai.scorer import Score

from cai_base import __version__
from cai_base.evaluation import metrics
from cai_base.inputs.prompts import ANSWER_FILES
from cai_base.integrations.inspect_tasks import COVERAGE, TASKS, VERDICT, VERSION, Figures
from cai_base.report.load import Stored, load
from cai_base.run.results import evaluation_folder
from cai_base.store import Record, read_lines

FOLDER = "inspect"
"""Where a run's logs lie."""

SHOWN = ("kind", "family", "tokens", "truncated", "logprob", "said", "second")
"""What of an answer's record stands beside it in a log."""

ABOUT = (
    "model_organism suite judge second_judge votes rubrics protocol seeds controls constitution intervals warnings"
).split()
"""What of a results.json a reader of a log must know."""

Answers = Mapping[int, list[Record]]
"""The answers of one arm, by seed."""


def write(directory: Path) -> list[Path]:
    """Write the logs of a finished run, or of one suite, into its folder `inspect`, in place of others; their paths.

    Raises:
        UserError: the directory holds no results, or not those of this version.
    """
    with TemporaryDirectory(prefix=".inspect-", dir=directory) as folder:
        for evaluation in _evaluations(directory):
            suite = f"{evaluation.results.parent.name}-" if "suite" in evaluation.about else ""
            for name, asked in TASKS.items():
                log = _log(evaluation, name, asked)
                if log is not None:
                    file = f"{suite}{evaluation.label}-{name.replace('_', '-')}.eval"
                    write_eval_log(log, Path(folder) / file)
        there = directory / FOLDER
        there.mkdir(exist_ok=True)
        for old in there.glob("*.eval"):
            old.unlink()
        return [new.rename(there / new.name) for new in sorted(Path(folder).iterdir())]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation of one arm.

    Attributes:
        results: the file of figures that it is in.
        about: the content of that file.
        prompts: what was asked, in words.
        label: the arm, and if it was during training the step.
        figures: each metric, as in `results.json`.
    """

    results: Path
    about: Record
    prompts: str
    label: str
    answers: Answers
    figures: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The model's name in the log."""
        return f"{Path(self.about['model']).name}/{self.label}"


def _evaluations(directory: Path) -> Iterator[Evaluation]:
    found = json.loads((directory / "results.json").read_bytes()) if (directory / "results.json").exists() else {}
    if "suite" in found:
        yield from _of_suite(directory, found)
        return
    yield from _of_run(load(directory))
    for results in sorted(directory.glob("suites/*/results.json")):
        yield from _of_suite(results.parent, json.loads(results.read_bytes()))


def _of_run(stored: Stored) -> Iterator[Evaluation]:
    """Each arm's evaluations during training, and then its last."""
    for arm in stored.results["arms"]:
        found = {int(p.name.removeprefix("step-")) for p in stored.directory.glob(f"seed-*/evaluation/{arm}/step-*")}
        for step in (*sorted(found), None):
            answers = {seed: _stored(stored, arm, step, seed) for seed in stored.seeds}
            if step is None:
                label, figures = arm, stored.results["arms"][arm]
            else:
                label = f"{arm}-step-{step}"
                figures = metrics.asked({arm: metrics.arm([each or None for each in answers.values()])})[arm]
            results, prompts = stored.directory / "results.json", "evaluation prompts of the run"
            yield Evaluation(results, stored.results, prompts, label, answers, figures)


def _stored(stored: Stored, arm: str, step: int | None, seed: int) -> list[Record]:
    """All answers of an arm and seed; none if the seed failed before."""
    folder = stored.directory / evaluation_folder(seed, arm, step)
    return [record for task in ANSWER_FILES for record in _lines(folder / f"{task}.jsonl")]


def _of_suite(directory: Path, results: Record) -> Iterator[Evaluation]:
    """The evaluations of the arms that answered; comparisons of given texts have no answers, and no log."""
    for arm, figures in results["arms"].items():
        answers = {seed: list(_lines(directory / arm / f"seed-{seed}.jsonl")) for seed in results["seeds"]}
        if all("verdict" in record for records in answers.values() for record in records):
            prompts = f"suite {results['suite']['name']}"
            yield Evaluation(directory / "results.json", results, prompts, arm, answers, figures)


def _lines(file: Path) -> Iterator[Record]:
    return read_lines(file) if file.exists() else iter(())


def _log(evaluation: Evaluation, name: str, asked: Figures) -> EvalLog | None:
    """The log of one task; None if it has no answers."""
    first = metrics.METRICS[next(iter(asked.metrics.values()))]
    kinds = (*first.kinds, *first.families)
    figures = {
        part: evaluation.figures[m] | {"name": m} for part, m in asked.metrics.items() if m in evaluation.figures
    }
    samples = [
        _sample(evaluation, tuple(figures), seed, epoch, record)
        for epoch, (seed, records) in enumerate(evaluation.answers.items(), start=1)
        for record in records
        if record["kind"] in kinds
    ]
    if not samples or not figures:
        return None
    ids = list(dict.fromkeys(str(sample.id) for sample in samples))
    scores = [_score(part, figure, samples) for part, figure in figures.items()]
    digest = sha256(evaluation.results.read_bytes()).hexdigest()
    created = datetime.fromtimestamp(evaluation.results.stat().st_mtime, UTC).isoformat()
    epochs = {str(epoch): f"seed {seed}" for epoch, seed in enumerate(evaluation.answers, start=1)}
    return EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=_id(digest, evaluation.label, name),
            run_id=_id(digest),
            task_id=_id(digest, evaluation.label, name, "task"),
            created=created,
            task=f"cai_base/{name}",
            task_version=VERSION,
            model=evaluation.model,
            dataset=EvalDataset(name=evaluation.prompts, samples=len(ids), sample_ids=ids, shuffled=False),
            config=EvalConfig(epochs=len(epochs), epochs_reducer=["mean"]),
            packages={"inspect_ai": inspect_ai.__version__, "cai_base": __version__},
            headline_metric=_headline(scores[0]),
            metadata={"epochs": epochs, **{key: evaluation.about[key] for key in ABOUT if key in evaluation.about}},
        ),
        plan=EvalPlan(steps=[EvalPlanStep(solver="generate")]),
        results=EvalResults(
            total_samples=len(ids) * len(epochs),
            completed_samples=len(samples),
            scores=scores,
            headline=_headline(scores[0]),
        ),
        stats=EvalStats(started_at=created, completed_at=created),
        samples=samples,
    )


def _id(*parts: str) -> str:
    """As long as Inspect's own; the same for the same results."""
    return sha256("\n".join(parts).encode()).hexdigest()[:22]


def _headline(score: EvalScore) -> HeadlineMetric | None:
    """The figure that sums the log up; none if none of its prompts was of the kinds that the figure is over."""
    figure = next(iter(score.metrics), None)
    return HeadlineMetric(scorer=VERDICT, score=score.name, metric=figure) if figure else None


def _sample(evaluation: Evaluation, parts: tuple[str, ...], seed: int, epoch: int, record: Record) -> EvalSample:
    name, model = f"{evaluation.prompts}/{evaluation.model}/{seed}/{record['id']}", evaluation.model
    question = ChatMessageUser(id=_id(name, "prompt"), content=record["prompt"])
    answer = ChatMessageAssistant(id=_id(name, "answer"), content=record["response"], model=model, source="generate")
    truncated = record.get("truncated", False)
    score = _verdict(parts, record)
    return EvalSample(
        id=record["id"],
        epoch=epoch,
        uuid=_id(name),
        input=record["prompt"],
        target="",
        messages=[question, answer],
        output=ModelOutput.from_message(answer, stop_reason="max_tokens" if truncated else "stop"),
        scores={VERDICT: score, COVERAGE: Score(value=float(isinstance(score.value, dict)))},
        metadata={"seed": seed, **{field: record[field] for field in SHOWN if field in record}},
    )


def _verdict(parts: tuple[str, ...], record: Record) -> Score:
    """The parts of the stored verdict; unscored where none of them is there, with the reason."""
    verdict, reason = record["verdict"] or {}, record["unscored"]
    found = {part: verdict.get(part) for part in parts}
    if all(value is None for value in found.values()):
        why = "grader_failed" if "said" in record else "scoring_failed"
        if not record["response"].strip():
            why = "no_response"
        return Score.unscored(reason=why, answer=record["response"], explanation=reason)
    return Score(
        value={part: math.nan if value is None else float(value) for part, value in found.items()},
        answer=record["response"],
        explanation=reason,
        metadata={"verdict": verdict},
    )


def _score(part: str, figure: Mapping[str, Any], samples: list[EvalSample]) -> EvalScore:
    """The run's own figure for a part of the verdict: its mean over seeds, interval and coverage."""
    low, high = figure["ci95"] or (None, None)
    shown = {
        figure["name"]: figure["mean"],
        "ci95_low": low,
        "ci95_high": high,
        COVERAGE: figure["scored"] / figure["total"] if figure["total"] else None,
    }
    has = [isinstance(s.value, dict) and not math.isnan(s.value[part]) for s in (x.scores[VERDICT] for x in samples)]
    return EvalScore(
        name=part,
        scorer=VERDICT,
        scored_samples=sum(has),
        unscored_samples=len(has) - sum(has),
        metrics={name: EvalMetric(name=name, value=value) for name, value in shown.items() if value is not None},
        metadata={
            name: figure[name] for name in ("ci95_over", "by_family", "per_seed", "worst_case", "scored", "total")
        },
    )
