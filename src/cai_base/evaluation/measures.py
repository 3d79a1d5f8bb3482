"""What a metric is. Each is declared by the task whose answers it is about."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cai_base.evaluation.scoring import Scorable

Scale = Literal["rate", "score", "share", "count", "tokens", "nats"]
UNBOUNDED = (-math.inf, math.inf)
SHARE = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Measure:
    """The label and the unit of a figure.

    Attributes:
        label: its name in tables and plots.
        scale: its unit: a rate in %, a score from 1 to 5, a share from 0 to 1, a count, tokens, or nats per token.
        about: the prompts that it is a mean over, and whether higher or lower is better.
    """

    label: str
    scale: Scale
    about: str


@dataclass(frozen=True, slots=True)
class Metric(Measure):
    """A figure of answers to evaluation prompts.

    Attributes:
        kinds: the kinds of prompt whose answers its mean is over.
        value: its value for one answer; None if the answer has no verdict, or the verdict lacks this part.
        bounds: the least and greatest possible value of a judged metric, for the worst case; None for a measured one.
        limits: the least and greatest possible value of a measured metric; infinite on a side without a bound.
        families: further kinds of prompt, reported as families of their own and not part of the mean.
        binary: its values are 0 and 1.
        optional: left out of results in which no answer has a value of it, since not every rubric asks for it.
        curve: its mean at every evaluation during training is stored, for the curves of the page.
    """

    kinds: tuple[str, ...]
    value: Callable[[Scorable], float | None]
    bounds: tuple[float, float] | None
    limits: tuple[float, float] = UNBOUNDED
    families: tuple[str, ...] = ()
    binary: bool = False
    optional: bool = False
    curve: bool = False

    @property
    def judged(self) -> bool:
        """Whether its values come from a judge's verdicts; otherwise it is measured."""
        return self.bounds is not None

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and greatest possible value, judged or measured; None if either is infinite."""
        limits = self.bounds or self.limits
        return limits if all(map(math.isfinite, limits)) else None

    def allows(self, value: float) -> bool:
        """Whether this is a possible value."""
        least, greatest = self.bounds or self.limits
        return least <= value <= greatest


@dataclass(frozen=True, slots=True)
class VerdictPart:
    """A part of the verdict, as a number; not every rubric asks for all of them."""

    name: str

    def __call__(self, answer: Scorable) -> float | None:
        return None if answer.verdict is None else as_number(getattr(answer.verdict, self.name))


def as_number(value: bool | float | None) -> float | None:
    """The value of an answer as a metric takes it; None stays."""
    return None if value is None else float(value)
