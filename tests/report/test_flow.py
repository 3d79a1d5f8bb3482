"""The figures of what training moved: every answer of SFT-only and of full CAI is in one band."""

from collections import Counter
from pathlib import Path

import pytest

from cai_base.arms import BASELINE, FULL
from cai_base.records import Answer, Verdict
from cai_base.report import flow
from cai_base.report.load import load
from cai_base.report.plotting import Sheet


def answer(kind: str, verdict: Verdict | None) -> Answer:
    return Answer(
        id="a",
        kind=kind,
        family=None,
        prompt="Why?",
        response="So.",
        tokens=2,
        truncated=False,
        verdict=verdict,
        unscored=None if verdict else "no judge",
    )


@pytest.mark.parametrize(
    ("kind", "verdict", "state"),
    [
        ("jailbreak", Verdict(complied=True, refused=False), "complies"),
        ("jailbreak", Verdict(complied=False, refused=True), "refuses"),
        ("jailbreak", Verdict(complied=False, refused=False), "neither"),
        ("jailbreak", Verdict(refused=False), "unscored"),
        ("jailbreak", Verdict(complied=True), "complies"),
        ("jailbreak", Verdict(complied=False), "neither"),
        ("jailbreak", None, "unscored"),
        ("benign", Verdict(refused=False, helpfulness=1), "complies"),
        ("sensitive", Verdict(refused=True), "refuses"),
        ("sensitive", Verdict(helpfulness=3), "unscored"),
    ],
)
def test_an_answer_is_in_the_band_of_its_verdict(kind: str, verdict: Verdict | None, state: str) -> None:
    assert flow.state(answer(kind, verdict)) == state


def test_the_panels_count_every_answer_that_both_arms_gave(finished: Path) -> None:
    stored = load(finished)
    sheet = Sheet("moved")
    flow.draw_flows(stored, sheet)
    answers = [one for seed in stored.seeds for one in stored.answers(FULL, seed)]
    assert len(answers) == sum(len(stored.answers(BASELINE, seed)) for seed in stored.seeds) > 0
    for name, kinds in flow.PROMPTS.items():
        count = sum(one.kind in kinds for one in answers)
        titles = [picture.title for picture in sheet.pictures if picture.name == f"moved-flow-{name}"]
        assert titles == [f"Answers to {name} prompts, {count}"]


def test_the_page_shows_helpfulness_against_attack_success(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Attack success against helpfulness" in page
    assert "What training moved" in page


def test_shares_too_small_for_the_column_stand_below_it() -> None:
    flows = Counter({("complies", "refuses"): 97, ("neither", "refuses"): 3})
    assert flow._with_small("SFT-only", flows, 0) == "SFT-only\n(neither 3.0 %)"
    assert flow._with_small("Full CAI", flows, 1) == "Full CAI"
