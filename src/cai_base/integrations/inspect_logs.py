"""Writes a finished run's evaluations as logs for `inspect view`: one log per arm and task, one epoch per seed.

Evaluations of the run's arms on suites are included. The logs are not artifacts of the run: they are made from
`results.json` and the stored answers, and can be deleted and made again.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

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
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.integrations.inspect_tasks import COVERAGE, TASKS, VERDICT, VERSION, Figures
from cai_base.paths import INSPECT, RESULTS, suite_answers
from cai_base.records import Answer, Figure, Results, SuiteResults
from cai_base.report.load import StoredRun, is_suite, load, load_suite, stored_records
from cai_base.run.stored import suite_folders
from cai_base.store import Run, scratch

BESIDE = ("kind", "family", "tokens", "truncated", "logprob", "said", "second")
"""The fields of an answer that are metadata of its sample in a log."""

ABOUT = (
    "model_organism suite judge second_judge votes rubrics protocol seeds controls constitution losses intervals "
    "warnings"
).split()
"""The fields of results that are metadata of a log."""

Answers = Mapping[int, Sequence[Answer]]
"""The answers of one arm, by seed."""


def write(directory: Path) -> list[Path]:
    """Write the logs of a finished run, or of one suite, into its folder `inspect`, replacing old ones. Returns the
    paths.

    Raises:
        UserError: the directory has no results, or results of another version.
    """
    with scratch(directory, "inspect") as folder:
        for evaluation in _evaluations(directory):
            suite = f"{evaluation.file.parent.name}-" if isinstance(evaluation.results, SuiteResults) else ""
            for name, figures in TASKS.items():
                log = _log(evaluation, name, figures)
                if log is not None:
                    file = f"{suite}{evaluation.label}-{name.replace('_', '-')}.eval"
                    write_eval_log(log, folder / file)
        logs = directory / INSPECT
        logs.mkdir(exist_ok=True)
        for old in logs.glob("*.eval"):
            old.unlink()
        return [new.rename(logs / new.name) for new in sorted(folder.iterdir())]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation of one arm.

    Attributes:
        file: the results file that has it.
        results: the content of that file.
        prompts: a description of the prompts.
        label: the arm and, for an evaluation during training, the step.
        figures: the metrics of the arm.
    """

    file: Path
    results: Results | SuiteResults
    prompts: str
    label: str
    answers: Answers
    figures: Mapping[str, Figure]

    @property
    def model(self) -> str:
        """The model's name in the log."""
        return f"{Path(self.results.model).name}/{self.label}"


def _evaluations(directory: Path) -> Iterator[Evaluation]:
    if is_suite(directory):
        yield from _of_suite(directory)
        return
    yield from _of_run(load(directory))
    for folder in suite_folders(directory):
        yield from _of_suite(folder)


def _of_run(stored: StoredRun) -> Iterator[Evaluation]:
    """Each arm's evaluations during training, then its final one."""
    for arm, final in stored.results.arms.items():
        for step in (*stored.evaluated_steps(arm), None):
            answers = {seed: stored.answers(arm, seed, step) for seed in stored.seeds}
            label, figures = arm, final
            if step is not None:
                label = f"{arm}-step-{step}"
                of_step = metrics.figures([of_seed or None for of_seed in answers.values()])
                figures = metrics.without_empty_optional({arm: of_step})[arm]
            prompts = "evaluation prompts of the run"
            yield Evaluation(stored.directory / RESULTS, stored.results, prompts, label, answers, figures)


def _of_suite(directory: Path) -> Iterator[Evaluation]:
    """The evaluations of the arms with answers; comparisons by log-probability have no answers, so no log."""
    results = load_suite(directory)
    if isinstance(results, SuiteResults):
        run = Run.watch(directory)
        for arm, figures in results.arms.items():
            files = {seed: suite_answers(seed, arm) for seed in results.seeds}
            answers = {seed: list(stored_records(run, file, Answer)) for seed, file in files.items()}
            prompts = f"suite {results.suite.name}"
            yield Evaluation(directory / RESULTS, results, prompts, arm, answers, figures)


def _log(evaluation: Evaluation, name: str, figures: Figures) -> EvalLog | None:
    """The log of one task; None if it has no answers."""
    first = METRICS[next(iter(figures.metrics.values()))]
    kinds = (*first.kinds, *first.families)
    parts = {part: metric for part, metric in figures.metrics.items() if metric in evaluation.figures}
    samples = [
        _sample(evaluation, tuple(parts), seed, epoch, answer)
        for epoch, (seed, answers) in enumerate(evaluation.answers.items(), start=1)
        for answer in answers
        if answer.kind in kinds
    ]
    if not samples or not parts:
        return None
    ids = list(dict.fromkeys(str(sample.id) for sample in samples))
    scores = [_score(part, metric, evaluation.figures[metric], samples) for part, metric in parts.items()]
    digest = sha256(evaluation.file.read_bytes()).hexdigest()
    created = datetime.fromtimestamp(evaluation.file.stat().st_mtime, UTC).isoformat()
    about = evaluation.results.dump()
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
            metadata={"epochs": epochs, **{field: about[field] for field in ABOUT if field in about}},
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
    """An id of the length of Inspect's; equal for equal results."""
    return sha256("\n".join(parts).encode()).hexdigest()[:22]


def _headline(score: EvalScore) -> HeadlineMetric | None:
    """The log's headline figure; None if none of its prompts is of the kinds that the figure is over."""
    figure = next(iter(score.metrics), None)
    return HeadlineMetric(scorer=VERDICT, score=score.name, metric=figure) if figure else None


def _sample(evaluation: Evaluation, parts: tuple[str, ...], seed: int, epoch: int, answer: Answer) -> EvalSample:
    name, model = f"{evaluation.prompts}/{evaluation.model}/{seed}/{answer.id}", evaluation.model
    question = ChatMessageUser(id=_id(name, "prompt"), content=answer.prompt)
    reply = ChatMessageAssistant(id=_id(name, "answer"), content=answer.response, model=model, source="generate")
    stored = answer.dump()
    score = _verdict(parts, answer)
    return EvalSample(
        id=answer.id,
        epoch=epoch,
        uuid=_id(name),
        input=answer.prompt,
        target="",
        messages=[question, reply],
        output=ModelOutput.from_message(reply, stop_reason="max_tokens" if answer.truncated else "stop"),
        scores={VERDICT: score, COVERAGE: Score(value=float(isinstance(score.value, dict)))},
        metadata={"seed": seed, **{field: stored[field] for field in BESIDE if field in stored}},
    )


def _verdict(parts: tuple[str, ...], answer: Answer) -> Score:
    """The parts of the stored verdict; unscored, with the reason, if it has none of them."""
    values = {part: getattr(answer.verdict, part, None) for part in parts}
    if answer.verdict is None or all(value is None for value in values.values()):
        why = "grader_failed" if answer.votes else "scoring_failed"
        if not answer.response.strip():
            why = "no_response"
        return Score.unscored(reason=why, answer=answer.response, explanation=answer.unscored)
    return Score(
        value={part: math.nan if value is None else float(value) for part, value in values.items()},
        answer=answer.response,
        explanation=answer.unscored,
        metadata={"verdict": answer.verdict.dump()},
    )


def _score(part: str, metric: str, figure: Figure, samples: list[EvalSample]) -> EvalScore:
    """The run's figure for a part of the verdict: mean over seeds, interval and coverage."""
    low, high = figure.ci95 or (None, None)
    coverage = figure.scored / figure.total if figure.total else None
    metrics = {metric: figure.mean, "ci95_low": low, "ci95_high": high, COVERAGE: coverage}
    values = [sample.scores[VERDICT].value for sample in samples if sample.scores]
    scored = sum(isinstance(value, dict) and not _is_nan(value[part]) for value in values)
    stored = figure.dump()
    return EvalScore(
        name=part,
        scorer=VERDICT,
        scored_samples=scored,
        unscored_samples=len(samples) - scored,
        metrics={name: EvalMetric(name=name, value=value) for name, value in metrics.items() if value is not None},
        metadata={
            name: stored[name] for name in ("ci95_over", "by_family", "per_seed", "worst_case", "scored", "total")
        },
    )


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
