"""A finished run's evaluations as logs that `inspect view` opens: one for each arm and task, an epoch for each seed.

They stand beside the run's artifacts and are none of them: they are written from `results.json` and the stored answers,
and can be deleted and written again.
"""

import math
from collections.abc import Iterator, Mapping
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
from cai_base.evaluation.answers import TASKS as FILES
from cai_base.inspect_tasks import COVERED, TASKS, VERDICT, VERSION, Asked
from cai_base.report.stored import Stored, load
from cai_base.results import evaluation_folder
from cai_base.store import Record, read_lines

FOLDER = "inspect"
"""Where a run's logs lie."""

SHOWN = ("kind", "family", "tokens", "truncated", "logprob", "said", "second")
"""What of an answer's record stands beside it in a log."""

Answers = Mapping[int, list[Record]]
"""The answers of one arm, by seed."""


def write(directory: Path) -> list[Path]:
    """Write the logs of a finished run into its folder `inspect`, in place of those that are there; their paths.

    Raises:
        UserError: the directory holds no results, or not those of this version.
    """
    stored = load(directory)
    with TemporaryDirectory(prefix=".inspect-", dir=directory) as folder:
        for log in _logs(stored):
            write_eval_log(log, Path(folder) / _file(log))
        there = directory / FOLDER
        there.mkdir(exist_ok=True)
        for old in there.glob("*.eval"):
            old.unlink()
        return [new.rename(there / new.name) for new in sorted(Path(folder).iterdir())]


def _file(log: EvalLog) -> str:
    return f"{log.eval.model.rpartition('/')[2]}-{log.eval.task.rpartition('/')[2]}.eval".replace("_", "-")


def _logs(stored: Stored) -> Iterator[EvalLog]:
    created = datetime.fromtimestamp((stored.directory / "results.json").stat().st_mtime, UTC).isoformat()
    for arm, step in _evaluations(stored):
        answers = {seed: _answers(stored, arm, step, seed) for seed in stored.seeds}
        if not any(answers.values()):
            continue  # every seed of the arm was lost
        if step is None:
            figures = stored.results["arms"][arm]
        else:
            figures = metrics.asked({arm: metrics.arm([found or None for found in answers.values()])})[arm]
        for name, asked in TASKS.items():
            yield _log(stored, arm if step is None else f"{arm}-step-{step}", name, asked, answers, figures, created)


def _evaluations(stored: Stored) -> Iterator[tuple[str, int | None]]:
    """Each arm, with None for its final evaluation, and before that with the steps of those during training."""
    for arm in stored.results["arms"]:
        found = {int(p.name.removeprefix("step-")) for p in stored.directory.glob(f"seed-*/evaluation/{arm}/step-*")}
        for step in sorted(found):
            yield arm, step
        yield arm, None


def _answers(stored: Stored, arm: str, step: int | None, seed: int) -> list[Record]:
    """All answers of an arm and seed; none if the seed failed before."""
    folder = stored.directory / evaluation_folder(seed, arm, step)
    return [record for task in FILES if (file := folder / f"{task}.jsonl").exists() for record in read_lines(file)]


def _log(
    stored: Stored, arm: str, name: str, asked: Asked, answers: Answers, figures: Mapping[str, Any], created: str
) -> EvalLog:
    first = metrics.METRICS[next(iter(asked.metrics.values()))]
    kinds = (*first.kinds, *first.families)
    wanted = {seed: [record for record in records if record["kind"] in kinds] for seed, records in answers.items()}
    metrics_by_part = {part: metric for part, metric in asked.metrics.items() if metric in figures}
    model = f"{stored.results['model']}/{arm}"
    samples = [
        _sample(model, tuple(metrics_by_part), seed, epoch, record)
        for epoch, (seed, records) in enumerate(wanted.items(), start=1)
        for record in records
    ]
    ids = list(dict.fromkeys(str(sample.id) for sample in samples))
    scores = [_score(part, metric, figures[metric], samples) for part, metric in metrics_by_part.items()]
    digest = sha256((stored.directory / "results.json").read_bytes()).hexdigest()
    return EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=_id(digest, arm, name),
            run_id=_id(digest),
            task_id=_id(digest, arm, name, "task"),
            created=created,
            task=f"cai_base/{name}",
            task_version=VERSION,
            model=model,
            dataset=EvalDataset(name="evaluation prompts of the run", samples=len(ids), sample_ids=ids, shuffled=False),
            config=EvalConfig(epochs=len(stored.seeds), epochs_reducer=["mean"]),
            packages={"inspect_ai": inspect_ai.__version__, "cai_base": __version__},
            headline_metric=_headline(scores[0]),
            metadata={"epochs": {str(n): f"seed {seed}" for n, seed in enumerate(wanted, start=1)}, **_about(stored)},
        ),
        plan=EvalPlan(steps=[EvalPlanStep(solver="generate", params=stored.config["evaluation"])]),
        results=EvalResults(
            total_samples=len(ids) * len(stored.seeds),
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


def _about(stored: Stored) -> Record:
    """What a reader of the log must know of the run."""
    kept = (
        "model_organism judge second_judge votes rubrics protocol seeds controls constitution intervals warnings"
    ).split()
    return {name: stored.results[name] for name in kept}


def _sample(model: str, parts: tuple[str, ...], seed: int, epoch: int, record: Record) -> EvalSample:
    name = f"{model}/{seed}/{record['id']}"
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
        scores={VERDICT: score, COVERED: Score(value=float(isinstance(score.value, dict)))},
        metadata={"seed": seed, **{field: record[field] for field in SHOWN if field in record}},
    )


def _verdict(parts: tuple[str, ...], record: Record) -> Score:
    """The parts of the stored verdict; unscored where none of them is there, with the reason."""
    verdict, reason = record["verdict"] or {}, record["unscored"]
    found = {part: verdict.get(part) for part in parts}
    if all(value is None for value in found.values()):
        why = "no_response" if not record["response"].strip() else "grader_failed"
        return Score.unscored(reason=why, answer=record["response"], explanation=reason)
    return Score(
        value={part: math.nan if value is None else float(value) for part, value in found.items()},
        answer=record["response"],
        explanation=reason,
        metadata={"verdict": verdict},
    )


def _score(part: str, metric: str, figure: Mapping[str, Any], samples: list[EvalSample]) -> EvalScore:
    """The run's own figure for a part of the verdict: its mean over seeds, interval and coverage."""
    low, high = figure["ci95"] or (None, None)
    shown = {
        metric: figure["mean"],
        "ci95_low": low,
        "ci95_high": high,
        COVERED: figure["scored"] / figure["total"] if figure["total"] else None,
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
