"""From answers to figures: denominators, families, worst cases."""

import tracemalloc
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest

from cai_base.errors import UserError
from cai_base.evaluation import fluency, metrics
from cai_base.evaluation.judges import agreement
from cai_base.evaluation.scoring import Scorer
from cai_base.evaluation.statistics import paired
from cai_base.records import Answer, Difference, Floor, Judgement, OverFamilies, Verdict, Vote

number = count()


def answer(kind: str, family: str | None = None, **verdict: Any) -> Answer:
    """An answer to a separate prompt; without a verdict if none is given."""
    parts = {"complied": False, "refused": False, "helpfulness": 3, "gibberish": False} | verdict
    return Answer(
        id=f"p{next(number)}",
        kind=kind,
        family=family,
        prompt="How?",
        response="So.",
        tokens=10,
        truncated=False,
        verdict=Verdict.model_validate(parts) if verdict else None,
        unscored=None,
    )


def test_attack_success_is_over_jailbreaks_and_the_rest_are_families() -> None:
    answers = [
        answer("jailbreak", "role-play", complied=True),
        answer("jailbreak", "override", complied=False),
        answer("direct", complied=True),
        answer("borderline", complied=True),
        answer("benign", complied=True),
    ]
    figure = metrics.figures([answers])["attack_success_rate"]
    assert figure.mean == 0.5
    assert figure.total == 2
    assert figure.by_family == {"role-play": 1.0, "override": 0.0, "direct": 1.0, "borderline": 1.0}


def test_an_unscored_answer_is_neither_safe_nor_harmful() -> None:
    answers = [answer("jailbreak", "override", complied=True), answer("jailbreak", "override")]
    figure = metrics.figures([answers])["attack_success_rate"]
    assert figure.mean == 1.0
    assert (figure.scored, figure.total) == (1, 2)
    assert figure.worst_case == (0.5, 1.0)


def test_a_seed_that_failed_is_missing_from_the_coverage_and_not_from_the_total() -> None:
    answers = [answer("jailbreak", "override", complied=True), answer("benign")]
    figures = metrics.figures([answers, None, answers], ["jailbreak", "benign"])
    attack = figures["attack_success_rate"]
    assert (attack.scored, attack.answered, attack.total) == (2, 2, 3)
    assert attack.worst_case == (pytest.approx(2 / 3), 1.0)
    assert attack.per_seed == (1.0, None, 1.0)
    assert (figures["response_tokens"].total, figures["response_tokens"].worst_case) == (6, (None, None))


def test_nothing_scored_is_no_figure() -> None:
    figure = metrics.figures([[answer("benign")], None])["helpfulness"]
    assert figure.mean is None
    assert figure.per_seed == (None, None)
    assert figure.worst_case == (1.0, 5.0)


def test_over_refusal_is_over_benign_and_sensitive_prompts() -> None:
    answers = [
        answer("benign", refused=False),
        answer("sensitive", refused=True),
        answer("jailbreak", "x", refused=True),
    ]
    figure = metrics.figures([answers])["over_refusal_rate"]
    assert figure.mean == 0.5
    assert figure.by_family == {"benign": 0.0, "sensitive": 1.0}


def test_arms_are_compared_prompt_by_prompt_and_seed_by_seed() -> None:
    def arm(*rows: str) -> list[list[Answer]]:
        return [
            [
                answer("jailbreak", "x", complied=cell == "x").model_copy(update={"id": str(n)})
                for n, cell in enumerate(row)
            ]
            for row in rows
        ]

    harmful, safe = arm("xx-x", "xx-x"), arm("x---", "xx--")
    comparison = metrics.compare(safe, harmful, ["attack_success_rate", "helpfulness"], {})["attack_success_rate"]
    assert comparison.difference == -0.375
    assert [(test.first_only, test.second_only) for test in comparison.mcnemar or () if test] == [(0, 2), (0, 1)]
    shuffled = [list(reversed(row)) for row in harmful]
    assert metrics.compare(safe, shuffled, ["attack_success_rate"], {})["attack_success_rate"].ci95 == comparison.ci95


def test_harm_is_a_metric_where_a_rubric_asks_for_it() -> None:
    without = {"sft": metrics.figures([[answer("jailbreak", "x", complied=True)]])}
    assert "harm" not in metrics.without_empty_optional(without)["sft"]
    rated = [answer("jailbreak", "x", complied=True, harm=0.5), answer("jailbreak", "x", complied=True, harm=None)]
    both = metrics.without_empty_optional({"sft": metrics.figures([rated]), "cai": metrics.figures([rated[1:]])})
    assert (both["sft"]["harm"].mean, both["sft"]["harm"].scored) == (0.5, 1)
    assert both["sft"]["harm"].worst_case == (0.25, 0.75)
    assert both["cai"]["harm"].mean is None


def test_the_answers_without_a_verdict_are_counted_by_reason() -> None:
    refused = answer("benign").model_copy(update={"unscored": "judge refused"})
    assert metrics.unscored_by_reason([[refused, answer("benign", refused=True)], None, [refused]]) == {
        "judge refused": 2
    }


def test_the_interval_of_a_length_ends_where_lengths_do() -> None:
    seeds = [[answer("benign").model_copy(update={"id": "a", "tokens": n}), answer("benign")] for n in (1, 90)]
    low, high = metrics.figures(seeds)["response_tokens"].ci95 or (None, None)
    assert low == 0.0
    assert high is not None
    assert high > 100


def test_p_values_of_primary_metrics_are_corrected_over_all_comparisons() -> None:
    def arm(*complied: bool) -> list[list[Answer]]:
        rows = [
            answer("jailbreak", f"f{n // 4}", complied=one).model_copy(update={"id": str(n)})
            for n, one in enumerate(complied)
        ]
        return [rows, rows]

    bad, good, middle = arm(*[True] * 12), arm(*[False] * 12), arm(*[True, False] * 6)
    names = ["attack_success_rate", "refusal_rate"]
    compared = [metrics.compare(one, bad, names, {}) for one in (good, middle)]
    by_pair = metrics.correct_primary(compared, ["attack_success_rate"])
    values = [one["attack_success_rate"].p_value for one in by_pair]
    assert [one["attack_success_rate"].p_primary for one in by_pair] == [2 * values[0], values[1]]
    assert all(one["refusal_rate"].p_primary is None for one in by_pair)
    assert by_pair[0]["attack_success_rate"].over_families.families == 3
    over = [one["attack_success_rate"].over_families for one in by_pair]
    assert [one.p_primary for one in over] == [2 * over[0].p_value, over[1].p_value]
    assert by_pair[0]["refusal_rate"].over_families.p_primary is None


def test_p_values_over_families_are_corrected_over_the_same_comparisons_as_the_others() -> None:
    """Those of metrics without families count as they are."""

    def difference(p: float, over_families: float | None) -> Difference:
        sample = None if over_families is None else OverFamilies(families=6, mean=0, ci95=(0, 0), p_value=over_families)
        return paired(np.ones((3, 4)), np.ones((3, 4)), None).model_copy(update={"p_value": p, "over_families": sample})

    attack, over_refusal = "attack_success_rate", "over_refusal_rate"
    compared = [
        {attack: difference(0.001, 0.01), over_refusal: difference(0.002, None)},
        {attack: difference(0.003, 0.2), over_refusal: difference(0.5, None)},
    ]
    corrected = metrics.correct_primary(compared, [attack, over_refusal])
    assert [one[name].p_primary for one in corrected for name in one] == pytest.approx([0.004, 0.006, 0.006, 0.5])
    assert [one[attack].over_families.p_primary for one in corrected] == pytest.approx([0.03, 0.4])


def test_an_unknown_primary_metric_is_refused() -> None:
    with pytest.raises(UserError, match="'attack_success': is not a metric; did you mean attack_success_rate"):
        metrics.check_primary(["attack_success"])
    with pytest.raises(UserError, match="occurs twice"):
        metrics.check_primary(["harm", "harm"])


def test_a_mean_of_cells_counts_the_samples_of_one_model_as_one() -> None:
    def arm(*rows: str) -> list[list[Answer]]:
        """Seeds by prompts: 1 complied, 0 did not."""
        return [
            [
                answer("jailbreak", "override", complied=one == "1").model_copy(update={"id": f"j{i}"})
                for i, one in enumerate(row)
            ]
            for row in rows
        ]

    trained, model = arm("1000", "1100"), arm("1111", "0000")
    name = "attack_success_rate"

    def compared(first: list[bool], second: list[bool], *more: Any) -> Any:
        arms = [[trained, *more], [model, *more]]
        return metrics.compare_means(*arms, 1, {}, one_model=(first, second))[name]

    pair = metrics.compare(trained, model, [name], {}, one_model=(False, True))[name]
    assert compared([False], [True]).ci95 == pair.ci95
    assert compared([False], [True]).difference == pytest.approx(-0.125)
    for more in ([], [trained]):
        same, rest = [False] * len(more), len(more)
        as_model = compared([False, *same], [True, *same], *more).ci95
        as_seeds = compared([False, *same], [False, *same], *more).ci95
        assert as_model[1] - as_model[0] < as_seeds[1] - as_seeds[0], rest


def test_figures_of_large_runs_are_computed_without_the_answers_texts() -> None:
    def many() -> Iterator[Answer]:
        for _ in range(200):
            texts = {"prompt": "How? " * 4000, "response": "So. " * 4000}
            yield answer("jailbreak", "override", complied=True).model_copy(update=texts)

    tracemalloc.start()
    try:
        scored = Scorer(None).each(many())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000, "the texts alone have 7 MB"
    assert metrics.figures([scored])["attack_success_rate"].mean == 1


def test_an_answer_without_its_texts_has_the_same_figures() -> None:
    votes = tuple(Vote(rubric="attack", vote=n, answer={"why": "x"}, verdict={"complied": n == 0}) for n in range(3))
    second = Judgement(verdict=Verdict(complied=True, helpfulness=2.5))
    update = {"votes": votes, "second": second, "logprob": -3.0, "opening_logprob": -1.0}
    answers = [
        *(answer("jailbreak", family, complied=True).model_copy(update=update) for family in ("override", "role-play")),
        answer("benign", helpfulness=4),
        answer("sensitive").model_copy(update={"unscored": "no reply"}),
    ]
    floor = Floor(answer=-1.0, opening=-1.0)
    scored, marked = Scorer(floor).each(answers), fluency.mark_broken(answers, floor)
    assert metrics.figures([scored]) == metrics.figures([marked])
    assert metrics.figures([scored])["broken_rate"].mean == 1
    assert metrics.unscored_by_reason([scored]) == metrics.unscored_by_reason([marked])
    assert agreement.between_votes(scored) == agreement.between_votes(marked) != {}
    assert agreement.between_judges(scored) == agreement.between_judges(marked) != {}
