"""How fast this processor multiplies matrices in bfloat16, beside float32.

Processors with AMX multiply several times as fast in bfloat16; those without it or AVX-512 a hundred times as slowly.
The engine measures it and says it, and does not choose by it, so that the precision of a command does not depend on the
processor.
"""

import time

import torch

LARGE = 50_000_000
"""Parameters of a model for which the precision decides how long a run takes. The embedded model has 2.6 million."""
WORTH_IT = 1.5
"""The times by which bfloat16 must be faster to be advised."""
ROWS, SIDE, SECONDS = 256, 1024, 0.05


def gain() -> float:
    """How many times as fast as in float32 this process multiplies matrices in bfloat16, on the CPU."""
    return _seconds(torch.float32) / _seconds(torch.bfloat16)


def _seconds(dtype: torch.dtype) -> float:
    """The time of the fastest of the products that fit in `SECONDS`."""
    rows, weight = torch.ones(ROWS, SIDE, dtype=dtype), torch.ones(SIDE, SIDE, dtype=dtype)
    fastest, start = float("inf"), time.perf_counter()
    while fastest == float("inf") or time.perf_counter() - start < SECONDS:
        before = time.perf_counter()
        torch.nn.functional.linear(rows, weight)
        fastest = min(fastest, time.perf_counter() - before)
    return fastest


def advice(device: torch.device, dtype: torch.dtype, parameters: int) -> str | None:
    """A sentence where the other precision is the faster one for a model of this size; None where it is not."""
    if device.type != "cpu" or parameters < LARGE:
        return None
    times = gain()
    if dtype == torch.float32 and times >= WORTH_IT:
        return (
            f"This processor multiplies matrices {times:.1f} times as fast in bfloat16 as in float32. A run in "
            "bfloat16 (the setting dtype) is shorter, and trains differently"
        )
    if dtype == torch.bfloat16 and times < 1:
        return (
            f"This processor multiplies matrices {1 / times:.1f} times as fast in float32 as in bfloat16. A run in "
            "float32 (the setting dtype) is shorter"
        )
    return None
