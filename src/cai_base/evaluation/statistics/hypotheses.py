"""Tests beside the intervals: McNemar's for each seed, Holm's correction, non-inferiority."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from cai_base.evaluation.statistics.crossed import Array
from cai_base.evaluation.statistics.intervals import CONFIDENCE, AtConfidence, p_value
from cai_base.records import McNemar, NonInferiority


def mcnemar(first: Array, second: Array) -> McNemar:
    """McNemar's exact two-sided test of one seed's two models on the same prompts (Psychometrika 12, 1947).

    Args:
        first, second: values 0 and 1 [prompts]; a prompt with a NaN is left out.
    """
    differences = (first - second)[~np.isnan(first - second)]
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return McNemar(first_only=gained, second_only=lost, p_value=p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for multiple comparisons (Holm, Scand. J. Stat. 6, 1979); None stays None, uncounted."""
    ordered = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, place) in enumerate(ordered):
        least = max(least, min(1.0, (len(ordered) - rank) * p))
        corrected[place] = least
    return corrected


def non_inferiority(difference: float, interval: AtConfidence, margin: float, alike: AtConfidence) -> NonInferiority:
    """Whether a difference is shown to be no worse than -`margin`, from its interval.

    Args:
        difference, interval: of one table, without leading axes.
        margin: how much less still counts as no worse, in the metric's unit.
        alike: the interval of as many seeds and prompts where all answers of both arms are the same.
    """
    two_sided = p_value(interval, -margin)
    one_sided = two_sided / 2 if difference > -margin else 1 - two_sided / 2
    shown, could_be = (float(one(CONFIDENCE)[0]) > -margin for one in (interval, alike))
    return NonInferiority(margin=margin, p_value=one_sided, shown=shown, could_be=could_be)
