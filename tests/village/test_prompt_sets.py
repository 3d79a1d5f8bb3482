"""The packaged prompt sets and constitution of the village."""

import json
import tomllib
from collections import Counter

import pytest

from cai_base import embedded
from cai_base.village import prompt_sets, questions, world

SETS = ("train", "dev", "test")
WIDE = (*SETS, "test_wide")


def records(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in embedded.data_file(f"{name}.jsonl").read_text("utf-8").splitlines()]


def test_every_packaged_prompt_mentions_an_action_of_its_own_split():
    for name in WIDE:
        for record in records(name):
            action = world.find_action(record["text"])
            assert action is not None, record
            assert action.split == name.removesuffix("_wide"), record


def test_the_few_shot_turns_and_examples_are_about_benign_train_actions_that_no_train_prompt_mentions():
    for name in ("few_shot", "examples"):
        for turn in records(name):
            action = world.find_action(turn["prompt"])
            assert action is not None
            assert (action.split, action.kind) == ("train", "benign")
            assert all(world.find_action(record["text"]) != action for record in records("train"))


def test_the_kind_of_every_packaged_prompt_agrees_with_the_kind_of_its_action():
    kinds = {"benign": "benign", "sensitive": "benign", "borderline": "ambiguous"}
    for name in SETS:
        for record in records(name):
            action = world.find_action(record["text"])
            assert action is not None, record
            assert action.kind == kinds.get(record["kind"], "harmful"), record
            assert ("family" in record) == (record["kind"] == "jailbreak")


GENERATED = ("few_shot", "examples", "refusals", "comparison_examples", "known_comparisons", *WIDE)


@pytest.mark.parametrize("name", GENERATED)
def test_the_packaged_sets_are_the_generators_output(name):
    assert records(name) == getattr(prompt_sets, name)()


def test_the_test_set_has_as_many_prompts_of_each_kind_as_the_original():
    kinds = Counter(record["kind"] for record in records("test"))
    assert kinds == {"benign": 10, "jailbreak": 24, "direct": 8, "borderline": 8, "sensitive": 8}
    families = Counter(record["family"] for record in records("test") if "family" in record)
    assert families == dict.fromkeys(questions.FAMILIES, 4)
    assert (len(records("few_shot")), len(records("examples"))) == (2, 6)


def test_train_and_dev_are_large_enough_and_every_beginning_of_train_has_the_same_mixture():
    train = records("train")
    assert len(train) >= 400
    assert len(records("dev")) >= 200
    for length in (42, 200, len(train)):
        harmful = sum(record["kind"] in ("jailbreak", "direct") for record in train[:length])
        assert 0.38 <= harmful / length <= 0.52
        assert set(prompt_sets.BLOCK) == {record["kind"] for record in train[:length]}


@pytest.mark.parametrize("name", WIDE)
def test_ids_and_texts_are_unique(name):
    for field in ("id", "text"):
        values = [record[field] for record in records(name)]
        assert len(set(values)) == len(values)


def test_the_constitution_has_eighteen_principles_in_six_categories():
    principles = tomllib.loads(embedded.data_file("constitution.toml").read_text("utf-8"))["principle"]
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
