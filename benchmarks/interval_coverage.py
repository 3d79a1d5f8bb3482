"""How often each interval covers the truth, by simulation, over seeds and prompts drawn anew every time.

    python benchmarks/interval_coverage.py [--repeats 1000] [--out coverage.jsonl] [--cells]

Answers of S = 3, 5, 10 seeds to P = 24, 400 prompts. The chance of a yes has a logit that is the sum of a mean, a
seed's and a prompt's deviation, both normal; scores from 1 to 5 are rounded sums of normal deviations, lengths are such
sums. What is to be covered is the expectation over seeds and prompts, or the difference of two arms' expectations,
whose seeds and prompts are the same and whose deviations are partly so. Under `--out` every cell is kept as it is done,
and read instead of done again. Some minutes on one core; the last lines are a Markdown table.
"""

import argparse
import json
import math
import sys
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cai_base.evaluation.statistics import intervals
from cai_base.evaluation.statistics.crossed import Array, Crossed, crossed

SEEDS, PROMPTS = (3, 5, 10), (24, 400)
RATE_LOGITS = (-4.0, -2.0, 0.0, 1.5)
SEED_LOGITS, PROMPT_LOGITS = (0.0, 0.5, 1.0), (0.0, 1.0, 3.0)
STRESS = 1.5
"""Seeds further apart than the original experiment's, whose 42 ± 16.9 % and 89 ± 3.3 % are 0.7 and 0.3."""

PAIRS = ((-4.0, -4.0), (-2.0, -2.0), (0.0, 0.0), (1.5, 1.5), (1.5, -4.0), (0.0, -2.0), (-2.0, -4.0), (1.5, 0.0))
UNEQUAL = (0.5, 1.0)
"""Seed deviations of two arms that differ in them too."""

SCORES, SEED_SCORES, PROMPT_SCORES = (3.0, 4.8), (0.0, 0.2, 0.6), (0.0, 0.5, 1.0)
SEED_SHARED, PROMPT_SHARED = 0.5, 0.7
"""Correlation of two arms' deviations."""

BOUNDS: dict[str, intervals.Bounds | None] = {"rate": (0.0, 1.0), "score": (1.0, 5.0), "length": None}
BATCH = 250


def seeds_t(table: Crossed) -> intervals.Interval:
    """The t interval over seeds, prompts held fixed."""
    half = stats.t.ppf(0.975, table.seeds - 1) * table.seed_means.std(-1, ddof=1) / math.sqrt(table.seeds)
    return table.mean - half, table.mean + half


def crossed_t(table: Crossed) -> intervals.Interval:
    """The t interval of the crossed variance, with Satterthwaite's degrees of freedom as they are."""
    half = stats.t.ppf(0.975, satterthwaite(table)) * np.sqrt(table.variance)
    return table.mean - half, table.mean + half


def satterthwaite(table: Crossed) -> Array:
    """Degrees of freedom of the crossed variance."""
    s, p = table.seeds - 1, table.prompts - 1
    parts = table.between_seeds**2 / s + table.between_prompts**2 / p + table.rest**2 / (s * p)
    return np.maximum((table.size * table.variance) ** 2 / np.where(parts > 0, parts, 1.0), 1.0)


def wilson(table: Crossed) -> intervals.Interval:
    """Wilson's interval with the number of answers that has the crossed variance, and a t quantile."""
    spread = table.mean * (1 - table.mean)
    known = (spread > 1e-12) & (table.variance > 0)
    number = np.where(known, spread / np.where(known, table.variance, 1.0), table.prompts)
    t = np.where(known, stats.t.ppf(0.975, satterthwaite(table)), stats.norm.ppf(0.975))
    c = t**2 / number
    middle = (table.mean + c / 2) / (1 + c)
    half = t / (1 + c) * np.sqrt(spread / number + c / (4 * number))
    return middle - half, middle + half


def tried(cell: dict[str, Any], arms: list[Array]) -> dict[str, intervals.Interval]:
    """The intervals of the methods that were not chosen."""
    tables = [crossed(arm) for arm in arms]
    table = tables[0] if len(arms) == 1 else crossed(arms[0] - arms[1])
    found = {"t over seeds": seeds_t(table), "crossed t": crossed_t(table)}
    if cell["kind"] == "rate" and len(arms) == 1:
        found["Wilson, crossed"] = wilson(table)
    elif cell["kind"] == "rate":
        found["crossed t, two prompts more"] = intervals.with_pseudo_prompts(arms[0] - arms[1])(intervals.CONFIDENCE)
        found["from the arms' own (MOVER)"] = intervals.mover(*tables, table)(intervals.CONFIDENCE)
    return found


OURS = "chosen"


def grid() -> Iterator[dict[str, Any]]:
    """Every cell: what is asked of it, and the settings that its answers are drawn by."""
    for s, p in product(SEEDS, PROMPTS):
        size = {"seeds": s, "prompts": p}
        for seed, prompt in product((*SEED_LOGITS, STRESS), PROMPT_LOGITS):
            for mean in RATE_LOGITS:
                yield {"of": "one arm", "kind": "rate", **size, "means": [mean], "seed": [seed], "prompt": prompt}
            for pair in PAIRS:
                yield {"of": "difference", "kind": "rate", **size, "means": pair, "seed": [seed] * 2, "prompt": prompt}
        for pair, prompt in product(PAIRS, PROMPT_LOGITS):
            if pair[0] != pair[1]:  # equal means with unequal deviations are neither equal rates nor far apart
                yield {"of": "difference", "kind": "rate", **size, "means": pair, "seed": UNEQUAL, "prompt": prompt}
        for kind, seed, prompt in product(("score", "length"), SEED_SCORES, PROMPT_SCORES):
            both: dict[str, Any] = {"kind": kind, **size, "prompt": prompt}
            for mean in SCORES if kind == "score" else SCORES[:1]:
                yield {"of": "one arm", **both, "means": [mean], "seed": [seed]}
                yield {"of": "difference", **both, "means": [mean, mean], "seed": [seed] * 2}
            yield {"of": "difference", **both, "means": SCORES, "seed": [seed] * 2}


def truth(cell: dict[str, Any], arm: int) -> float:
    """The expectation of an arm, by its single normal deviation."""
    seed, prompt, mean = cell["seed"][arm], cell["prompt"], cell["means"][arm]
    if cell["kind"] == "length":
        return float(mean)
    if cell["kind"] == "score":
        deviation = math.sqrt(seed**2 + prompt**2 + 1)
        return float(1 + sum(stats.norm.sf((step + 0.5 - mean) / deviation) for step in range(1, 5)))
    places, weights = np.polynomial.hermite_e.hermegauss(100)
    chances = 1 / (1 + np.exp(-(mean + math.hypot(seed, prompt) * places)))
    return float((chances * weights).sum() / weights.sum())


def draw(cell: dict[str, Any], repeats: int, generator: np.random.Generator) -> list[Array]:
    """Each arm's answers [repeats, seeds, prompts]."""
    s, p = cell["seeds"], cell["prompts"]

    def normal(*shape: int) -> Array:
        return generator.standard_normal((repeats, *shape))

    seeds, prompts = normal(s, 1), normal(1, p)
    arms = []
    for mean, deviation in zip(cell["means"], cell["seed"], strict=True):
        own_seed = math.sqrt(SEED_SHARED) * seeds + math.sqrt(1 - SEED_SHARED) * normal(s, 1)
        own_prompt = math.sqrt(PROMPT_SHARED) * prompts + math.sqrt(1 - PROMPT_SHARED) * normal(1, p)
        place = mean + deviation * own_seed + cell["prompt"] * own_prompt
        if cell["kind"] == "rate":
            arms.append((generator.random((repeats, s, p)) < 1 / (1 + np.exp(-place))).astype(float))
        else:
            latent = place + normal(s, p)
            arms.append(np.clip(np.round(latent), 1, 5) if cell["kind"] == "score" else latent)
    return arms


def measure(cell: dict[str, Any], repeats: int) -> dict[str, Any]:
    """For every method the share of intervals that hold the truth, and their mean width."""
    generator = np.random.default_rng(zlib.crc32(json.dumps(cell).encode()))
    bounds, of = BOUNDS[cell["kind"]], cell["of"]
    ours = intervals.of_mean if of == "one arm" else intervals.of_difference
    expected = truth(cell, 0) - (truth(cell, 1) if of == "difference" else 0.0)
    held: dict[str, list[Array]] = {}
    widths: dict[str, list[Array]] = {}
    for start in range(0, repeats, BATCH):
        arms = draw(cell, min(BATCH, repeats - start), generator)
        found = tried(cell, arms) | {OURS: ours(*arms, bounds)(intervals.CONFIDENCE)}
        for name, (low, high) in found.items():
            held.setdefault(name, []).append((low <= expected + 1e-9) & (expected - 1e-9 <= high))
            widths.setdefault(name, []).append(high - low)
    return {
        "cell": cell,
        "truth": expected,
        "repeats": repeats,
        "covers": {name: float(np.concatenate(parts).mean()) for name, parts in held.items()},
        "width": {name: float(np.concatenate(parts).mean()) for name, parts in widths.items()},
    }


def main() -> int:
    """Do the cells that are not done, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("coverage.jsonl"))
    parser.add_argument(
        "--cells", action="store_true", help="print the ten cells that the chosen interval covers least"
    )
    options = parser.parse_args()
    known = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    stored = {json.dumps(one["cell"]): one for one in known if one["repeats"] == options.repeats}
    cells = list(grid())
    with options.out.open("a") as lines:
        for number, cell in enumerate(cells, start=1):
            key = json.dumps(cell)
            if key not in stored:
                stored[key] = measure(cell, options.repeats)
                lines.write(json.dumps(stored[key]) + "\n")
                lines.flush()
            if number % 100 == 0:
                print(f"{number} of {len(cells)} cells", file=sys.stderr)
    found = [stored[json.dumps(cell)] for cell in cells]
    print("\n".join(table(found)))
    if options.cells:
        for one in sorted(found, key=lambda one: one["covers"][OURS])[:10]:
            print(f"{one['covers'][OURS]:.3f} of {one['truth']:.3f}: {json.dumps(one['cell'])}")
    return 0


def table(found: list[dict[str, Any]]) -> list[str]:
    """Of every method least, mean and greatest coverage, the share of cells below 93 %, width beside the chosen's."""
    rows = [
        "| of | method | cells | least | mean | greatest | cells < 93 % | true null rejected at most | width |",
        "| --- | --- |" + " ---: |" * 7,
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        cell = one["cell"]
        stress = ", seeds by 1.5" if cell["kind"] == "rate" and STRESS in cell["seed"] else ""
        groups.setdefault(f"{cell['of']}, {cell['kind']}{stress}", []).append(one)
    for of, some in sorted(groups.items(), key=lambda group: (group[0].startswith("diff"), "seeds" in group[0])):
        null = [one for one in some if one["cell"]["of"] == "difference" and one["truth"] == 0]
        for name in some[0]["covers"]:
            covers = np.array([one["covers"][name] for one in some])
            rejected = f"{100 * max(1 - one['covers'][name] for one in null):.1f} %" if null else ""
            wide = np.exp(np.mean([math.log(one["width"][name] / one["width"][OURS]) for one in some]))
            figures = f"{100 * covers.min():.1f} % | {100 * covers.mean():.1f} % | {100 * covers.max():.1f} %"
            below = f"{100 * (covers < 0.93).mean():.0f} %"
            rows.append(f"| {of} | {name} | {len(some)} | {figures} | {below} | {rejected} | {wide:.2f} |")
    return rows


if __name__ == "__main__":
    sys.exit(main())
