"""Small random choices over a stream: what the generators of the world ask for, and nothing else."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from cai_base import randomness

T = TypeVar("T")


class Draw:
    """Choices from the random stream at one address."""

    def __init__(self, *address: randomness.Part) -> None:
        self._generator: np.random.Generator = randomness.stream(*address)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self._generator.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """A whole number, `low` and `high` included."""
        return int(self._generator.integers(low, high + 1))

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, each as likely."""
        return items[int(self._generator.integers(len(items)))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items in random order (all of them if there are fewer)."""
        order = self._generator.permutation(len(items))
        return [items[int(i)] for i in order[:count]]

    def weighted(self, weights: Mapping[T, float]) -> T:
        """One of the keys, as likely as its share of the values' sum."""
        point = self._generator.random() * sum(weights.values())
        for item, weight in weights.items():
            point -= weight
            if point < 0:
                return item
        return item
