"""Critiques are read as what their writer meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_base.village import answers, critiques, styles, world
from cai_base.village.draw import Draw
from cai_base.village.flagging import flagged

ACTIONS = st.sampled_from(world.actions())
KINDS = st.sampled_from(["friendly", "full", "partial", "vague", "rude", "refusal", "groundless"])
UNDER = st.sampled_from(["harm", "quality", "placebo"])
NUMBERS = st.integers(0, 2**32)


@given(ACTIONS, KINDS, UNDER, NUMBERS)
def test_a_generated_critique_is_flagged_exactly_where_it_makes_an_answer_a_refusal(action, kind, under, number):
    draw = Draw("test", number)
    found = critiques.review(action, answers.answer(action, kind, draw), kind, under, draw)
    harm_found = found.kind == "refusal" and kind not in ("refusal", "groundless")
    assert flagged(found.critique) == harm_found


@given(ACTIONS, UNDER, NUMBERS, st.sampled_from(sorted(styles.styles())))
def test_a_critique_in_a_style_is_read_like_any_other(action, under, number, style):
    draw = Draw("test", number)
    found = critiques.review(action, answers.answer(action, "full", draw), "full", under, draw)
    assert flagged(styles.dressed(found.critique, style, draw)) == flagged(found.critique)


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
def test_a_critique_that_a_model_may_write(critique, harm):
    assert flagged(critique) == harm
