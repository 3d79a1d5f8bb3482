"""Random streams by address: every draw names its purpose, and nothing else affects it.

A stream depends only on its address, `(seed, phase, item, purpose)`, so a draw does not depend on which draws
were made before it, on how many seeds run together, or on whether the run was resumed. There is no global generator.
"""

import hashlib
from operator import index

import numpy as np

Part = str | int


def key(*address: Part) -> int:
    """A 128-bit integer for the address. `("a", "b")` and `("ab",)` differ, and so do `1` and `"1"`."""
    # A whole number of numpy is the same part as Python's.
    parts = tuple(part if isinstance(part, str | int) else index(part) for part in address)
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:16], "little")


def stream(*address: Part) -> np.random.Generator:
    """A new random generator for this address."""
    return np.random.Generator(np.random.Philox(key=key(*address)))


def seed(*address: Part) -> int:
    """A non-negative 63-bit seed for code that needs an integer."""
    return key(*address) >> 65
