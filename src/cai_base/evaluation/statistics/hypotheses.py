"""Tests beside the intervals: McNemar's a seed, Holm's correction, non-inferiority."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cai_base.evaluation.statistics.crossed import Array
from cai_base.evaluation.statistics.intervals import CONFIDENCE, AtConfidence, p_value


@dataclass(frozen=True, slots=True)
class McNemar:
    """How one seed's yes-or-no answers to the same prompts differ between two arms.

    Attributes:
        first_only: prompts with a yes of the first arm alone.
        second_only: prompts with a yes of the second arm alone.
        p_value: exact and two-sided, over prompts: this seed's model is the question, no other seed's.
    """

    first_only: int
    second_only: int
    p_value: float


def mcnemar(first: Array, second: Array) -> McNemar:
    """McNemar's exact test (Psychometrika 12, 1947) of values 0 and 1, paired by prompt; a NaN leaves its pair out."""
    differences = (first - second)[~np.isnan(first - second)]
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return McNemar(gained, lost, p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for there being several (Holm, Scand. J. Stat. 6, 1979); None stays, and does not count."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        corrected[place] = least
    return corrected


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """Whether a difference is shown to be no worse than a margin.

    Attributes:
        margin: how much less still counts as no worse, in the metric's unit.
        p_value: one-sided, of the difference being -`margin` or less.
        shown: the whole interval lies above -`margin`; so the error is 2.5 % at most.
        could_be: it would be shown if both arms' answers were all alike. If not, there are too few prompts.
    """

    margin: float
    p_value: float
    shown: bool
    could_be: bool


def non_inferiority(difference: float, interval: AtConfidence, margin: float, alike: AtConfidence) -> NonInferiority:
    """The test of a difference with its interval; of one table, without leading axes.

    Args:
        alike: the interval of as many seeds and prompts where all answers of both arms are the same.
    """
    two_sided = p_value(interval, -margin)
    one_sided = two_sided / 2 if difference > -margin else 1 - two_sided / 2
    shown, could_be = (float(one(CONFIDENCE)[0]) > -margin for one in (interval, alike))
    return NonInferiority(margin, one_sided, shown, could_be)
