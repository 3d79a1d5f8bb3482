"""Computes `results.json` from the stored answers to a suite. Equal evaluations give equal bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cai_base.arms import comparisons, pair_name
from cai_base.embedded import EMBEDDED
from cai_base.evaluation import metrics
from cai_base.evaluation.failures import find_failures
from cai_base.evaluation.judges import GroundTruth, agreement
from cai_base.evaluation.judges.load import judge_name
from cai_base.evaluation.tasks.comparisons import ComparisonsTask, Tables
from cai_base.evaluation.tasks.prompts import PromptsTask
from cai_base.inputs import Inputs
from cai_base.inputs.prompts import HARMFUL, HARMLESS
from cai_base.records import (
    AskedArm,
    ComparedAnswers,
    ComparisonsAsked,
    ComparisonsResults,
    Figure,
    SuiteAsked,
    SuiteResults,
)
from cai_base.run.result_warnings import uncovered
from cai_base.run.results import INTERVALS, every_answer, rubrics_used, second_judge
from cai_base.settings.judges import NO_JUDGE
from cai_base.settings.schema import RunSettings
from cai_base.store import Record

Item = TypeVar("Item")

NAMED = 5
"""The most prompts that a warning names."""


@dataclass(frozen=True, slots=True)
class EvaluationContext:
    """The configuration of an evaluation, for its results.

    Attributes:
        config: the evaluation's configuration.
        arms: how each arm was asked.
    """

    config: Record
    settings: RunSettings
    inputs: Inputs
    arms: Mapping[str, AskedArm]


def collect(about: EvaluationContext, answers: Mapping[str, metrics.PerSeed], task: PromptsTask) -> SuiteResults:
    """The content of `results.json` for a suite that is answered and judged.

    Args:
        answers: of every finished arm, by seed.
    """
    settings, suite = about.settings, task.suite
    kinds = [str(item.prompt.kind) for item in task.items]
    figures = metrics.without_empty_optional(
        {
            name: metrics.figures(per_seed, kinds, one_model=about.arms[name].one_model)
            for name, per_seed in answers.items()
        }
    )
    names = [name for name in next(iter(figures.values())) if _is_measured(name, figures)]
    arms = {arm: {name: by_metric[name] for name in names} for arm, by_metric in figures.items()}
    margins = {"helpfulness": settings.evaluation.helpfulness_margin}
    return SuiteResults(
        schema=1,
        suite=SuiteAsked(
            name=suite.name,
            files=suite.files,
            sha256=suite.sha256,
            prompts=len(suite.prompts),
            asked=len(task.items),
            attacks=sum(kind in HARMFUL for kind in kinds),
            safe=sum(kind in HARMLESS for kind in kinds),
            left_out=dict(suite.left_out),
        ),
        of=about.config["of"],
        model=about.config["model"],
        base=about.config.get("base"),
        model_organism=settings.model == EMBEDDED,
        engine=settings.engine,
        seeds=tuple(settings.seed_numbers),
        layouts={name: about.arms[name].layout for name in answers},
        judge=judge_name(settings.judge),
        second_judge=None if settings.second_judge is None else second_judge(settings.second_judge, answers, kinds),
        votes=settings.votes,
        vote_agreement=agreement.between_votes(every_answer(answers)),
        rubrics=rubrics_used(about.inputs),
        intervals=INTERVALS,
        arms=arms,
        failures=tuple(find_failures(arms, list(settings.seed_numbers))),
        unscored={name: metrics.unscored_by_reason(per_seed) for name, per_seed in answers.items()},
        comparisons={
            pair_name(a, b): metrics.compare(answers[a], answers[b], names, margins) for a, b in comparisons(arms)
        },
        failed={},
        warnings=(
            *_notes(about.arms),
            *_coverage_warnings(settings, arms, len(list(every_answer(answers)))),
            *_too_long({name: [(a.id, a.tokens is None) for a in _first(of_arm)] for name, of_arm in answers.items()}),
        ),
    )


def collect_comparisons(
    about: EvaluationContext, answers: Mapping[str, Sequence[Sequence[ComparedAnswers] | None]], task: ComparisonsTask
) -> ComparisonsResults:
    """The content of `results.json` for comparisons by log-probability.

    Args:
        answers: of every finished arm, by seed.
    """
    settings, file = about.settings, task.comparisons
    tables = {name: Tables(per_seed, one_model=about.arms[name].one_model) for name, per_seed in answers.items()}
    return ComparisonsResults(
        schema=1,
        suite=ComparisonsAsked(
            name=file.name, files=file.files, sha256=file.sha256, comparisons=len(file.items), asked=len(task.items)
        ),
        of=about.config["of"],
        model=about.config["model"],
        base=about.config.get("base"),
        model_organism=settings.model == EMBEDDED,
        engine=settings.engine,
        seeds=tuple(settings.seed_numbers),
        layouts={name: about.arms[name].layout for name in answers},
        intervals=INTERVALS,
        arms={name: table.figures() for name, table in tables.items()},
        comparisons={pair_name(a, b): tables[a].less(tables[b]) for a, b in comparisons(tables)},
        warnings=(
            *_notes(about.arms),
            *_too_long({name: [(a.id, a.tokens is None) for a in _first(of_arm)] for name, of_arm in answers.items()}),
        ),
    )


def _notes(arms: Mapping[str, AskedArm]) -> list[str]:
    """What a reader should know about how each arm was asked."""
    return [f"{name}: {note}" for name, arm in arms.items() for note in arm.notes]


def _first(per_seed: Sequence[Sequence[Item] | None]) -> Sequence[Item]:
    """The first seed's answers; all seeds are asked the same."""
    return next((of_seed for of_seed in per_seed if of_seed is not None), ())


def _is_measured(name: str, arms: Mapping[str, Mapping[str, Figure]]) -> bool:
    """Whether the suite has prompts of the metric's kinds, and the metric is judged or has a measured value."""
    has_prompts = any(arm[name].total for arm in arms.values())
    has_values = any(arm[name].scored for arm in arms.values())
    return has_prompts and (has_values or metrics.METRICS[name].judged)


def _coverage_warnings(settings: RunSettings, arms: Mapping[str, Mapping[str, Figure]], answers: int) -> list[str]:
    if settings.judge == NO_JUDGE:
        return [f"no judge was asked: all of {answers} answers are unscored; unscored is not safe"]
    warnings = uncovered(arms, judged=True)
    if settings.judge == GroundTruth.name and warnings:
        warnings.append(
            "the ground-truth judge scores only what asks for something that the embedded model's village knows (each "
            "answer's reason is in its file); for a suite in English give a judge, "
            "such as --judge openai:MODEL --judge-url URL or --judge hf:PATH"
        )
    return warnings


def _too_long(arms: Mapping[str, Sequence[tuple[str, bool]]]) -> list[str]:
    """A warning for every arm that was not asked some prompts because they do not fit its model's context.

    Args:
        arms: for each arm, the ids of its prompts, each with whether it is too long.
    """
    warnings = []
    for name, ids in arms.items():
        long = [one for one, is_too_long in ids if is_too_long]
        if long:
            more = f" and {len(long) - NAMED} more" if len(long) > NAMED else ""
            warnings.append(
                f"{name}: {len(long)} of {len(ids)} do not fit the model's context and are unscored: "
                f"{', '.join(long[:NAMED])}{more}"
            )
    return warnings
