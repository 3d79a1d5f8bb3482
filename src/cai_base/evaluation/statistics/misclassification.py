"""A judge's errors on labelled answers, and a rate corrected for them.

The estimate is that of Rogan and Gladen (Am. J. Epidemiol. 107, 1978): a judge with sensitivity `a` and specificity `b`
sees a rate `p` where the true one is (p + b - 1) / (a + b - 1). Its interval has the uncertainty of all three: draws of
the rate from the interval that it has over seeds and prompts, and of `a` and `b` from their posterior under Jeffreys'
prior. Its coverage is held to a simulation with errors planted at known rates (tests/evaluation/test_calibration.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cai_base import randomness
from cai_base.evaluation.statistics.intervals import CONFIDENCE, exact

Floats = npt.NDArray[np.float64]
DRAWS = 4000
NORMAL = 1.959963984540054
"""The two-sided 95 % quantile of the normal distribution."""
LEAST = 0.1
"""A judge whose sensitivity and specificity exceed 1 together by less than this says too little to correct by."""


class Estimate(NamedTuple):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of labelled answers: what is so, and what the judge says."""

    true_yes: int
    false_no: int
    true_no: int
    false_yes: int

    @classmethod
    def of(cls, pairs: Iterable[tuple[bool, bool]]) -> "Confusion":
        """From pairs of what is so and what the judge says."""
        rows = list(pairs)
        return cls(*(rows.count(pair) for pair in ((True, True), (True, False), (False, False), (False, True))))

    @property
    def sensitivity(self) -> Estimate:
        """The share of yes that the judge calls yes."""
        return share(self.true_yes, self.true_yes + self.false_no)

    @property
    def specificity(self) -> Estimate:
        """The share of no that the judge calls no."""
        return share(self.true_no, self.true_no + self.false_yes)

    @property
    def agreement(self) -> Estimate:
        """The share of all that the judge gets right."""
        right = self.true_yes + self.true_no
        return share(right, right + self.false_no + self.false_yes)


def share(count: int, total: int) -> Estimate:
    """A share of independent answers, with Clopper and Pearson's exact interval; `total` is at least 1."""
    low, high = exact(np.array(float(count)), total, CONFIDENCE)
    return Estimate(count / total, float(low), float(high))


def corrected(rate: Estimate, confusion: Confusion) -> Estimate | None:
    """A judged rate, corrected for the judge's errors; None if the judge hardly tells yes from no.

    Args:
        rate: as judged, with its interval over seeds and prompts.
        confusion: the judge on labelled answers, of both kinds.
    """
    if not tells(confusion):
        return None
    rates, _, rejections, power = _draws(rate, confusion)
    b = confusion.specificity.value
    value = (rate.value + b - 1) / (confusion.sensitivity.value + b - 1)
    return _estimate(value, (np.clip(rates, 0.0, 1.0) + rejections - 1) / power, 0.0)


def corrected_difference(difference: Estimate, confusion: Confusion) -> Estimate | None:
    """A difference of two judged rates, corrected for errors that the judge makes alike on both arms: over a + b - 1.

    Arguments and result are those of `corrected`, for a difference from -1 to 1.
    """
    if not tells(confusion):
        return None
    differences, _, _, power = _draws(difference, confusion)
    value = difference.value / (confusion.sensitivity.value + confusion.specificity.value - 1)
    return _estimate(value, differences / power, -1.0)


def tells(confusion: Confusion) -> bool:
    """Whether the judge tells yes from no well enough to correct by its errors."""
    both = confusion.true_yes + confusion.false_no and confusion.true_no + confusion.false_yes
    return bool(both) and confusion.sensitivity.value + confusion.specificity.value - 1 >= LEAST


class _Draws(NamedTuple):
    """Draws of a figure, of the judge's sensitivity and specificity, and of their sum less 1."""

    figures: Floats
    hits: Floats
    rejections: Floats
    power: Floats


def _draws(figure: Estimate, confusion: Confusion) -> _Draws:
    stream = randomness.stream("misclassification")
    z = stream.standard_normal(DRAWS)
    side = np.where(z < 0, figure.value - figure.low, figure.high - figure.value) / NORMAL
    hits = stream.beta(confusion.true_yes + 0.5, confusion.false_no + 0.5, DRAWS)
    rejections = stream.beta(confusion.true_no + 0.5, confusion.false_yes + 0.5, DRAWS)
    return _Draws(figure.value + z * side, hits, rejections, np.maximum(hits + rejections - 1, 1e-6))


def _estimate(value: float, draws: Floats, least: float) -> Estimate:
    """The value with the interval of its draws, all within `least` and 1."""
    low, high = np.quantile(np.clip(draws, least, 1.0), (0.025, 0.975))
    value = min(max(value, least), 1.0)
    return Estimate(value, min(float(low), value), max(float(high), value))
