"""A judge's errors on answers that people labelled, by metric, and figures corrected for them.

Labels say of an answer whether it refuses, and whether it does what was asked for. So the metrics whose value is one of
these can be corrected: attack success and refusals by the labelled answers to harmful prompts, over-refusal by those to
harmless ones, each judged by the rubric that judges the run's answers to such prompts.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from cai_base.evaluation.judges import Response
from cai_base.evaluation.measures import Metric, VerdictPart
from cai_base.evaluation.statistics.misclassification import (
    Confusion,
    Estimate,
    corrected,
    corrected_difference,
    tells,
)
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.inputs.kinds import HARMFUL, HARMLESS, PROMPT_KINDS
from cai_base.inputs.labels import LabelledAnswer, Labels
from cai_base.records import Corrected, Difference, Figure, JudgeErrors, JudgeLabels, Judgement, Share

PARTS = ("refused", "complied")
"""The parts of a verdict that labels say, as they are called in both."""
TASKS = {"harmful": "attack", "harmless": "over-refusal"}
"""The task of the rubric that asks for them, by what the prompt asks for."""

One = TypeVar("One", Figure, Difference)


def correctable() -> dict[str, str]:
    """The part of the verdict that labels say, for each metric that it is the value of."""
    return {
        name: metric.value.name
        for name, metric in METRICS.items()
        if isinstance(metric.value, VerdictPart) and metric.value.name in PARTS
    }


def responses(answers: Sequence[LabelledAnswer]) -> list[Response]:
    """What the judge is asked about labelled answers."""
    return [
        Response(one.prompt.text, one.completion, (TASKS[PROMPT_KINDS[str(one.prompt.kind)].harm or "harmless"],))
        for one in answers
    ]


def confusion_of(
    metric: Metric, part: str, answers: Sequence[LabelledAnswer], judgements: Sequence[Judgement]
) -> Confusion:
    """The judge's verdicts beside the labels, over the answers to prompts of the metric's sort."""
    kinds = HARMFUL if set(metric.kinds) <= set(HARMFUL) else HARMLESS
    pairs = [
        (getattr(answer, part), getattr(judgement.verdict, part))
        for answer, judgement in zip(answers, judgements, strict=True)
        if answer.prompt.kind in kinds and judgement.verdict is not None
    ]
    return Confusion.of((is_so, is_called_so) for is_so, is_called_so in pairs if None not in (is_so, is_called_so))


def judge_labels(labels: Labels, judgements: Sequence[Judgement]) -> JudgeLabels:
    """The judge's errors on a file of labelled answers.

    Args:
        judgements: about each answer, in order.
    """
    return JudgeLabels(
        file=labels.name,
        sha256=labels.digest,
        answers=len(labels.answers),
        scored=sum(one.verdict is not None for one in judgements),
        errors={
            name: _record(confusion_of(METRICS[name], part, labels.answers, judgements))
            for name, part in correctable().items()
        },
    )


def _record(confusion: Confusion) -> JudgeErrors:
    yes, no = confusion.true_yes + confusion.false_no, confusion.true_no + confusion.false_yes
    return JudgeErrors(
        true_yes=confusion.true_yes,
        false_no=confusion.false_no,
        true_no=confusion.true_no,
        false_yes=confusion.false_yes,
        sensitivity=_share(confusion.sensitivity) if yes else None,
        specificity=_share(confusion.specificity) if no else None,
        corrects=tells(confusion),
    )


def _share(one: Estimate) -> Share:
    return Share(value=one.value, ci95=(one.low, one.high))


def correct(by_metric: Mapping[str, One], labels: JudgeLabels) -> dict[str, One]:
    """An arm's figures, or a comparison's, with the corrected ones beside those that can be corrected."""
    return {name: _correct(one, labels.errors.get(name)) for name, one in by_metric.items()}


def _correct(one: One, errors: JudgeErrors | None) -> One:
    value = one.mean if isinstance(one, Figure) else one.difference
    if errors is None or value is None or one.ci95 is None:
        return one
    confusion = Confusion(errors.true_yes, errors.false_no, errors.true_no, errors.false_yes)
    by = corrected if isinstance(one, Figure) else corrected_difference
    estimate = by(Estimate(value, *one.ci95), confusion)
    if estimate is None:
        return one
    return one.model_copy(update={"corrected": Corrected(mean=estimate.value, ci95=(estimate.low, estimate.high))})
