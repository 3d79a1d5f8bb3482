"""Intervals, tests and power: held against scipy and statsmodels where these have the same, else against simulation."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cai_base.evaluation.statistics import among, holm, intervals, paired, summary
from cai_base.evaluation.statistics.crossed import crossed, filled
from cai_base.evaluation.statistics.hypotheses import mcnemar, non_inferiority
from cai_base.evaluation.statistics.intervals import exact, of_difference, of_mean, p_value

RATE = (0.0, 1.0)
SEEDS, PROMPTS = 4, 30


def table(seed: int, seeds: int = SEEDS, prompts: int = PROMPTS) -> np.ndarray:
    """Lengths with a share of every factor."""
    draw = np.random.default_rng(seed)
    return 40 + draw.normal(0, 2, (seeds, 1)) + draw.normal(0, 5, (1, prompts)) + draw.normal(0, 3, (seeds, prompts))


def answers(rate: float, seed: int, seeds: int = SEEDS, prompts: int = PROMPTS) -> np.ndarray:
    return (np.random.default_rng(seed).random((seeds, prompts)) < rate).astype(float)


def test_mean_squares_are_those_of_a_two_way_analysis_of_variance() -> None:
    smf = pytest.importorskip("statsmodels.formula.api")
    from statsmodels.stats.anova import anova_lm

    cells = table(1)
    seed, prompt = np.indices(cells.shape)
    data = {"y": cells.ravel(), "seed": seed.ravel(), "prompt": prompt.ravel()}
    peer = (
        anova_lm(smf.ols("y ~ C(seed) + C(prompt)", data).fit())["sum_sq"]
        / anova_lm(smf.ols("y ~ C(seed) + C(prompt)", data).fit())["df"]
    )
    components = crossed(cells)
    assert [components.between_seeds, components.between_prompts, components.rest] == pytest.approx(list(peer))


def test_the_exact_interval_is_scipys_clopper_pearson() -> None:
    for yes in (0, 1, 7, 23, 24):
        peer = stats.binomtest(yes, 24).proportion_ci(0.95, "exact")
        assert [float(end) for end in exact(np.array(float(yes)), 24)] == pytest.approx([peer.low, peer.high])


def test_one_seed_has_an_exact_interval_over_prompts_that_says_so() -> None:
    figure = summary(answers(0.3, 2, seeds=1), RATE)
    peer = stats.binomtest(round(figure.mean * PROMPTS), PROMPTS).proportion_ci(0.95, "exact")
    assert figure.ci95 == pytest.approx([peer.low, peer.high])
    assert (figure.ci95_over, figure.std, figure.ci95_seeds) == ("prompts", None, None)
    lengths = summary(table(3, seeds=1), None)
    peer_t = stats.t.interval(0.95, PROMPTS - 1, table(3, seeds=1).mean(), stats.sem(table(3, seeds=1)[0]))
    assert lengths.ci95 == pytest.approx(list(peer_t))


def test_samples_from_one_model_are_not_seeds_and_its_interval_is_over_prompts() -> None:
    draws = np.array([[1.0] * 17 + [0.0] * 7, [1.0] * 21 + [0.0] * 3, [1.0] * 23 + [0.0]])
    figure = summary(draws, (0.0, 1.0), one_model=True)
    exact = stats.binomtest(61, 72).proportion_ci(0.95, method="exact")
    assert figure.ci95_over == "prompts"
    assert figure.mean == pytest.approx(61 / 72)
    assert figure.ci95[0] < exact.low < 61 / 72 < exact.high < figure.ci95[1]  # 24 prompts know less than 72 would
    assert figure.ci95[0] > summary(draws, (0.0, 1.0)).ci95[0]


def test_the_samples_of_one_model_do_not_widen_a_difference_from_it_as_seeds_would() -> None:
    """As in a run of two seeds: the arm refuses one of 18 prompts in both, the base model one of 18 in one sample."""
    arm, base = np.zeros((2, 18)), np.zeros((2, 18))
    arm[:, 0] = base[0, 0] = 1.0
    seeds = paired(arm, base, RATE)
    model = paired(arm, base, RATE, one_model=(False, True))
    mirrored = paired(base, arm, RATE, one_model=(True, False))
    assert model.difference == seeds.difference == pytest.approx(1 / 36)
    low, high = model.ci95
    assert -0.25 < low < 0 < high < 0.25
    assert mirrored.ci95 == pytest.approx((-high, -low))
    assert seeds.ci95[1] - seeds.ci95[0] > 1.9
    assert model.ci95_over == "seeds and prompts"


def test_a_difference_of_one_seed_is_covered_by_its_exact_interval() -> None:
    draw = np.random.default_rng(4)
    held = 0
    for _ in range(300):
        luck = draw.random((1, 24))
        low, high = of_difference((luck < 0.6) * 1.0, (luck + 0.2 * draw.random((1, 24)) < 0.4) * 1.0, RATE)(0.95)
        held += bool(low <= 0.3 <= high)  # the second arm says yes at 0.4 less half of 0.2
    assert held / 300 >= 0.95


def test_the_interval_over_seeds_is_scipys() -> None:
    cells = table(5)
    means = cells.mean(1)
    figure = summary(cells, None)
    assert figure.ci95_seeds == pytest.approx(stats.t.interval(0.95, SEEDS - 1, means.mean(), stats.sem(means)))
    assert figure.std == pytest.approx(means.std(ddof=1))
    assert figure.ci95_over == "seeds and prompts"


def test_with_prompts_that_do_not_differ_the_interval_is_the_t_interval_over_seeds() -> None:
    cells = np.repeat(np.random.default_rng(6).normal(40, 3, (5, 1)), 12, axis=1)
    figure = summary(cells, None)
    assert figure.ci95 == pytest.approx(figure.ci95_seeds)


def test_if_all_seeds_answer_alike_the_interval_is_wilsons_over_prompts() -> None:
    figure = summary(np.zeros((3, 24)), RATE)
    peer = stats.binomtest(0, 24).proportion_ci(0.95, "wilson")
    assert figure.ci95 == pytest.approx([peer.low, peer.high], abs=1e-9)


def test_an_interval_of_a_rate_stays_within_0_and_1_and_contains_the_mean() -> None:
    for rate in (0.0, 0.02, 0.5, 0.98, 1.0):
        for seed in range(20):
            cells = answers(rate, seed, seeds=3, prompts=12)
            low, high = summary(cells, RATE).ci95
            assert 0 <= low <= cells.mean() <= high <= 1


def test_more_prompts_narrow_an_interval_that_few_prompts_widened() -> None:
    wide, narrow = (summary(answers(0.4, 7, prompts=p), RATE).ci95 for p in (24, 400))
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 2


def test_a_score_is_a_rate_on_another_scale() -> None:
    cells = answers(0.7, 8)
    rate, score = summary(cells, RATE).ci95, summary(1 + 4 * cells, (1.0, 5.0)).ci95
    assert score == pytest.approx([1 + 4 * end for end in rate])


def test_the_p_value_goes_with_the_interval() -> None:
    first, second = answers(0.6, 9), answers(0.4, 10)
    comparison = paired(first, second, RATE)
    at = of_difference(first, second, RATE)
    nearest = min(abs(float(end)) for end in at(1 - comparison.p_value))
    assert nearest == pytest.approx(0, abs=1e-3)
    assert (comparison.p_value < 0.05) == (not comparison.ci95[0] <= 0 <= comparison.ci95[1])
    swapped = paired(second, first, RATE)
    assert swapped.p_value == pytest.approx(comparison.p_value, rel=1e-2)
    assert swapped.ci95 == pytest.approx([-end for end in reversed(comparison.ci95)])


def test_if_lengths_differ_only_by_seed_the_p_value_is_that_of_the_paired_t_test() -> None:
    first, second = (np.repeat(np.random.default_rng(n).normal(40, 3, (5, 1)), 12, axis=1) for n in (1, 2))
    peer = stats.ttest_rel(first[:, 0], second[:, 0])
    assert paired(first, second, None).p_value == pytest.approx(peer.pvalue, rel=1e-3)


def test_arms_with_equal_answers_have_difference_zero_with_an_interval_of_positive_width() -> None:
    cells = answers(0.5, 11)
    comparison = paired(cells, cells, RATE, binary=True, margin=0.1)
    assert comparison.difference == 0
    assert comparison.p_value == 1
    assert comparison.ci95[0] < -0.05 < 0.05 < comparison.ci95[1]
    assert comparison.minimum_detectable > 0
    assert [test.p_value for test in comparison.mcnemar] == [1.0] * SEEDS


def test_pairing_narrows_the_interval_of_arms_that_fail_on_the_same_prompts() -> None:
    hard = np.random.default_rng(12).random((1, 100)) < 0.5
    one, two = (((np.random.default_rng(n).random((SEEDS, 100)) < 0.9) & hard) * 1.0 for n in (13, 14))
    together = paired(one, two, RATE).ci95
    apart = paired(one, two[:, np.random.default_rng(15).permutation(100)], RATE).ci95
    assert together[1] - together[0] < 0.6 * (apart[1] - apart[0])


def test_a_failed_seed_is_left_out_of_both_sides_of_a_difference() -> None:
    first, second = answers(0.9, 16, seeds=3), answers(0.2, 17, seeds=3)
    first[1] = np.nan
    comparison = paired(first, second, RATE, binary=True)
    kept = paired(first[[0, 2]], second[[0, 2]], RATE)
    assert (comparison.difference, comparison.ci95, comparison.seeds) == (kept.difference, kept.ci95, 2)
    assert comparison.mcnemar[1] is None


def test_a_difference_is_over_the_prompts_that_both_arms_have_scored() -> None:
    first, second = np.array([[1.0, 1, 0, np.nan]] * 2), np.array([[0.0, 1, np.nan, 1]] * 2)
    assert paired(first, second, RATE).difference == 0.5


def test_nothing_scored_or_a_single_prompt_has_no_interval() -> None:
    nothing = summary(np.full((3, 5), np.nan), RATE)
    assert (nothing.mean, nothing.ci95, nothing.ci95_over) == (None, None, None)
    assert summary(np.ones((3, 1)), RATE).ci95 is None
    comparison = paired(np.full((3, 5), np.nan), np.ones((3, 5)), RATE, margin=0.2)
    assert (comparison.difference, comparison.p_value, comparison.non_inferiority) == (None, None, None)


def test_unscored_answers_are_replaced_by_the_value_predicted_from_seed_and_prompt() -> None:
    cells = np.add.outer([0.0, 1.0, 2.0], np.arange(6.0))
    holed = cells.copy()
    holed[1, 2] = holed[2, 0] = np.nan
    assert filled(holed, None)[1, 2] == pytest.approx(cells[1, 2], abs=0.5)
    holed[:, 4] = np.nan
    assert filled(holed, None).shape == (3, 5)


def test_an_interval_with_unscored_answers_stays_in_the_range_of_values_and_contains_the_mean() -> None:
    gap = math.nan
    most = np.array([[1, gap, gap, gap, gap, gap], [0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]], dtype=float)
    for cells, bounds in ((most, RATE), (1 - most, RATE), (1 + 4 * most, (1.0, 5.0))):
        figure = summary(cells, bounds)
        low, high = figure.ci95
        assert bounds[0] <= low < figure.mean < high <= bounds[1]


def test_with_unscored_answers_mean_interval_and_p_value_use_one_estimate() -> None:
    gap = math.nan
    hard_ones_unscored = np.array([[1, 1, 0, 0], [1, 1, gap, gap], [1, 1, gap, gap]], dtype=float)
    figure = summary(hard_ones_unscored, RATE)
    assert figure.mean == pytest.approx(filled(hard_ones_unscored, RATE).mean())
    assert figure.mean == pytest.approx(np.mean(figure.per_seed))
    draws = np.random.default_rng(5)
    for _ in range(40):
        first, second = (draws.integers(0, 2, (3, 8)).astype(float) for _ in range(2))
        first[draws.random((3, 8)) < 0.5] = gap
        comparison = paired(first, second, RATE)
        if comparison.ci95 is None or comparison.difference is None or comparison.p_value is None:
            continue
        low, high = comparison.ci95
        assert low <= comparison.difference <= high
        assert (comparison.p_value < 0.05) == (not low <= 0 <= high)


def test_the_interval_over_families_is_wider_where_families_differ_and_never_narrower() -> None:
    names = [str(place // 6) for place in range(24)]
    by_family = np.repeat([1.0, 0.0, 1.0, 0.0], 6)[None].repeat(5, 0)
    figure = summary(by_family, RATE, families=names)
    assert figure.over_families is not None
    assert (figure.over_families.families, figure.over_families.mean) == (4, 0.5)
    (low, high), (wide_low, wide_high) = figure.ci95, figure.over_families.ci95
    assert wide_low < low - 0.05
    assert wide_high > high + 0.05
    alike = paired(answers(0.6, 1, 5, 24), answers(0.4, 2, 5, 24), RATE, families=names)
    assert alike.over_families is not None
    (low, high), (wide_low, wide_high) = alike.ci95, alike.over_families.ci95
    assert wide_low <= low + 1e-9
    assert wide_high >= high - 1e-9
    assert alike.over_families.mean == pytest.approx(alike.difference)
    assert alike.over_families.p_value >= alike.p_value - 1e-9


def test_prompts_without_families_have_no_interval_over_families() -> None:
    cells = answers(0.5, 3, 3, 6)
    for families in ((), ["one"] * 6, list("abcdef")):
        assert summary(cells, RATE, families=families).over_families is None


def test_families_of_unequal_size_count_the_same() -> None:
    cells = np.array([[1, 1, 1, 1, 0, 0]] * 3, dtype=float)
    figure = summary(cells, RATE, families=["a"] * 4 + ["b"] * 2).over_families
    assert figure is not None
    assert figure.mean == 0.5


def test_mcnemar_is_statsmodels_exact_test() -> None:
    peers = pytest.importorskip("statsmodels.stats.contingency_tables")
    first, second = answers(0.7, 18)[0], answers(0.4, 19)[0]
    counts = [[int(((first == a) & (second == b)).sum()) for b in (1, 0)] for a in (1, 0)]
    outcome = mcnemar(first, second)
    assert (outcome.first_only, outcome.second_only) == (counts[0][1], counts[1][0])
    assert outcome.p_value == pytest.approx(peers.mcnemar(counts, exact=True).pvalue)


def test_holm_is_statsmodels() -> None:
    peers = pytest.importorskip("statsmodels.stats.multitest")
    p_values = [0.04, 0.001, 0.6, 0.012, 0.013]
    assert holm(p_values) == pytest.approx(list(peers.multipletests(p_values, method="holm")[1]))
    assert holm([None, 0.04, None]) == [None, 0.04, None]


def test_no_less_helpful_is_shown_where_the_interval_lies_above_the_margin() -> None:
    draw = np.random.default_rng(20)
    before = 3 + draw.random((5, 200))
    after = before + 0.05 * draw.standard_normal((5, 200))
    alike = of_difference(np.full((5, 200), 5.0), np.full((5, 200), 5.0), (1.0, 5.0))
    near = non_inferiority(0.0, of_difference(after, before, (1.0, 5.0)), 0.25, alike)
    assert near.shown
    assert near.p_value < 0.025
    worse = non_inferiority(-0.5, of_difference(after - 0.5, before, (1.0, 5.0)), 0.25, alike)
    assert not worse.shown
    assert worse.could_be
    assert worse.p_value > 0.5


def test_ten_prompts_cannot_show_non_inferiority_in_helpfulness_with_any_answers() -> None:
    few, many = np.full((10, 10), 5.0), np.full((10, 60), 5.0)
    assert not paired(few, few, (1.0, 5.0), margin=0.25).non_inferiority.could_be
    assert paired(many, many, (1.0, 5.0), margin=0.25).non_inferiority.shown


def test_intervals_cover_and_a_true_null_is_not_rejected_too_often_in_the_hardest_cells() -> None:
    """All cells: `benchmarks/interval_coverage.py`."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import interval_coverage as simulation

    hard = {
        ("one arm", 10, 24, -4.0, 1.5, 1.0),
        ("one arm", 3, 24, -2.0, 1.5, 0.0),
        ("one arm", 5, 24, 0.0, 0.0, 3.0),
        ("difference", 5, 24, 0.0, 1.5, 1.0),
        ("difference", 10, 24, -2.0, 0.0, 3.0),
        ("difference", 3, 24, 1.5, 0.5, 3.0),
    }
    tried = 0
    for cell in simulation.grid():
        place = (cell["of"], cell["seeds"], cell["prompts"], cell["means"][0], cell["seed"][0], cell["prompt"])
        if cell["kind"] != "rate" or place not in hard or len(set(cell["means"])) > 1:
            continue
        tried += 1
        covers = simulation.measure(cell, 500)["covers"]
        assert covers["chosen"] >= 0.93 - 3 * math.sqrt(0.93 * 0.07 / 500), cell
    assert tried == len(hard)


def test_intervals_over_families_cover_where_those_for_these_families_do_not() -> None:
    """All cells: `benchmarks/interval_coverage.py --families`."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import interval_coverage as simulation

    for cell in simulation.family_grid():
        place = (cell["seeds"], cell["families"], cell["family"], cell["means"][0], cell["means"][-1])
        if place in ((10, 6, 2.0, 0.0, 0.0), (10, 12, 1.0, -2.0, -2.0)):
            covers = simulation.measure(cell, 300)["covers"]
            assert covers["chosen"] >= 0.93 - 3 * math.sqrt(0.93 * 0.07 / 300), cell
            if cell["family"] == 2.0:
                assert covers["these families"] < 0.9, cell


def test_p_values_are_at_most_one_and_at_least_the_numerical_floor() -> None:
    assert p_value(lambda confidence: (np.array(-1.0), np.array(1.0))) == 1
    assert p_value(lambda confidence: (np.array(0.5), np.array(1.0))) == intervals.LEAST_P


@pytest.mark.parametrize("value", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("seeds", [3, 10])
def test_where_all_answers_are_equal_the_interval_is_wilsons_over_prompts(value: float, seeds: int) -> None:
    """Ties of pairwise helpfulness are 0.5: no variance is estimated there, as at 0 and 1."""
    low, high = of_mean(np.full((seeds, 12), value), (0.0, 1.0))(0.95)
    wilson = stats.binomtest(round(value * 12), 12).proportion_ci(method="wilson")
    assert (float(low), float(high)) == pytest.approx((wilson.low, wilson.high), abs=1e-6)


def test_a_share_among_some_cells_is_their_share_and_its_interval_covers() -> None:
    draw = np.random.default_rng(0)
    seeds, prompts, truth, repeats, covered = 6, 40, 0.7, 400, 0
    middle = np.log(truth / (1 - truth))
    expected = float(np.mean(1 / (1 + np.exp(-(middle + draw.normal(0, 0.7, 200_000))))))
    for _ in range(repeats):
        # Prompts differ in how often they count and in how often they agree; the share is over what counts.
        logit = middle + draw.normal(0, 0.7, prompts)
        values = (draw.random((seeds, prompts)) < 1 / (1 + np.exp(-logit))).astype(float)
        values[draw.random((seeds, prompts)) < draw.beta(2, 3, prompts)] = np.nan
        figure = among(values, (0.0, 1.0))
        assert figure.mean == pytest.approx(np.nanmean(values))
        assert figure.ci95 is not None
        covered += figure.ci95[0] <= expected <= figure.ci95[1]
    assert covered / repeats > 0.93


def test_a_share_among_cells_that_all_agree_has_an_interval_of_positive_width() -> None:
    cells = np.full((3, 5), np.nan)
    cells[:, :2] = 1.0
    figure = among(cells, (0.0, 1.0))
    assert figure.mean == 1.0
    assert figure.ci95 is not None
    assert 0.4 < figure.ci95[0] < 0.9
    assert figure.ci95[1] == 1.0


def test_a_share_among_no_cells_has_no_value() -> None:
    figure = among(np.full((3, 5), np.nan), (0.0, 1.0))
    assert (figure.mean, figure.ci95) == (None, None)
