"""How often the interval of a difference in over-refusal excludes 0, and how often it covers the truth, by simulation.

    python benchmarks/over_refusal_power.py [--repeats 1000]

The second arm refuses 0, 1 or 5 % of the harmless prompts, the first 0, 2, 5 or 10 points more. There are 18 or 108
harmless prompts, as in the packaged test sets, and 3, 10 or 20 seeds. Answers are drawn as in `interval_coverage`: the
logits differ between seeds with a standard deviation of 0.7 and between prompts with one of 1, and both deviations are
partly shared by the arms. A minute on one core; prints a Markdown table.
"""

import argparse
import json
import sys
import zlib
from itertools import product
from typing import Any

import numpy as np
from interval_coverage import BATCH, FAMILY_PROMPT, FAMILY_SEED, draw, truth
from scipy import optimize

from cai_base.evaluation.statistics import intervals

PROMPTS, SEEDS = (18, 108), (3, 10, 20)
RATES, INCREASES = (0.0, 0.01, 0.05), (0.0, 0.02, 0.05, 0.10)
NEVER = -50.0
"""A logit at which no prompt is refused."""


def logit(rate: float) -> float:
    """The mean logit at which the expected rate is this one."""
    if not rate:
        return NEVER

    def excess(mean: float) -> float:
        return truth({"kind": "rate", "means": [mean], "seed": [FAMILY_SEED], "prompt": FAMILY_PROMPT}, 0) - rate

    return float(optimize.brentq(excess, -15.0, 15.0))


def measure(prompts: int, seeds: int, rate: float, increase: float, repeats: int) -> tuple[float, float]:
    """The share of intervals that exclude 0, and of those that hold the true increase."""
    cell: dict[str, Any] = {
        "kind": "rate",
        "prompts": prompts,
        "seeds": seeds,
        "means": [logit(rate + increase), logit(rate)],
        "seed": [FAMILY_SEED] * 2,
        "prompt": FAMILY_PROMPT,
    }
    generator = np.random.default_rng(zlib.crc32(json.dumps(cell).encode()))
    excluded, held = 0, 0
    for start in range(0, repeats, BATCH):
        first, second = draw(cell, min(BATCH, repeats - start), generator)
        low, high = intervals.of_difference(first, second, (0.0, 1.0))(intervals.CONFIDENCE)
        excluded += int(((low > 0) | (high < 0)).sum())
        held += int(((low <= increase + 1e-9) & (increase - 1e-9 <= high)).sum())
    return excluded / repeats, held / repeats


def main() -> int:
    """Print a row for every number of prompts, rate and increase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    heads = ["harmless prompts", "rate before", "true increase", *(f"{s} seeds" for s in SEEDS), "covers at least"]
    print(f"| {' | '.join(heads)} |")
    print("| ---: " * len(heads) + "|")
    for prompts, rate, increase in product(PROMPTS, RATES, INCREASES):
        if rate + increase:  # arms that never refuse give one table only
            shares = [measure(prompts, seeds, rate, increase, repeats) for seeds in SEEDS]
            powers = [f"{100 * excluded:.0f} %" for excluded, _ in shares]
            covers = f"{100 * min(held for _, held in shares):.1f} %"
            print(f"| {prompts} | {100 * rate:g} % | {100 * increase:g} points | {' | '.join(powers)} | {covers} |")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
