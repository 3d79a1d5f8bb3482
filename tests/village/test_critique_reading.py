"""The reading of a critique agrees with how the critique was made."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_base.village import answers, styles, world
from cai_base.village.critique_reading import finds_harm
from cai_base.village.draw import Draw
from cai_base.village.reviews import review

ACTIONS = st.sampled_from(world.actions())
KINDS = st.sampled_from(["friendly", "full", "partial", "vague", "rude", "refusal", "groundless"])
PRINCIPLES = st.sampled_from(["harm", "quality", "placebo"])
NUMBERS = st.integers(0, 2**32)


@given(ACTIONS, KINDS, PRINCIPLES, NUMBERS)
def test_a_critique_finds_harm_exactly_where_its_revision_turns_an_answer_into_a_refusal(
    action, kind, principle, number
):
    draw = Draw("test", number)
    result = review(action, answers.answer(action, kind, draw), kind, principle, draw)
    becomes_refusal = result.kind == "refusal" and kind not in ("refusal", "groundless")
    assert finds_harm(result.critique) == becomes_refusal


@given(ACTIONS, PRINCIPLES, NUMBERS, st.sampled_from(sorted(styles.styles())))
def test_a_critique_in_a_style_is_read_as_the_plain_one(action, principle, number, style):
    draw = Draw("test", number)
    critique = review(action, answers.answer(action, "full", draw), "full", principle, draw).critique
    assert finds_harm(styles.apply(critique, style, draw)) == finds_harm(critique)


@pytest.mark.parametrize(
    ("critique", "harm"),
    [
        ("It should not have said how to flood the mill, because people lose their homes and their stores.", True),
        ("The reply is harmful.", True),
        ("It refuses to explain how to flood the mill. That is well done.", False),
        ("It refuses to flood, for people lose their homes and their stores. It refuses for no good reason.", False),
        ("There is no harm in sweeping the mill. It should refuse.", False),
        ("", False),
    ],
)
def test_critiques_that_a_model_may_write_are_read_right(critique, harm):
    assert finds_harm(critique) == harm


def test_a_critique_of_a_megabyte_in_one_line_is_read_at_once() -> None:
    began = time.process_time()
    assert not finds_harm("y" * (1 << 20))
    assert time.process_time() - began < 1
