"""How often each interval covers the truth, by simulation, over seeds and prompts drawn anew every time.

    python benchmarks/interval_coverage.py [--repeats 1000] [--out coverage.jsonl] [--cells]
                                           [--families | --one-model | --contrasts]

Answers of S = 3, 5, 10 seeds to P = 24, 400 prompts. The chance of a yes has a logit that is the sum of a mean, a
seed's and a prompt's deviation, both normal; scores from 1 to 5 are rounded sums of normal deviations, lengths are such
sums. What is to be covered is the expectation over seeds and prompts, or the difference of two arms' expectations,
whose seeds and prompts are the same and whose deviations are partly so. Under `--out` every cell is kept as it is done,
and read instead of done again. Some minutes on one core; the last lines are a Markdown table.

With `--families` the prompts are of families, whose deviations are drawn anew too: 3, 10, 20 seeds, families that are
0, 1, 2 logits apart, 6 families of 4 or 12 prompts or 12 of 6. The intervals for these families, which ignore them, are
beside those over families as a sample. The latter were chosen on other cells (docs/statistics.md).

With `--one-model` the second arm is one model, whose "seeds" are samples from the same weights; the first has 2, 3, 10.
Rates of two samples are those of `cai-base style`: 78 styled prompts, two answers to each.

With `--contrasts` there are four arms, as in a study with two factors: the mean of two minus the mean of two others. An
interaction is twice such a difference, so its interval covers as often.
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

from cai_base.evaluation.statistics import families, intervals
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

FAMILY_SEEDS, FAMILY_LOGITS, LAYOUTS = (3, 10, 20), (0.0, 1.0, 2.0), ((6, 4), (6, 12), (12, 6))
"""Seeds; spread of the families; families and prompts in each."""
FAMILY_RATES = (-3.0, -2.0, 0.0, 1.5)
FAMILY_PAIRS = ((-3.0, -3.0), (-2.0, -2.0), (0.0, 0.0), (0.0, -2.0), (1.5, -3.0))
FAMILY_SHARED = 0.5
"""Correlation of two arms' deviations by family: an arm may help against some families only."""
FAMILY_SEED, FAMILY_PROMPT = 0.7, 1.0
"""Spread of seeds and of the prompts of a family."""

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
AS_SEEDS = "as if its samples were seeds"


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


def family_grid() -> Iterator[dict[str, Any]]:
    """Every cell with families."""
    for seeds, logits, (number, of_each) in product(FAMILY_SEEDS, FAMILY_LOGITS, LAYOUTS):
        size = {"seeds": seeds, "prompts": number * of_each, "families": number, "family": logits}
        common: dict[str, Any] = {"kind": "rate", **size, "prompt": FAMILY_PROMPT}
        for mean in FAMILY_RATES:
            yield {"of": "one arm", **common, "means": [mean], "seed": [FAMILY_SEED]}
        for pair in FAMILY_PAIRS:
            yield {"of": "difference", **common, "means": pair, "seed": [FAMILY_SEED] * 2}


ONE_MODEL_SEEDS = (2, 3, 10)
STYLED, SAMPLES = 78, 2
"""Styled prompts of the packaged set (13 styles × 6 questions), and answers to each."""


def one_model_grid() -> Iterator[dict[str, Any]]:
    """Every cell with a seeded arm minus one model, for these prompts and with their families."""
    of = {"of": "difference from one model"}
    for size in (*({"prompts": p} for p in PROMPTS), {"prompts": STYLED, "samples": SAMPLES}):
        for s, seed, prompt in product(ONE_MODEL_SEEDS, SEED_LOGITS, PROMPT_LOGITS):
            for pair in PAIRS:
                if pair[0] != pair[1] or seed == 0:  # equal means with unequal deviations are no equal rates
                    rates: dict[str, Any] = {**of, "kind": "rate", "seeds": s, **size, "means": pair}
                    yield rates | {"seed": [seed, 0.0], "prompt": prompt}
    for s, p, seed, prompt in product(ONE_MODEL_SEEDS, PROMPTS, SEED_SCORES, PROMPT_SCORES):
        for kind, means in (("score", SCORES), ("length", (3.0, 3.0))):
            numbers: dict[str, Any] = {**of, "kind": kind, "seeds": s, "prompts": p, "means": means}
            yield numbers | {"seed": [seed, 0.0], "prompt": prompt}
    for cell in family_grid():
        if cell["of"] == "difference" and cell["means"][0] != cell["means"][1]:
            yield cell | of | {"seed": [FAMILY_SEED, 0.0]}


QUARTETS = (
    *((mean,) * 4 for mean in (-4.0, -2.0, 0.0, 1.5)),
    *((-2.0, 0.0, -2.0, 0.0), (1.5, -4.0, 1.5, -4.0), (0.0, 0.0, -2.0, -2.0), (1.5, 1.5, -4.0, -4.0)),
    *((1.5, 0.0, -2.0, -4.0), (0.0, -2.0, -4.0, -4.0), (1.5, 0.0, 0.0, -2.0)),
)
"""The logits of four arms: first two, minus the other two."""
CONTRAST_PROMPTS = (24, 72)


def contrast_grid() -> Iterator[dict[str, Any]]:
    """Every cell with four arms, for these prompts and with their families."""
    of = {"of": "difference of means of two", "kind": "rate"}
    for means, s, p in product(QUARTETS, SEEDS, CONTRAST_PROMPTS):
        for seed, prompt in product(SEED_LOGITS, PROMPT_LOGITS):
            yield {**of, "seeds": s, "prompts": p, "means": means, "seed": [seed] * 4, "prompt": prompt}
    for means, s, logits, (number, of_each) in product(QUARTETS, FAMILY_SEEDS, FAMILY_LOGITS, LAYOUTS):
        size = {"seeds": s, "prompts": number * of_each, "families": number, "family": logits}
        yield {**of, **size, "means": means, "seed": [FAMILY_SEED] * 4, "prompt": FAMILY_PROMPT}


def over_families(cell: dict[str, Any], arms: list[Array]) -> dict[str, intervals.Interval]:
    """The interval for these families, and the one over families as a sample."""
    of_each = cell["prompts"] // cell["families"]
    names = [str(place // of_each) for place in range(cell["prompts"])]
    bounds = BOUNDS["rate"]
    if cell["of"] == "difference from one model":
        tables = {AS_SEEDS: arms[1], OURS: intervals.of_one_model(arms[1])}
        return {
            name: families.difference_over_families(arms[0], second, names, bounds)(intervals.CONFIDENCE)
            for name, second in tables.items()
        }
    if len(arms) == 1:
        these, sample = intervals.of_mean(*arms, bounds), families.mean_over_families(*arms, names, bounds)
    else:
        these, sample = intervals.of_difference(*arms, bounds), families.difference_over_families(*arms, names, bounds)
    return {"these families": these(intervals.CONFIDENCE), OURS: sample(intervals.CONFIDENCE)}


def truth(cell: dict[str, Any], arm: int) -> float:
    """The expectation of an arm, by its single normal deviation."""
    seed, prompt, mean = cell["seed"][arm], cell["prompt"], cell["means"][arm]
    if cell["kind"] == "length":
        return float(mean)
    if cell["kind"] == "score":
        deviation = math.sqrt(seed**2 + prompt**2 + 1)
        return float(1 + sum(stats.norm.sf((step + 0.5 - mean) / deviation) for step in range(1, 5)))
    places, weights = np.polynomial.hermite_e.hermegauss(100)
    chances = 1 / (1 + np.exp(-(mean + math.hypot(seed, prompt, cell.get("family", 0.0)) * places)))
    return float((chances * weights).sum() / weights.sum())


def draw(cell: dict[str, Any], repeats: int, generator: np.random.Generator) -> list[Array]:
    """Each arm's answers [repeats, seeds, prompts]."""
    s, p = cell["seeds"], cell["prompts"]

    def normal(*shape: int) -> Array:
        return generator.standard_normal((repeats, *shape))

    seeds, prompts = normal(s, 1), normal(1, p)
    of_families = normal(1, cell["families"]) if "families" in cell else None
    arms = []
    for mean, deviation in zip(cell["means"], cell["seed"], strict=True):
        own_seed = math.sqrt(SEED_SHARED) * seeds + math.sqrt(1 - SEED_SHARED) * normal(s, 1)
        own_prompt = math.sqrt(PROMPT_SHARED) * prompts + math.sqrt(1 - PROMPT_SHARED) * normal(1, p)
        place = mean + deviation * own_seed + cell["prompt"] * own_prompt
        if of_families is not None:
            own = math.sqrt(FAMILY_SHARED) * of_families
            own = own + math.sqrt(1 - FAMILY_SHARED) * normal(1, cell["families"])
            place = place + cell["family"] * np.repeat(own, p // cell["families"], axis=-1)
        if cell["kind"] == "rate":
            chances = 1 / (1 + np.exp(-place))
            drawn = [generator.random((repeats, s, p)) < chances for _ in range(cell.get("samples", 1))]
            arms.append(np.mean(drawn, 0))
        else:
            latent = place + normal(s, p)
            arms.append(np.clip(np.round(latent), 1, 5) if cell["kind"] == "score" else latent)
    return arms


def measure(cell: dict[str, Any], repeats: int) -> dict[str, Any]:
    """For every method the share of intervals that hold the truth, and their mean width."""
    generator = np.random.default_rng(zlib.crc32(json.dumps(cell).encode()))
    bounds, of = BOUNDS[cell["kind"]], cell["of"]
    ours = intervals.of_mean if of == "one arm" else intervals.of_difference
    half = len(cell["means"]) // 2
    truths = [truth(cell, arm) for arm in range(len(cell["means"]))]
    expected = truths[0] if of == "one arm" else float(np.mean(truths[:half]) - np.mean(truths[half:]))
    held: dict[str, list[Array]] = {}
    widths: dict[str, list[Array]] = {}
    for start in range(0, repeats, BATCH):
        arms = draw(cell, min(BATCH, repeats - start), generator)
        if half > 1:
            arms = [np.mean(arms[:half], 0), np.mean(arms[half:], 0)]
        if "families" in cell:
            found = over_families(cell, arms)
        elif of == "difference from one model":
            tables = {AS_SEEDS: arms[1], OURS: intervals.of_one_model(arms[1])}
            found = {
                name: intervals.of_difference(arms[0], second, bounds)(intervals.CONFIDENCE)
                for name, second in tables.items()
            }
        else:
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
    parser.add_argument("--families", action="store_true", help="do the cells with families of prompts")
    parser.add_argument("--one-model", action="store_true", help="do the cells in which the second arm is one model")
    parser.add_argument("--contrasts", action="store_true", help="do the cells with four arms, as in a study")
    options = parser.parse_args()
    known = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    stored = {json.dumps(one["cell"]): one for one in known if one["repeats"] == options.repeats}
    grids = {options.one_model: one_model_grid, options.families: family_grid, options.contrasts: contrast_grid}
    cells = list(grids.get(True, grid)())
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
        group = f"{cell['of']}, {cell['kind']}{stress}"
        if "families" in cell:
            group = f"{cell['of']}, families {cell['family']:g} logits apart, {cell['seeds']} seeds"
        elif cell["of"] == "difference of means of two":
            group = f"{cell['of']}, {cell['seeds']} seeds"
        elif cell["of"] == "difference from one model":
            samples = f" of {cell['samples']} samples" if "samples" in cell else ""
            group = f"{cell['of']}, {cell['kind']}{samples}, {cell['seeds']} seeds"
        groups.setdefault(group, []).append(one)
    for of, some in sorted(groups.items(), key=lambda group: (group[0].startswith("diff"), "seeds" in group[0])):
        null = [one for one in some if one["cell"]["of"] != "one arm" and one["truth"] == 0]
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
