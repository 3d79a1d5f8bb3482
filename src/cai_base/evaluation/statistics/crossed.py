"""Seeds and prompts as crossed random factors: every seed answers every prompt.

For a table with a value y[s, p] for seed s and prompt p, y = mean + seed + prompt + rest. The mean
would differ with other seeds and with other prompts, so its variance has a term for each:

    V = variance(seed) / S + variance(prompt) / P + variance(rest) / (S P)

estimated from the mean squares of the two-way table without replication (Searle, Casella and McCulloch, Variance
Components, 1992, chapter 4). Everything here takes leading axes, so that a simulation can ask for thousands at once.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EQUAL = 1e-18
"""Mean squares below this, in squared units of the metric, are rounding error and count as 0."""


@dataclass(frozen=True)
class Crossed:
    """The mean and mean squares of a table of seeds x prompts. The arrays have the table's leading axes.

    Attributes:
        seed_means: each seed's mean; the seeds' axis is the last.
        between_seeds: the mean square of seeds, S - 1 degrees of freedom; never below `rest`, since a component of
            variance is not negative.
        between_prompts: the mean square of prompts, P - 1 degrees of freedom; never below `rest`.
        rest: the mean square of what remains, (S - 1)(P - 1) degrees of freedom.
        most_freedom: the most degrees of freedom that `variance` is said to have.
        prompts_odds: the variance of the mean log-odds that comes from prompts; 0 where the score interval takes it as
            proportional to m(1 - m) alone.
    """

    seeds: int
    prompts: int
    mean: Array
    seed_means: Array
    between_seeds: Array
    between_prompts: Array
    rest: Array
    most_freedom: float = math.inf
    prompts_odds: Array | float = 0.0

    @property
    def size(self) -> int:
        """Cells of the table."""
        return self.seeds * self.prompts

    @cached_property
    def variance(self) -> Array:
        """The variance of the mean when both seeds and prompts are drawn anew."""
        return (self.between_seeds + self.between_prompts - self.rest) / self.size

    @cached_property
    def freedom(self) -> Array:
        """Degrees of freedom of `variance`."""
        degrees = freedom(self.between_seeds, self.between_prompts, self.rest, self.seeds, self.prompts)
        return np.minimum(degrees, self.most_freedom)

    @property
    def components(self) -> "Components":
        """The variance components. The table must be a single one, without leading axes."""
        return Components(
            seed=float((self.between_seeds - self.rest) / self.prompts),
            prompt=float((self.between_prompts - self.rest) / self.seeds),
            rest=float(self.rest),
        )


@dataclass(frozen=True, slots=True)
class Components:
    """The variance components of seeds, of prompts and of the rest, in squared units of the metric."""

    seed: float
    prompt: float
    rest: float

    def variance(self, seeds: int, prompts: int) -> float:
        """The variance of the mean over this many seeds and prompts."""
        return self.seed / seeds + self.prompt / prompts + self.rest / (seeds * prompts)


def freedom(between_seeds: Array, between_prompts: Array, rest: Array, seeds: int, prompts: int) -> Array:
    """Degrees of freedom of the crossed variance, from its mean squares.

    Satterthwaite's approximation, with at most S - 1 where the component of seeds is positive: without that limit a few
    seeds that happen to be similar would give intervals that are too narrow (docs/statistics.md).
    """
    residual = (seeds - 1) * (prompts - 1)
    parts = between_seeds**2 / (seeds - 1) + between_prompts**2 / (prompts - 1) + rest**2 / residual
    degrees = (between_seeds + between_prompts - rest) ** 2 / np.where(parts > 0, parts, 1.0)
    degrees = np.where(between_seeds > rest, np.minimum(degrees, seeds - 1), degrees)
    return np.maximum(degrees, 1.0)


def crossed(cells: Array, most_freedom: float = math.inf) -> Crossed:
    """The mean and the mean squares of tables [..., seeds, prompts] without gaps, two seeds and two prompts or more."""
    seeds, prompts = cells.shape[-2:]
    of_seeds, of_prompts = cells.mean(-1), cells.mean(-2)
    mean = of_seeds.mean(-1)
    rest = cells - of_seeds[..., None] - (of_prompts - mean[..., None])[..., None, :]
    rest_square = _square(rest.reshape(*mean.shape, seeds * prompts), (seeds - 1) * (prompts - 1))
    return Crossed(
        seeds=seeds,
        prompts=prompts,
        mean=mean,
        seed_means=of_seeds,
        between_seeds=np.maximum(prompts * _square(of_seeds - mean[..., None], seeds - 1), rest_square),
        between_prompts=np.maximum(seeds * _square(of_prompts - mean[..., None], prompts - 1), rest_square),
        rest=rest_square,
        most_freedom=most_freedom,
    )


def _square(deviations: Array, freedom: int) -> Array:
    """The mean square over the last axis."""
    square: Array = np.einsum("...i,...i->...", deviations, deviations) / freedom
    return np.where(square < EQUAL, 0.0, square)


def filled(cells: Array, bounds: tuple[float, float] | None) -> Array:
    """A table [seeds, prompts] with every gap (NaN, an unscored answer) replaced by its expected value.

    Prompts without any answer are left out. The expected value is the prompt's mean plus the seed's mean deviation over
    the other prompts, clipped to the bounds. A filled cell adds nothing to the mean square of the rest, so with many
    gaps an interval is too narrow; coverage is reported beside every figure for that reason.

    Args:
        bounds: the least and greatest possible value; None for an unbounded metric.
    """
    table = cells[:, ~np.isnan(cells).all(0)]
    gaps = np.isnan(table)
    if not gaps.any():
        return table
    of_prompts = np.nanmean(table, 0)
    expected = of_prompts + np.nanmean(table - of_prompts, 1)[:, None]
    return np.where(gaps, expected if bounds is None else np.clip(expected, *bounds), table)
