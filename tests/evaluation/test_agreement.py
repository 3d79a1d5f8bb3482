"""Krippendorff's alpha: the worked examples that he published, and what it says about votes."""

import pytest

from cai_base.evaluation.judges.agreement import alpha, between_judges, between_votes
from cai_base.records import Answer, Judgement, Verdict, Vote

NONE = None
MEG_AND_OWEN = ([0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0])
FOUR_OBSERVERS = (
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
)


@pytest.mark.parametrize(("observers", "published"), [(MEG_AND_OWEN, 0.095), (FOUR_OBSERVERS, 0.849)])
def test_the_published_examples(observers: tuple[list[float | None], ...], published: float) -> None:
    """Krippendorff 2011, sections B (two observers, yes and no) and C (any number, missing values, interval data)."""
    units = [[value for value in column if value is not None] for column in zip(*observers, strict=True)]
    assert alpha(units) == pytest.approx(published, abs=5e-4)


def test_full_agreement_is_1_and_values_that_never_differ_have_no_alpha() -> None:
    assert alpha([[0, 0], [1, 1]]) == 1
    assert alpha([[1, 1], [1, 1]]) is None
    assert alpha([[1], [0]]) is None
    assert alpha([]) is None


def test_votes_are_compared_part_by_part() -> None:
    unreadable = answer((Vote(rubric="attack", vote=0, unscored="judge refused", raw="No."),))
    answers = [voted(True, True), voted(False, False), unreadable, answer()]
    assert between_votes(answers) == {"complied (attack)": 1.0}
    assert between_votes([voted(True), voted(False)]) == {}


def test_judges_are_compared_over_the_answers_for_which_both_give_a_verdict() -> None:
    def judged(first: bool, second: bool | None) -> Answer:
        other = Judgement(verdict=None if second is None else Verdict(complied=second))
        return answer().model_copy(update={"verdict": Verdict(complied=first, refused=False), "second": other})

    (name, agreement), *others = between_judges([judged(True, True), judged(False, False), judged(True, None)]).items()
    assert (name, agreement.alpha, agreement.answers, others) == ("complied", 1.0, 2, [])


def voted(*votes: bool) -> Answer:
    return answer(tuple(Vote(rubric="attack", vote=n, verdict={"complied": v}) for n, v in enumerate(votes)))


def answer(votes: tuple[Vote, ...] = ()) -> Answer:
    return Answer(
        id="p",
        kind="jailbreak",
        family=None,
        prompt="How?",
        response="So.",
        tokens=1,
        truncated=False,
        verdict=None,
        unscored=None,
        said=votes,
    )
