"""The smallest difference that is detected: held against statsmodels where it has the same, else against simulation."""

import sys
from pathlib import Path

import numpy as np
import pytest

from cai_base.evaluation.statistics import paired, power, scaled
from cai_base.evaluation.statistics.crossed import Components
from cai_base.evaluation.statistics.families import difference_figure, difference_over_families, expected_detectable
from cai_base.evaluation.statistics.intervals import freedom_of_difference, of_difference, of_mean
from cai_base.records import Needed

RATE, SCORE = (0.0, 1.0), (1.0, 5.0)
FAMILIES = [str(place // 4) for place in range(24)]


def half(interval: tuple[float, float] | None) -> float:
    assert interval is not None
    return (interval[1] - interval[0]) / 2


def test_the_minimum_detectable_difference_is_found_80_percent_of_the_time() -> None:
    components = Components(seed=1.0, prompt=4.0, rest=9.0)
    effect = power.minimum_detectable(components, 6, 40)
    draw = np.random.default_rng(21)
    shape = (3000, 6, 40)
    cells = draw.normal(0, 1, (3000, 6, 1)) + draw.normal(0, 2, (3000, 1, 40)) + draw.normal(0, 3, shape) + effect
    low, _ = of_mean(cells, None)(0.95)
    assert 0.75 < (low > 0).mean() < 0.86


def test_power_is_statsmodels_where_only_seeds_differ() -> None:
    peers = pytest.importorskip("statsmodels.stats.power")
    effect = power.minimum_detectable(Components(seed=1.0, prompt=0.0, rest=0.0), 8, 50)
    assert peers.TTestPower().power(effect, 8, 0.05) == pytest.approx(0.8, abs=1e-4)
    seeds = np.random.default_rng(1).normal(0, 3, (8, 1))
    detectable = paired(np.repeat(seeds, 24, 1), np.zeros((8, 24)), None).minimum_detectable
    assert detectable == pytest.approx(seeds.std(ddof=1) * peers.TTestPower().solve_power(None, 8, 0.05, 0.8), rel=1e-4)


def test_power_over_families_is_statsmodels_where_only_families_differ() -> None:
    """The t quantile and the noncentral t have one degree of freedom fewer than families."""
    peers = pytest.importorskip("statsmodels.stats.power")
    families = np.random.default_rng(2).normal(0, 3, 6)
    table = np.repeat(families, 4)[None].repeat(5, 0)
    figure = difference_figure(table, np.zeros_like(table), FAMILIES, None)
    assert figure is not None
    expected = families.std(ddof=1) * peers.TTestPower().solve_power(None, 6, 0.05, 0.8)
    assert figure.minimum_detectable == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("seeds", "rates", "bounds"),
    [
        (2, (0.5, 0.5), RATE),
        (3, (0.02, 0.02), RATE),
        (3, (0.9, 0.05), SCORE),
        (10, (0.5, 0.2), RATE),
        (10, (0.0, 0.0), SCORE),
        (3, (0.5, 0.2), None),
    ],
)
def test_no_smaller_difference_is_detected_than_half_the_width_of_the_interval(
    seeds: int, rates: tuple[float, float], bounds: tuple[float, float] | None
) -> None:
    draw = np.random.default_rng(seeds)
    first, second = (1 + 4.0 * (draw.random((seeds, 24)) < rate) * (bounds != RATE) for rate in rates)
    if bounds == RATE:
        first, second = ((draw.random((seeds, 24)) < rate).astype(float) for rate in rates)
    one = paired(first, second, bounds, families=FAMILIES)
    for figure in (one, scaled(one, 2)):
        assert figure.over_families is not None
        for least, interval in (
            (figure.minimum_detectable, figure.ci95),
            (figure.over_families.minimum_detectable, figure.over_families.ci95),
        ):
            assert least is not None
            assert half(interval) < least < 3 * half(interval)


def test_one_seed_detects_nothing_over_seeds() -> None:
    one = paired(np.ones((1, 24)), np.zeros((1, 24)), RATE, families=FAMILIES)
    assert one.over_families is not None
    assert (one.minimum_detectable, one.over_families.minimum_detectable, one.to_detect) == (None, None, None)


def normal(tables: int, effect: float) -> np.ndarray:
    """Differences of 6 seeds on 24 prompts: their families differ most."""
    draw = np.random.default_rng(22)
    families = np.repeat(draw.normal(0, 2, (tables, 1, 6)), 4, -1)
    return effect + families + draw.normal(0, 1, (tables, 6, 1)) + draw.normal(0, 3, (tables, 6, 24))


def test_the_difference_that_is_detectable_over_families_is_found_80_percent_of_the_time() -> None:
    leasts = [difference_figure(table, 0 * table, FAMILIES, None) for table in normal(60, 0.0)]
    # The variance is estimated without bias, its root is not.
    effect = np.sqrt(np.mean([one.minimum_detectable**2 for one in leasts if one is not None]))
    many = normal(2000, float(effect))
    low, _ = difference_over_families(many, 0 * many, FAMILIES, None)(0.95)
    assert 0.74 < (low > 0).mean() < 0.88


def detectable(first: np.ndarray, second: np.ndarray) -> float:
    degrees = freedom_of_difference(first - second, RATE)
    return power.of_interval(of_difference(first, second, RATE), float((first - second).mean()), degrees)


@pytest.mark.parametrize(
    ("seeds", "prompts", "logits"), [(3, 72, (2.4, 0.0)), (10, 24, (1.2, 0.0)), (10, 72, (-1.2, -2.0))]
)
def test_a_rate_that_is_higher_by_the_detectable_difference_is_told_in_four_of_five_runs(
    seeds: int, prompts: int, logits: tuple[float, float]
) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import interval_coverage as simulation

    cell = {"kind": "rate", "prompts": prompts, "means": list(logits), "seed": [0.4, 0.4], "prompt": 1.0}
    first, second = simulation.draw(cell | {"seeds": seeds}, 600, np.random.default_rng(23))
    leasts = [detectable(*pair) for pair in zip(first[:60], second[:60], strict=True)]
    true = simulation.truth(cell, 0) - simulation.truth(cell, 1)
    low, _ = of_difference(first, second, RATE)(0.95)
    assert true == pytest.approx(np.sqrt(np.mean(np.square(leasts))), rel=0.1)
    assert 0.77 < (low > 0).mean() < 0.9


def test_what_is_needed_is_the_least_that_detects_the_effect() -> None:
    def detectable(components: Components) -> power.Detectable:
        return lambda seeds, prompts: power.minimum_detectable(components, seeds, prompts, 1.0)

    some = detectable(Components(seed=0.002, prompt=0.05, rest=0.1))
    needed = power.needed(some, 0.1, 5, 24)
    assert needed.prompts is not None
    assert some(5, needed.prompts) <= 0.1 < some(5, needed.prompts - 1)
    none = Needed(effect=0.01, seeds=None, prompts=None)
    assert power.needed(detectable(Components(0.1, 0.05, 0.1)), 0.01, 3, 24) == none


def test_more_seeds_are_needed_exactly_where_a_run_does_not_detect_the_effect() -> None:
    draw = np.random.default_rng(24)
    tried = set()
    for prompts in (100, 400, 1600):
        first, second = ((draw.random((10, prompts)) < 0.1).astype(float) for _ in range(2))
        one = paired(first, second, RATE)
        assert one.to_detect is not None
        assert one.minimum_detectable is not None
        tried.add(one.minimum_detectable <= 0.05)
        assert (one.to_detect.seeds is not None and one.to_detect.seeds <= 10) == (one.minimum_detectable <= 0.05)
    assert tried == {True, False}


def test_what_is_expected_before_a_run_is_what_its_answers_then_give() -> None:
    """Both rates 1/2, no spread of seeds or families: the mean over runs of what each says that it detects."""
    draw = np.random.default_rng(25)
    tables = (draw.random((2, 12, 10, 72)) < 0.5).astype(float)
    components = Components(seed=0.0, prompt=0.0, rest=0.5)
    plain = np.mean([detectable(first, second) for first, second in zip(*tables, strict=True)])
    assert plain == pytest.approx(power.expected(components, 10, 72), rel=0.1)
    families = [str(place // 12) for place in range(72)]
    of_families = [difference_figure(*arms, families, RATE) for arms in zip(*tables[:, :6], strict=True)]
    over = np.mean([figure.minimum_detectable for figure in of_families if figure is not None])
    assert over == pytest.approx(expected_detectable(components, 10, families), rel=0.1)
