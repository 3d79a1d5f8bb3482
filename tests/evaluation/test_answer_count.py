"""The count of answers while an engine samples them."""

from types import SimpleNamespace

import pytest

from cai_base.run.evaluation import flow
from cai_base.run.evaluation.flow import AnswerCount


class Bar:
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.total, self.values = 0, ""

    def advance(self, amount: int, values: str = "") -> None:
        self.total += amount
        self.values = values


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(flow, "time", clock)
    return clock


def draw(count: AnswerCount, clock: SimpleNamespace, first: int, lengths: list[int]) -> None:
    """Draw a batch of answers of these lengths, a token of each a second."""
    for step in range(1, max(lengths) + 1):
        clock.now += 1.0
        for number, length in enumerate(lengths):
            if step <= length:
                count.hear(first + number, (7,) * step)


def test_answers_that_ended_count_whole_and_growing_ones_by_their_share(clock: SimpleNamespace) -> None:
    bar = Bar()
    count = AnswerCount(bar, 8, longest=10)
    draw(count, clock, 0, [2, 2, 5, 5])
    assert bar.total == 2, "two ended, and half of each of the others is not yet a whole answer behind the newest token"
    draw(count, clock, 4, [1, 1])
    assert bar.total == 4, "a shorter answer begins a batch, so all of the one before ended"
    assert bar.values == "2 tokens/s"


def test_all_answers_count_only_when_they_are_stored(clock: SimpleNamespace) -> None:
    bar = Bar()
    count = AnswerCount(bar, 2, longest=4)
    draw(count, clock, 0, [4, 4])
    assert bar.total == 1
    count.finish()
    assert bar.total == 2


def test_an_engine_that_tells_nothing_still_ends_with_all(clock: SimpleNamespace) -> None:
    bar = Bar()
    AnswerCount(bar, 3, longest=4).finish()
    assert (bar.total, bar.values) == (3, "")
