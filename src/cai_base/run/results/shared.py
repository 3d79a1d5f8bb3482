"""Parts common to the results of a run, a suite and the styles: the head, and the figures of judged answers.

`run`, `suite` and `style` add the rest.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, TypeVar

from cai_base import arms
from cai_base.embedded import is_embedded
from cai_base.evaluation import metrics
from cai_base.evaluation.failures import find_failures
from cai_base.evaluation.judges import agreement
from cai_base.evaluation.judges.load import judge_name
from cai_base.evaluation.scoring import Scorable, ScoredAnswer
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.inputs import Inputs
from cai_base.inputs.rubrics import Rubric
from cai_base.records import (
    ATTACK,
    AskedArm,
    AskedTarget,
    Difference,
    Figure,
    NamedFailure,
    RubricUsed,
    SecondFigure,
    SecondJudge,
    Unseen,
)
from cai_base.settings.choices import JudgeChoice
from cai_base.settings.judges import JudgeName
from cai_base.settings.schema import Evaluation

Of = TypeVar("Of")
"""An answer, with or without its texts."""
INTERVALS = (
    "ci95: 95 % interval over what ci95_over says; ci95_seeds: 95 % t interval over seeds, with the prompts held fixed"
)
"""Explains the intervals in the results file itself."""


@dataclass(frozen=True, slots=True)
class EvaluationContext:
    """The configuration of an evaluation, for its results.

    Attributes:
        target: the run or model that was evaluated.
        model: as the settings have it; of a run, its base model.
        data: the packaged inputs in use.
        judges: by the flag that names each.
        arms: the layout and weights of each arm.
        accepted: warnings about changed files that are used anyway.
    """

    target: AskedTarget
    model: str
    engine: str
    data: str
    seeds: Sequence[int]
    judges: Mapping[str, JudgeChoice]
    evaluation: Evaluation
    inputs: Inputs
    arms: Mapping[str, AskedArm]
    accepted: Sequence[str] = ()


class Head(TypedDict):
    """The fields that the results of every evaluation have."""

    schema: Literal[1]
    model: str
    model_organism: bool
    seeds: tuple[int, ...]


def model_name(model: str) -> str:
    """A model's name in results: of a path, only the last folder."""
    return model if is_embedded(model) else Path(model).name


def head(model: str, seeds: Sequence[int], name: str | None = None) -> Head:
    """The head of results.

    Args:
        model: as in the settings.
        name: its name, if not derived from `model`.
    """
    return Head(schema=1, model=name or model_name(model), model_organism=is_embedded(model), seeds=tuple(seeds))


class Judged(TypedDict):
    """The fields that results have about judged answers to prompts."""

    judge: str | None
    second_judge: SecondJudge | None
    votes: int
    vote_agreement: dict[str, float | None]
    rubrics: dict[str, RubricUsed]
    intervals: str
    arms: dict[str, dict[str, Figure]]
    failures: tuple[NamedFailure, ...]
    unscored: dict[str, dict[str, int]]
    comparisons: dict[str, dict[str, Difference]]


def judged(
    judges: Mapping[str, JudgeChoice],
    evaluation: Evaluation,
    rubrics: Sequence[Rubric],
    seeds: Sequence[int],
    answers: Mapping[str, metrics.PerSeed],
    kinds: Sequence[str],
    is_one_model: Callable[[str], bool],
    *,
    unanswerable: bool = True,
) -> Judged:
    """The figures of judged answers, with the judges and rubrics.

    Args:
        judges: by the flag that names each.
        rubrics: that they were asked.
        answers: of every arm, by seed.
        kinds: the kind of every prompt.
        is_one_model: whether all seeds of an arm sample from the same weights.
        unanswerable: include metrics that have no prompts or were not measured.
    """
    figures = metrics.without_empty_optional(
        {name: metrics.figures(per_seed, kinds, one_model=is_one_model(name)) for name, per_seed in answers.items()}
    )
    names = [name for name in next(iter(figures.values())) if unanswerable or _is_answered(name, figures)]
    by_arm = {arm: {name: by_metric[name] for name in names} for arm, by_metric in figures.items()}
    margins = metrics.margins(evaluation)
    pairs = arms.comparisons(answers)
    comparisons = [
        metrics.compare(answers[a], answers[b], names, margins, one_model=(is_one_model(a), is_one_model(b)))
        for a, b in pairs
    ]
    corrected = metrics.correct_primary(comparisons, evaluation.primary)
    return Judged(
        judge=judge_name(judges["judge"].judge),
        second_judge=_second_judge(judges["second-judge"].judge, answers, kinds) if "second-judge" in judges else None,
        votes=judges["judge"].votes,
        vote_agreement=agreement.between_votes(every_answer(answers)),
        rubrics={rubric.task: RubricUsed(name=rubric.name, sha256=rubric.digest) for rubric in rubrics},
        intervals=INTERVALS,
        arms=by_arm,
        failures=tuple(find_failures(by_arm, seeds)),
        unscored={name: metrics.unscored_by_reason(per_seed) for name, per_seed in answers.items()},
        comparisons={arms.pair_name(*pair): one for pair, one in zip(pairs, corrected, strict=True)},
    )


def unseen(by_arm: Mapping[str, metrics.PerSeed], families: Sequence[str]) -> Unseen:
    """Attack success on the families that were held out of the method's prompts, and on the others."""
    parts = {
        part: {
            name: metrics.of_families(per_seed, families, among=part == "unseen") for name, per_seed in by_arm.items()
        }
        for part in ("unseen", "seen")
    }
    return Unseen(
        families=tuple(families),
        arms={
            name: {
                part: metrics.figures(answers[name], one_model=arms.arm(name).one_model)[ATTACK]
                for part, answers in parts.items()
            }
            for name in by_arm
        },
        comparisons={
            arms.pair_name(a, b): {
                part: metrics.compare(
                    answers[a],
                    answers[b],
                    (ATTACK,),
                    {},
                    one_model=(arms.arm(a).one_model, arms.arm(b).one_model),
                )[ATTACK]
                for part, answers in parts.items()
            }
            for a, b in arms.comparisons(by_arm)
        },
    )


def every_answer(by_arm: Mapping[str, Sequence[Sequence[Of] | None]]) -> Iterable[Of]:
    """All answers of all arms and seeds."""
    return (answer for per_seed in by_arm.values() for of_seed in per_seed for answer in of_seed or ())


def _is_answered(name: str, by_arm: Mapping[str, Mapping[str, Figure]]) -> bool:
    """Whether there are prompts of the metric's kinds, and the metric is a judge's or was measured."""
    has_prompts = any(arm[name].total for arm in by_arm.values())
    has_values = any(arm[name].scored for arm in by_arm.values())
    return has_prompts and (has_values or METRICS[name].judged)


def _second_judge(judge: JudgeName, by_arm: Mapping[str, metrics.PerSeed], kinds: Sequence[str]) -> SecondJudge:
    """The figures of every arm from the second judge's verdicts, and the agreement of the two judges on the same
    answers.

    No other figure uses the second judge's verdicts.
    """
    judged_again = {
        name: [None if of_seed is None else [_by_second_judge(answer) for answer in of_seed] for of_seed in per_seed]
        for name, per_seed in by_arm.items()
    }
    figures = metrics.without_empty_optional(
        {name: metrics.figures(per_seed, kinds) for name, per_seed in judged_again.items()}
    )
    return SecondJudge(
        name=judge_name(judge),
        agreement=agreement.between_judges(every_answer(by_arm)),
        arms={
            name: {
                metric: SecondFigure(mean=figure.mean, scored=figure.scored, total=figure.total)
                for metric, figure in of_arm.items()
                if METRICS[metric].judged
            }
            for name, of_arm in figures.items()
        },
    )


def _by_second_judge(answer: Scorable) -> ScoredAnswer:
    """The answer with the second judge's verdict instead of the first judge's."""
    second = answer.second
    return ScoredAnswer(
        id=answer.id,
        kind=answer.kind,
        family=answer.family,
        tokens=answer.tokens,
        verdict=None if second is None else second.verdict,
        unscored=None if second is None else second.unscored,
        votes=(),
        logprob=answer.logprob,
        elsewhere_logprob=answer.elsewhere_logprob,
        second=None,
        broken=answer.broken,
    )
