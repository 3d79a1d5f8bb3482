"""Sums over seeds, held against scipy, and a simulation of what the interval covers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cai_base.evaluation.statistics import _detectable, mean, paired, summary

values = st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=2, max_size=12)


@given(values)
def test_the_interval_is_scipys_t_interval(sample: list[float]) -> None:
    found = summary(sample)
    assert found["mean"] == pytest.approx(np.mean(sample), abs=1e-9)
    assert found["std"] == pytest.approx(np.std(sample, ddof=1), abs=1e-8)
    error = stats.sem(sample)
    if error > 1e-6:
        assert found["ci95"] == pytest.approx(stats.t.interval(0.95, len(sample) - 1, np.mean(sample), error))


def test_the_difference_is_scipys_paired_t_test() -> None:
    first, second = [0.9, 0.8, 0.7, 0.95], [0.5, 0.6, 0.4, 0.7]
    found = paired(first, second)
    peer = stats.ttest_rel(first, second)
    assert found["p_value"] == pytest.approx(peer.pvalue)
    assert found["ci95"] == pytest.approx(list(peer.confidence_interval()))


def test_one_seed_has_no_interval() -> None:
    assert summary([0.5]) == {"mean": 0.5, "std": None, "ci95": None}
    assert paired([0.5], [0.2])["ci95"] is None
    assert mean([]) is None


def test_a_failed_seed_is_left_out_of_both_sides_of_a_difference() -> None:
    assert paired([0.9, None, 0.7], [0.5, 0.1, 0.5])["difference"] == pytest.approx(0.3)


def test_differences_that_are_equal_but_for_rounding_have_no_spread() -> None:
    found = paired([23 / 24, 17 / 24, 16 / 24], [22 / 24, 16 / 24, 15 / 24])
    assert (found["p_value"], found["minimum_detectable"]) == (None, None)
    assert found["ci95"][0] == found["ci95"][1]


def test_equal_differences_give_no_p_value_and_no_crash() -> None:
    assert paired([0.5, 0.5], [0.25, 0.25]) == {
        "difference": 0.25,
        "ci95": [0.25, 0.25],
        "p_value": None,
        "minimum_detectable": None,
        "seeds": 2,
    }


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_covers_the_mean_over_seeds_95_percent_of_the_time(seeds: int) -> None:
    draws = np.random.default_rng(seeds).normal(0.4, 0.1, size=(4000, seeds))
    inside = sum(low <= 0.4 <= high for low, high in (summary(row.tolist())["ci95"] for row in draws))
    assert abs(inside / 4000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_the_minimum_detectable_difference_is_found_80_percent_of_the_time() -> None:
    generator = np.random.default_rng(1)
    assert _detectable(2) == pytest.approx(5.65, abs=0.01)
    effect = float(
        np.mean([paired(row.tolist(), [0.0] * 10)["minimum_detectable"] for row in generator.normal(0, 1, (2000, 10))])
    )
    found = [paired(row.tolist(), [0.0] * 10)["p_value"] < 0.05 for row in generator.normal(effect, 1, (4000, 10))]
    assert 0.75 < np.mean(found) < 0.86
