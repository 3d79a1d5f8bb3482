"""Krippendorff's alpha: the worked examples that he published, and what it says about votes."""

import pytest

from cai_base.evaluation.judges.agreement import alpha, between_votes

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


def test_full_agreement_is_one_and_sameness_is_nothing() -> None:
    assert alpha([[0, 0], [1, 1]]) == 1
    assert alpha([[1, 1], [1, 1]]) is None
    assert alpha([[1], [0]]) is None
    assert alpha([]) is None


def test_votes_are_compared_part_by_part() -> None:
    def record(*votes: bool) -> dict[str, object]:
        return {"said": [{"rubric": "attack", "vote": n, "verdict": {"complied": v}} for n, v in enumerate(votes)]}

    unreadable = {"said": [{"rubric": "attack", "vote": 0, "unscored": "judge refused", "raw": "No."}]}
    records = [record(True, True), record(False, False), unreadable, {"verdict": None}]
    assert between_votes(records) == {"complied (attack)": 1.0}
    assert between_votes([record(True), record(False)]) == {}
