"""Random choices from one random stream: the operations that the generators of the village need."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from cai_base import randomness

T = TypeVar("T")


class Draw:
    """Choices from the random stream at one address (see `randomness`). Each call advances the stream."""

    def __init__(self, *address: randomness.Part) -> None:
        self._generator: np.random.Generator = randomness.stream(*address)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self._generator.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included, all equally likely."""
        return int(self._generator.integers(low, high + 1))

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, all equally likely."""
        return items[int(self._generator.integers(len(items)))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` items without replacement, in random order; all of them if there are fewer."""
        order = self._generator.permutation(len(items))
        return [items[int(i)] for i in order[:count]]

    def pick_weighted(self, weights: Mapping[T, float]) -> T:
        """One of the keys, with probability proportional to its value."""
        point = self._generator.random() * sum(weights.values())
        for item, weight in weights.items():
            point -= weight
            if point < 0:
                return item
        return item  # rounding left the point at the very end
