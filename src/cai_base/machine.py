"""What this machine has, found without torch."""

import os
from pathlib import Path

TRAINED = 4 * 4
"""Bytes per weight of an adapter in training: the weight, its gradient and Adam's two moments, each in 32 bits."""
GIGABYTE = 1 << 30
_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory() -> int:
    """Bytes of memory of this machine or container."""
    of_machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if _LIMIT.is_file() and (text := _LIMIT.read_text(encoding="ascii").strip()).isdecimal():
        return min(of_machine, int(text))
    return of_machine


def too_large(adapters: int, weights: int, room: int) -> str | None:
    """Why so many adapters of so many weights cannot be trained in so much memory, and how many can be; None if they
    can."""
    needed = adapters * weights * TRAINED
    if needed <= room:
        return None
    takes, there = (f"{size / GIGABYTE:.1f}" for size in (needed, room))
    return (
        f"{adapters} adapters of {weights:,} weights take at least {takes} GiB in training, and there are {there}; "
        f"give fewer seeds ({room // (weights * TRAINED)} at most) or a lower rank"
    )
