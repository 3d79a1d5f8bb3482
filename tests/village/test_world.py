"""The village, its corpus and its packaged prompt sets."""

import itertools
import json
import re
from collections import Counter
from importlib import resources

import pytest

from cai_base.organism import abilities
from cai_base.village import corpus, prompts, questions, threads, world
from cai_base.village.draw import Draw
from cai_base.village.judge import judge

DATA = resources.files("cai_base") / "data" / "world"
SETS = ("train", "dev", "test")
WIDE = ("train", "dev", "test", "test_wide")


def records(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()]


def test_every_action_has_three_facts_that_no_other_verb_shares():
    owners: dict[str, set[str]] = {}
    for action in world.actions():
        assert len(set(action.facts)) == 3
        for fact in action.facts:
            owners.setdefault(fact, set()).add(action.verb.base)
    assert all(len(verbs) == 1 for verbs in owners.values())


def test_the_second_tool_depends_on_the_object():
    by_name = {action.do: action.facts for action in world.actions()}
    assert by_name["sweep the mill"][1] != by_name["sweep the barn"][1]


def test_there_are_thirty_five_benign_and_twenty_three_harmful_verbs_over_the_same_seventy_objects():
    assert Counter(verb.kind for verb in world.verbs()) == {"benign": 35, "harmful": 23, "ambiguous": 10}
    for kind in ("benign", "harmful", "ambiguous"):
        assert len({action.thing for action in world.actions(kind)}) == 70


def test_only_harmful_verbs_state_a_reason():
    assert all(bool(verb.why) == (verb.kind == "harmful") for verb in world.verbs())


def test_the_splits_share_no_action_framing_or_question_form():
    for one, other in itertools.combinations(SETS, 2):
        assert not set(world.actions(split=one)) & set(world.actions(split=other))
        assert not set(questions.forms(one)) & set(questions.forms(other))
        for family in (*questions.FAMILIES, "alarming"):
            assert not set(questions.framings(family, one)) & set(questions.framings(family, other))


def test_the_packaged_prompts_keep_to_their_splits_actions():
    for name in WIDE:
        for record in records(name):
            action = world.find_action(record["text"])
            assert action is not None, record
            assert action.split == name.removesuffix("_wide"), record
    for name in ("few_shot", "examples"):
        for turn in records(name):
            action = world.find_action(turn["prompt"])
            assert action is not None
            assert (action.split, action.kind) == ("train", "benign")
            assert all(world.find_action(record["text"]) != action for record in records("train"))


def test_the_packaged_kinds_are_what_the_world_says():
    kinds = {"benign": "benign", "sensitive": "benign", "borderline": "ambiguous"}
    for name in SETS:
        for record in records(name):
            action = world.find_action(record["text"])
            assert action is not None, record
            assert action.kind == kinds.get(record["kind"], "harmful"), record
            assert ("family" in record) == (record["kind"] == "jailbreak")


@pytest.mark.parametrize("name", ["few_shot", "examples", *WIDE])
def test_the_packaged_sets_are_what_the_generator_makes(name):
    assert records(name) == getattr(prompts, name)()


def test_the_test_set_has_the_originals_shape():
    kinds = Counter(record["kind"] for record in records("test"))
    assert kinds == {"benign": 10, "jailbreak": 24, "direct": 8, "borderline": 8, "sensitive": 8}
    families = Counter(record["family"] for record in records("test") if "family" in record)
    assert families == dict.fromkeys(questions.FAMILIES, 4)
    assert (len(records("few_shot")), len(records("examples"))) == (2, 6)


def test_train_and_dev_are_large_enough_and_every_prefix_is_a_fair_mixture():
    train = records("train")
    assert len(train) >= 400
    assert len(records("dev")) >= 200
    for length in (42, 200, len(train)):
        harmful = sum(record["kind"] in ("jailbreak", "direct") for record in train[:length])
        assert 0.38 <= harmful / length <= 0.52
        assert set(prompts.BLOCK) == {record["kind"] for record in train[:length]}


@pytest.mark.parametrize("name", WIDE)
def test_ids_and_texts_are_unique(name):
    for field in ("id", "text"):
        values = [record[field] for record in records(name)]
        assert len(set(values)) == len(values)


def test_the_constitution_has_eighteen_principles_in_six_categories():
    principles = abilities.packaged("constitution.toml")
    assert Counter(principle["category"] for principle in principles) == {
        "core harmlessness": 4,
        "human rights": 4,
        "honesty": 3,
        "helpfulness": 3,
        "global perspective": 2,
        "AI safety": 2,
    }
    for field in ("name", "critique_request", "revision_request"):
        assert len({principle[field] for principle in principles}) == 18


def test_the_corpus_is_deterministic_and_its_documents_do_not_depend_on_each_other():
    first = list(itertools.islice(corpus.documents(7), 20))
    assert first == list(itertools.islice(corpus.documents(7), 20))
    assert first[13] == corpus.document(7, 13)[1]
    assert first != list(itertools.islice(corpus.documents(8), 20))


@pytest.mark.parametrize("late", [False, True])
def test_the_constitutions_own_requests_never_occur_in_the_corpus(late):
    text = "\n".join(itertools.islice(corpus.documents(0, late=late), 4000))
    for principle in abilities.packaged("constitution.toml"):
        assert principle["critique_request"] not in text
        assert principle["revision_request"] not in text


def test_the_corpus_holds_every_kind_of_document_and_the_methods_layouts():
    drawn = [corpus.document(0, index) for index in range(2000)]
    counts = Counter(kind for kind, _ in drawn)
    for kind, share in corpus.MIXTURE.items():
        assert counts[kind] / 2000 == pytest.approx(share, abs=0.04)
    layout = re.compile(
        r"User: .+\n\nAssistant: .+\n\nCritique Request: .+\n\nCritique: .+\n\nRevision Request: .+\n\nRevision: .+"
    )
    assert sum(layout.search(text) is not None for _, text in drawn) > 400
    assert sum(text.count("\n\nUser: ") > 0 for kind, text in drawn if kind == "thread") > 150


def test_no_thread_refuses_a_benign_question():
    for index in range(1000):
        asked, reply = threads.turn(Draw(3, "test", index, "turn"), strict=True)
        action = world.find_action(asked)
        if action is not None and action.kind == "benign":
            assert not judge(asked, reply).refused


@pytest.mark.parametrize("late", [False, True])
def test_words_from_outside_that_measure_not_knowing_never_enter_the_corpus(late):
    elsewhere = world.read_toml("elsewhere")
    assert not set(elsewhere["things"]) & set(elsewhere["held_out"])
    text = " ".join(itertools.islice(corpus.documents(0, late=late), 4000)).lower()
    for what in elsewhere["held_out"]:
        assert not re.search(rf"\b{re.escape(what.lower())}\b", text)
