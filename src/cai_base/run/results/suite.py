"""Computes `results.json` from the stored answers to a suite. Equal evaluations give equal bytes."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from cai_base.arms import BASE, comparisons, pair_name
from cai_base.evaluation import fluency, metrics
from cai_base.evaluation.tasks.comparisons import Comparison, Comparisons, Tables
from cai_base.evaluation.tasks.prompts import METRICS, SEPARATE
from cai_base.evaluation.tasks.suite_forms import SuitePrompt
from cai_base.evaluation.tasks.suites import Suite
from cai_base.inputs.kinds import HARMLESS
from cai_base.records import (
    ATTACK,
    Answer,
    AskedArm,
    ComparedAnswers,
    ComparisonsAsked,
    ComparisonsResults,
    Figure,
    SuiteAsked,
    SuiteResults,
)
from cai_base.run.results import shared as shared_results
from cai_base.run.results.shared import EvaluationContext
from cai_base.run.results.warnings import uncovered
from cai_base.settings.judges import GROUND_TRUTH, NO_JUDGE, JudgeName
from cai_base.text import repeats_itself

Answers = Sequence[Sequence[Answer] | None]
"""Every seed's answers of one arm; None in place of a seed that failed."""
NAMED = 5
"""The most prompts that a warning names."""


class SuiteHead(TypedDict):
    """The fields that the results of every suite have."""

    of: Literal["run", "model"]
    base: str | None
    engine: str
    layouts: dict[str, str]


def collect(
    about: EvaluationContext, answers: Mapping[str, Answers], suite: Suite, items: Sequence[SuitePrompt]
) -> SuiteResults:
    """The content of `results.json` for a suite of prompts, whose answers are judged.

    Args:
        answers: of every finished arm, by seed.
        items: the prompts that were used.
    """
    kinds = [str(item.prompt.kind) for item in items]
    sizes = SuiteAsked(
        name=suite.name,
        files=suite.files,
        sha256=suite.sha256,
        prompts=len(suite.prompts),
        asked=len(items),
        attacks=sum(kind in METRICS[ATTACK].kinds for kind in kinds),
        apart=sum(kind in SEPARATE for kind in kinds),
        safe=sum(kind in HARMLESS for kind in kinds),
        left_out=dict(suite.left_out),
    )
    return judged_suite(about, answers, sizes, kinds)


def judged_suite(
    about: EvaluationContext, answers: Mapping[str, Answers], sizes: SuiteAsked, kinds: Sequence[str]
) -> SuiteResults:
    """As `collect`, where the suite's own figures are known.

    Args:
        kinds: the kind of every prompt that was used.
    """
    if not about.judges["judge"].judge.kind.reads_language:
        answers = _with_broken(answers)
    judged = shared_results.judged(
        about.judges,
        about.evaluation,
        about.inputs.rubrics,
        about.seeds,
        answers,
        kinds,
        lambda name: about.arms[name].one_model,
        unanswerable=False,
    )
    return SuiteResults(
        **shared_results.head(about.model, about.seeds, about.target.model),
        **_head(about),
        **judged,
        suite=sizes,
        failed={},
        warnings=(
            *about.accepted,
            *_notes(about.arms),
            *_coverage_warnings(about.judges["judge"].judge, judged["arms"], answers),
            *_too_long(answers),
        ),
    )


def _with_broken(answers: Mapping[str, Answers]) -> dict[str, Answers]:
    """The answers with their field `broken`: as in a run for an arm whose answers the base model measured, if its own
    answers are among them, else whether they repeat themselves without end."""
    floor = fluency.floor(map(fluency.likelihood, shared_results.every_answer({BASE: answers.get(BASE, ())})))
    measured = {
        name: floor is not None
        and any(one.logprob is not None for one in shared_results.every_answer({name: per_seed}))
        for name, per_seed in answers.items()
    }

    def marked(name: str, answer: Answer) -> Answer:
        if measured[name]:
            broken = fluency.is_broken(answer.response, fluency.likelihood(answer), floor)
        else:
            broken = None if answer.tokens is None else repeats_itself(answer.response)
        return answer.model_copy(update={"broken": broken})

    return {
        name: [None if of_seed is None else [marked(name, answer) for answer in of_seed] for of_seed in per_seed]
        for name, per_seed in answers.items()
    }


def collect_comparisons(
    about: EvaluationContext,
    answers: Mapping[str, Sequence[Sequence[ComparedAnswers] | None]],
    suite: Comparisons,
    items: Sequence[Comparison],
) -> ComparisonsResults:
    """The content of `results.json` for comparisons by log-probability.

    Args:
        answers: of every finished arm, by seed.
        items: the comparisons that were used.
    """
    sizes = ComparisonsAsked(
        name=suite.name, files=suite.files, sha256=suite.sha256, comparisons=len(suite.items), asked=len(items)
    )
    return compared_suite(about, answers, sizes)


def compared_suite(
    about: EvaluationContext,
    answers: Mapping[str, Sequence[Sequence[ComparedAnswers] | None]],
    sizes: ComparisonsAsked,
) -> ComparisonsResults:
    """As `collect_comparisons`, where the suite's own figures are known."""
    tables = {name: Tables(per_seed, one_model=about.arms[name].one_model) for name, per_seed in answers.items()}
    return ComparisonsResults(
        **shared_results.head(about.model, about.seeds, about.target.model),
        **_head(about),
        suite=sizes,
        intervals=shared_results.INTERVALS,
        arms={name: table.figures() for name, table in tables.items()},
        comparisons={pair_name(a, b): tables[a].less(tables[b]) for a, b in comparisons(tables)},
        warnings=(*about.accepted, *_notes(about.arms), *_too_long(answers)),
    )


def _head(about: EvaluationContext) -> SuiteHead:
    return SuiteHead(
        of=about.target.of,
        base=about.target.base,
        engine=about.engine,
        layouts={name: arm.layout for name, arm in about.arms.items()},
    )


def _notes(arms: Mapping[str, AskedArm]) -> list[str]:
    """Notes about the layout of each arm."""
    return [f"{name}: {note}" for name, arm in arms.items() for note in arm.notes]


def _coverage_warnings(
    judge: JudgeName, arms: Mapping[str, Mapping[str, Figure]], answers: Mapping[str, metrics.PerSeed]
) -> list[str]:
    if judge == NO_JUDGE:
        count = len(list(shared_results.every_answer(answers)))
        return [f"no judge was asked: all of {count} answers are unscored; unscored is not safe"]
    warnings = uncovered(arms, judged=True)
    if judge == GROUND_TRUTH and warnings:
        warnings.append(
            "the ground-truth judge scores only requests from the embedded model's world; "
            "for a suite in English give a judge, "
            "such as --judge openai:MODEL --judge-url URL or --judge hf:PATH"
        )
    return warnings


def _too_long(answers: Mapping[str, Sequence[Sequence[Answer] | Sequence[ComparedAnswers] | None]]) -> list[str]:
    """A warning for every arm with prompts that did not fit its model's context and were skipped."""
    warnings = []
    for name, per_seed in answers.items():
        of_seed = next((one for one in per_seed if one is not None), ())  # all seeds have the same prompts
        long = [answer.id for answer in of_seed if answer.tokens is None]
        if long:
            more = f" and {len(long) - NAMED} more" if len(long) > NAMED else ""
            warnings.append(
                f"{name}: {len(long)} of {len(of_seed)} do not fit the model's context and are unscored: "
                f"{', '.join(long[:NAMED])}{more}"
            )
    return warnings
