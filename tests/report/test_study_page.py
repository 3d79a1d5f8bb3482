"""A study's page and table, from its results alone."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cai_base.errors import UserError
from cai_base.evaluation.failures import RULES, find_failures
from cai_base.evaluation.judges.refusal_phrases import ABOUT, RefusalPhrases
from cai_base.records import NamedFailure, OverFamilies, StudyCell, StudyContrast, StudyPlan, StudyResults
from cai_base.report.study_page import answer, comparison_table, load, table, write
from cai_base.store import to_json
from cai_base.studies import analysis, folder


@pytest.mark.parametrize(("judge", "said"), [(RefusalPhrases.name, True), ("ground-truth", False)])
def test_rates_by_string_matching_are_called_that_on_the_page_and_in_the_terminal(
    tmp_path: Path, judge: str, said: bool
) -> None:
    results = StudyResults(
        schema=1,
        study="two",
        question="Does it matter?",
        about="",
        model="some/model",
        model_organism=False,
        judge=judge,
        engine="local",
        seeds=(0, 1),
        prompts={"jailbreak": 2},
        factors={"a": ("b", "c")},
        primary=("attack_success_rate",),
        intervals="over seeds and prompts",
        cells=(),
        comparisons=(),
        shared={},
        warnings={},
    )
    (tmp_path / folder.RESULTS).write_bytes(to_json(results.dump()))
    page = write(tmp_path).read_text(encoding="utf-8").replace("&#39;", "'")
    for text in (page, table(tmp_path)):
        assert (ABOUT in " ".join(text.split())) == said


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A study of one finished run, whose cells are SFT alone and full CAI."""
    run = folder.run_folder(tmp_path, "one")
    shutil.copytree(finished, run)
    arms = ("sft", "cai")
    plan = StudyPlan(
        schema=1,
        study="small",
        question="Does it matter?",
        about="",
        factors={"arm": arms},
        primary=("attack_success_rate",),
        cells=tuple(StudyCell(levels={"arm": arm}, arm=arm, run="one") for arm in arms),
        contrasts=(StudyContrast(name="cai - sft", first=(1,), second=(0,), scale=1),),
        runs={"one": json.loads((finished / "config.json").read_bytes())},
    )
    (tmp_path / folder.PLAN).write_bytes(to_json(plan.dump()))
    (tmp_path / folder.RESULTS).write_bytes(to_json(analysis.collect(tmp_path, {}).dump()))
    return tmp_path


def failing(study: Path) -> StudyResults:
    """The study's results with a blanket refuser as its second cell alone."""
    text = "blanket refusal: refuses 60 % of benign and benign-but-sensitive prompts"
    failure = NamedFailure(
        arm="cai", kind="blanket refusal", metric="over_refusal_rate", mean=0.6, seeds=(0,), text=text
    )
    results = load(study)
    first, second = (cell.model_copy(update={"failures": ()}) for cell in results.cells)
    return results.model_copy(update={"cells": (first, second.model_copy(update={"failures": (failure,)}))})


def test_a_cell_fails_by_the_rules_of_a_run(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [cell.failures for cell in load(study).cells] == [(), ()]
    lenient = replace(RULES[0], metric="refusal_rate", seed=0.0)
    monkeypatch.setattr("cai_base.evaluation.failures.RULES", (lenient,))
    cells = analysis.collect(study, {}).cells
    of_run = find_failures({cell.arm: cell.figures for cell in cells}, load(study).seeds)
    assert [failure.arm for failure in of_run] == ["sft", "cai"]
    assert [failure for cell in cells for failure in cell.failures] == of_run


def test_failures_are_named_first_and_marked_beside_attack_success_and_every_comparison(study: Path) -> None:
    (study / folder.RESULTS).write_bytes(to_json(failing(study).dump()))
    terminal = " ".join(table(study).split())
    assert terminal.startswith("FAILURE: arm cai (Full CAI): blanket refusal: refuses 60 % of benign")
    page = write(study).read_text(encoding="utf-8").replace("\u2060", "")
    assert page.index("Failure.</strong> arm cai (Full CAI)") < page.index('<p class="headline">')
    for text in (terminal, page):
        assert "Over-refusal rate (%)" in text, "although it is no primary metric of this study"
        assert text.count("✗ blanket refusal") == 2, "beside over-refusal, and beside attack success"
        assert "✗ 1 of 2 cells failed" in text


def test_failures_of_another_arm_are_refused(study: Path) -> None:
    results = failing(study)
    (study / folder.RESULTS).write_bytes(
        to_json(
            results.model_copy(
                update={"cells": tuple(cell.model_copy(update={"arm": "sft"}) for cell in results.cells)}
            ).dump()
        )
    )
    with pytest.raises(UserError, match="the failures of a cell must be of its arm"):
        load(study)


def test_a_long_name_is_whole_in_the_figure_with_a_minus_sign_and_one_run_is_one(study: Path) -> None:
    results = load(study)
    name = "training 1000 pairs, 300 steps - training 42 pairs, 300 steps"
    (compared,) = results.comparisons
    changed = results.model_copy(
        update={"comparisons": (compared.model_copy(update={"name": name}),), "warnings": {"beware": ("one",)}}
    )
    (study / folder.RESULTS).write_bytes(to_json(changed.dump()))
    page, text = write(study).read_text(encoding="utf-8"), " ".join(table(study).split())
    parts = [" ".join(part.split()) for part in re.findall(r"<text[^>]*>([^<]*)</text>", page)]
    assert {"training 1000 pairs, 300 steps −", "training 42 pairs, 300 steps"} <= {*parts}
    assert "training 1000 pairs, 300 steps − training 42" in text
    assert "beware (1 run)" in text
    assert "in 1 run: one" in page
    assert "corrected over the one comparison and the primary metrics" in page


def shown(study: Path, p: float, over_families: tuple[float, ...]) -> str:
    """The answer of a study in which comparisons have these p values, corrected."""
    results = load(study)
    (compared,) = results.comparisons
    template = compared.metrics["attack_success_rate"]
    comparisons = []
    for place, p_over in enumerate(over_families):
        sample = OverFamilies(families=6, mean=-0.3, ci95=(-0.6, -0.1), p_value=p_over, p_primary=p_over)
        update = {
            "difference": -0.3,
            "ci95": (-0.4, -0.2),
            "ci95_over": "seeds and prompts",
            "p_primary": p,
            "over_families": sample,
        }
        of_metric = {"attack_success_rate": template.model_copy(update=update)}
        comparisons.append(compared.model_copy(update={"name": f"part {place}", "metrics": of_metric}))
    return answer(results.model_copy(update={"comparisons": tuple(comparisons)}))


def test_the_answer_says_over_what_it_holds_and_how_much_of_it_over_families(study: Path) -> None:
    start = "Shown after Holm's correction, over seeds and prompts, for these 6 families of jailbreak prompts: part 0: "
    after = "With families as a random sample, for other families, "
    some = shown(study, 0.01, (0.04, 0.2))
    assert some.startswith(f"{start}attack success rate −30.0 points [−40.0, −20.0]; part 1: ")
    assert some.endswith(
        f"{after}1 of the 2 that are about jailbreak prompts holds after the same correction: part 0 (attack success "
        "rate)."
    )
    assert f"{after}none of the 2 that are about jailbreak prompts hold after the same correction." in shown(
        study, 0.01, (0.3, 0.2)
    )
    assert shown(study, 0.2, (0.3, 0.2)) == (
        "2 of 2 primary comparisons show no difference at the 5 % level, over seeds and prompts, for these 6 families "
        "of jailbreak prompts."
    )


def test_a_comparison_that_the_run_cannot_detect_at_all_says_none(study: Path) -> None:
    results = load(study)
    (compared,) = results.comparisons
    for least, scale, said in (
        (0.31, 1, "31.0"),
        (1.2, 1, "none"),
        (1.2, 2, "120.0"),
        (2.4, 2, "none"),
        (None, 1, "–"),
    ):
        one = compared.metrics["attack_success_rate"].model_copy(update={"minimum_detectable": least})
        changed = compared.model_copy(update={"metrics": {"attack_success_rate": one}, "scale": scale})
        (row,) = comparison_table(results.model_copy(update={"comparisons": (changed,)})).rows
        assert row.cells[-1].value == said
