"""Sums over seeds. Every interval here is a t interval over seeds, and is labelled so where it is shown."""

import math
from collections.abc import Sequence as Seq
from typing import Any

from scipy import optimize, stats

CONFIDENCE = 0.95
POWER = 0.8
EQUAL = 1e-9
"""Figures that differ by less are equal: they are shares of at most some thousand answers."""


def mean(values: Seq[float]) -> float | None:
    """The mean; None of nothing."""
    return math.fsum(values) / len(values) if values else None


def _spread(values: Seq[float]) -> float:
    """The sample standard deviation; exactly 0 for values that are equal but for rounding."""
    if max(values) - min(values) < EQUAL:
        return 0.0
    centre = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def summary(per_seed: Seq[float | None]) -> dict[str, Any]:
    """Mean, sample standard deviation and 95 % t interval over the seeds that have a value (None without two)."""
    values = [value for value in per_seed if value is not None]
    centre = mean(values)
    if centre is None or len(values) < 2:
        return {"mean": centre, "std": None, "ci95": None}
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * _spread(values) / math.sqrt(len(values))
    return {"mean": centre, "std": _spread(values), "ci95": [centre - half, centre + half]}


def paired(first: Seq[float | None], second: Seq[float | None]) -> dict[str, Any]:
    """First minus second over the seeds that have both.

    Returns:
        Mean difference, 95 % t interval, p of the paired t test, the least difference that a test at 5 % would find
        with 80 % power given this spread, and the number of seeds. Without two seeds there is only the difference;
        where every seed differs by the same amount there is no p value.
    """
    differences = [a - b for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    about = summary(differences)
    count = len(differences)
    if about["std"] is None:
        nothing = {"ci95": None, "p_value": None, "minimum_detectable": None}
        return {"difference": about["mean"], **nothing, "seeds": count}
    if about["std"] == 0:
        nothing = {"p_value": None, "minimum_detectable": None}
        return {"difference": about["mean"], "ci95": about["ci95"], **nothing, "seeds": count}
    freedom = count - 1
    error = about["std"] / math.sqrt(count)
    return {
        "difference": about["mean"],
        "ci95": about["ci95"],
        "p_value": 2 * float(stats.t.sf(abs(about["mean"]) / error, freedom)),
        "minimum_detectable": _detectable(freedom) * error,
        "seeds": count,
    }


def _detectable(freedom: int) -> float:
    """The true difference, in standard errors, that a two-sided t test finds with `POWER` (noncentral t)."""
    critical = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)
    return float(optimize.brentq(lambda shift: stats.nct.sf(critical, freedom, shift) - POWER, 0.0, 100.0))
