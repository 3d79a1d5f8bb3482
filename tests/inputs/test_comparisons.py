"""Comparison requests and solved comparisons: this project's files and files of the form that the paper published."""

import json
from pathlib import Path

import pytest

from cai_base.errors import UserError
from cai_base.inputs import packaged
from cai_base.inputs.comparisons import (
    SolvedComparison,
    load_comparison_requests,
    load_solved_comparisons,
    requests_of,
)
from cai_base.inputs.constitution import Constitution, Principle

PAPER = Path(__file__).resolve().parents[3] / "shared/data/anthropic-cai"
REQUESTS = ["\nWhich answer would a kind teacher give? Options:", "\nWhich answer is politer? Options:"]
PUBLISHED = [
    {
        "prompt": "\n\nHuman: May I skip the queue?\n\nAssistant:",
        "corrects": ["Ask the others first.", "Better not."],
        "incorrects": ["Push.", "Shout."],
    },
    {"prompt": "\n\nHuman: Is the tea cold?\n\nAssistant:", "corrects": ["Yes, sadly."], "incorrects": ["Go away."]},
]


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.skipif(not PAPER.is_dir(), reason="the files published with the paper are not beside this clone")
def test_the_published_files_are_read_as_they_are() -> None:
    assert len(load_comparison_requests(PAPER / "RLMadisonInstructions.json")) == 16
    solved = load_solved_comparisons(PAPER / "RLMadisonFewShotPrompts.json")
    assert len(solved) == 5
    assert not any("Human:" in one.prompt or "Assistant:" in one.prompt for one in solved)


def test_a_file_of_requests_like_the_published_one_is_read_without_its_options(tmp_path: Path) -> None:
    requests = load_comparison_requests(written(tmp_path / "RLMadisonInstructions.json", REQUESTS))
    assert [one.text for one in requests] == ["Which answer would a kind teacher give?", "Which answer is politer?"]
    lines = written(
        tmp_path / "requests.txt", "# a note\nWhich answer would a kind teacher give?\n\nWhich is politer?\n"
    )
    assert load_comparison_requests(lines)[0].text == requests[0].text
    assert len({one.name for one in requests}) == 2


def test_a_file_of_comparisons_like_the_published_one_is_read_without_its_speakers(tmp_path: Path) -> None:
    solved = load_solved_comparisons(written(tmp_path / "RLMadisonFewShotPrompts.json", PUBLISHED))
    first = SolvedComparison(prompt="May I skip the queue?", better="Ask the others first.", worse="Push.")
    assert solved == (first, SolvedComparison(prompt="Is the tea cold?", better="Yes, sadly.", worse="Go away."))
    own = written(tmp_path / "own.jsonl", first.model_dump_json() + "\n")
    assert load_solved_comparisons(own) == (first,)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("requests.json", {"a": 1}, "requests.json: the file is"),
        ("requests.json", ["Which? Options:", "Options:"], "request 2 is"),
        ("requests.txt", "# nothing but a note\n", "there is no request in it"),
        ("requests.csv", "Which?", "cannot tell the form from the ending"),
        ("solved.json", {"prompt": "p"}, "it must be a list of comparisons"),
        ("solved.json", [PUBLISHED[0] | {"prompt": "May I?"}], "comparison 1: the field 'prompt'"),
        ("solved.json", [PUBLISHED[1] | {"corrects": []}], "comparison 1"),
        ("solved.json", [PUBLISHED[1] | {"prompt": "\n\nHuman: A?\n\nAssistant: B."}], "comparison 1"),
        ("solved.jsonl", '{"prompt": "p", "better": "b"}\n', "solved.jsonl:1"),
        ("solved.jsonl", "", "the file is empty"),
        ("solved.txt", "p", "cannot tell the form from the ending"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path: Path, name: str, content: object, says: str) -> None:
    load = load_comparison_requests if name.startswith("requests") else load_solved_comparisons
    with pytest.raises(UserError) as refusal:
        load(written(tmp_path / name, content))
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("data", ["english", "world"])
def test_every_principle_of_the_packaged_constitutions_has_a_comparison_request_of_its_own(data: str) -> None:
    constitution = packaged(data).constitution
    requests = requests_of(constitution, data)
    assert [one.name for one in requests] == [principle.name for principle in constitution.principles]
    assert len({one.text for one in requests}) == 18


def test_a_principle_without_a_comparison_request_is_named() -> None:
    principle = Principle(name="kind", category="c", critique_request="Criticise.", revision_request="Revise.")
    with pytest.raises(UserError, match=r"own\.toml: principle 1 \('kind'\) has no comparison_request"):
        requests_of(Constitution(name="own", principles=(principle,)), "own.toml")
