"""Checks the resources: disk space for the adapters, and an upper bound on the cost of a paid service."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from cai_base.engines import Engine, Usage
from cai_base.method.phase import adapter_name
from cai_base.run.preflight.outcome import Check
from cai_base.run.spending.prices import Prices
from cai_base.text import counted

STATES = 3
"""States of a phase on disk at the same time: the last one, the one being written, and the exported adapter."""
ROOM = 2
"""There is a warning if the free disk space is less than this many times the run's largest need."""
MEGABYTE = 1 << 20


def check_disk(engine: Engine, seeds: int, arms: int, out: Path) -> Check:
    """Check whether the adapters of all seeds and phases fit on the disk, from the size of one written as a test.

    Args:
        arms: the number of trained arms, including controls.
        out: the run's directory.
    """
    name = adapter_name("preflight", 0)
    place = next(folder for folder in out.absolute().parents if folder.exists())
    engine.create({name: 0})
    with TemporaryDirectory() as folder:
        engine.save({name: Path(folder)})
        state = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    engine.remove([name])
    needed = STATES * state * seeds * arms
    free = shutil.disk_usage(place).free
    finding = (
        f"adapters of {counted(seeds, 'seed')} and {counted(arms, 'arm')} take up to {math.ceil(needed / MEGABYTE)} MB"
    )
    if free < needed:
        return Check("disk", "failed", f"{finding}; {free // MEGABYTE} MB are free", f"free disk space at {place}")
    if free < ROOM * needed:
        return Check("disk", "warned", f"{finding}, and little more is free", f"free disk space at {place}")
    return Check("disk", "passed", finding)


def check_cost(usages: Mapping[str, Usage], prices: Prices, max_cost: float | None) -> Check:
    """Check the upper bound of the run's cost on a service against its limit."""
    most, dollars = sum(usages.values(), Usage()), prices.dollars(usages)
    finding = f"at most {most.prefilled:,} tokens read, {most.sampled:,} sampled and {most.trained:,} trained on"
    if dollars is None:
        return Check("cost", "warned", f"{finding}; no price is known for {prices.unknown[0]}", "give --price")
    finding += f": {dollars:,.2f} dollars"
    if max_cost is not None and dollars > max_cost:
        do = "the run may stop early; resume it with a higher limit"
        return Check("cost", "warned", f"{finding}, above --max-cost {max_cost:g}", do)
    return Check("cost", "passed", finding)
