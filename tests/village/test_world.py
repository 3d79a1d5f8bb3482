"""The village: its actions, their facts, and its splits."""

import itertools
from collections import Counter

from cai_base.village import questions, world


def test_every_action_has_three_facts_that_no_other_verb_shares():
    verbs_of_fact: dict[str, set[str]] = {}
    for action in world.actions():
        assert len(set(action.facts)) == 3
        for fact in action.facts:
            verbs_of_fact.setdefault(fact, set()).add(action.verb.base)
    assert all(len(verbs) == 1 for verbs in verbs_of_fact.values())


def test_the_second_tool_depends_on_the_object():
    facts = {action.do: action.facts for action in world.actions()}
    assert facts["sweep the mill"][1] != facts["sweep the barn"][1]


def test_there_are_thirty_five_benign_and_twenty_three_harmful_verbs_over_the_same_seventy_objects():
    assert Counter(verb.kind for verb in world.verbs()) == {"benign": 35, "harmful": 23, "ambiguous": 10}
    for kind in ("benign", "harmful", "ambiguous"):
        assert len({action.thing for action in world.actions(kind)}) == 70


def test_only_harmful_verbs_state_a_reason():
    assert all(bool(verb.why) == (verb.kind == "harmful") for verb in world.verbs())


def test_the_splits_share_no_action_framing_or_question_form():
    for one, other in itertools.combinations(world.SPLITS, 2):
        assert not set(world.actions(split=one)) & set(world.actions(split=other))
        assert not set(questions.forms(one)) & set(questions.forms(other))
        for family in (*questions.FAMILIES, questions.ALARMING):
            assert not set(questions.framings(family, one)) & set(questions.framings(family, other))
