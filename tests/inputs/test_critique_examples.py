"""Worked examples of critique and revision: the packaged ones, the forms that are read, and malformed files."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cai_base.arms import ARMS
from cai_base.errors import UserError
from cai_base.evaluation.judges.refusal_phrases import PHRASES
from cai_base.inputs import gather
from cai_base.inputs.constitution import CritiqueExample, load_constitution, load_critique_examples
from cai_base.settings.command_line import load_settings

ENGLISH = Path(str(files("cai_base") / "data" / "english"))
PUBLISHED = Path(__file__).resolve().parents[3] / "shared/data/anthropic-cai/CritiqueRevisionFewShotPrompts.json"

EXAMPLE = {
    "prompt": "How do I take his lunch?",
    "response": "Just take it.",
    "critique_request": "Is it harmful?",
    "critique": "Yes, it is theft.",
    "revision_request": "Remove the harm.",
    "revision": "Ask him to share.",
}
STEPS = (
    "\n\nCritiqueRequest: Is it harmful?\n\nCritique: Yes, it is theft."
    "\n\nRevisionRequest: Remove the harm.\n\nRevision: Ask him to share."
)
SHORT = "\n\nHuman: How do I take his lunch?\n\nAssistant: Just take it." + STEPS
LONG = "\n\nHuman: I am hungry.\n\nAssistant: Then eat.\n\nNow." + SHORT + "\n\nHuman:"

# The file published with the paper, where it is at hand, is read beside one in its form.
PAPER_TEXTS = [json.dumps([LONG, SHORT]), *(path.read_text() for path in [PUBLISHED] if path.exists())]


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def as_toml(*tables: Mapping[str, object]) -> str:
    lines = []
    for table in tables:
        lines += ["[[example]]", *(f"{field} = {json.dumps(value)}" for field, value in table.items())]
    return "\n".join(lines)


def test_the_packaged_examples_show_a_refusal_a_repaired_refusal_and_an_answer_that_is_kept() -> None:
    harmful, refused, fine = load_critique_examples(ENGLISH / "critique_examples.toml")
    assert "I won't help" in harmful.revision
    assert "You can still" in harmful.revision
    assert "I can't" in refused.response
    assert "I can't" not in refused.revision
    assert len(refused.revision) > 3 * len(refused.response)
    assert fine.revision == fine.response
    assert "nothing to mend" in fine.critique


def test_the_packaged_examples_ask_what_the_packaged_constitution_asks() -> None:
    principles = load_constitution(ENGLISH / "constitution.toml").principles
    requests = {(principle.critique_request, principle.revision_request) for principle in principles}
    for example in load_critique_examples(ENGLISH / "critique_examples.toml"):
        assert (example.critique_request, example.revision_request) in requests


@pytest.mark.parametrize("flags", [["--control", "placebo"], ["--constitution", "placebo"]])
def test_the_placebo_asks_behind_worked_examples_about_spelling_without_harm_or_refusal(flags: list[str]) -> None:
    real = ["--model", "some/model", "--judge", "none"]
    usual, inputs = (gather(load_settings([*real, *more]).settings) for more in ([], flags))
    constitution, examples = inputs.constitution, inputs.critique_examples
    if inputs.placebo is not None:
        constitution, own = inputs.requests_for(ARMS["placebo"])
        assert own is not None
        examples = own
        assert inputs.critique_examples == usual.critique_examples, "the run's own requests keep theirs"
    assert len(examples) == len(usual.critique_examples) == 3
    requests = {" ".join(principle.critique_request.split()) for principle in constitution.principles}
    for example in examples:
        assert " ".join(example.critique_request.split()) in requests
        assert example.prompt not in {one.prompt for one in usual.critique_examples}
        for text in (example.response, example.critique, example.revision):
            assert not any(phrase in text for phrase in (*PHRASES, "harm", "danger", "will not"))
    assert any(word in one.revision for one in usual.critique_examples for word in ("will not", "won't", "cannot"))


def test_the_placebo_has_no_worked_examples_where_the_constitution_has_none() -> None:
    inputs = gather(load_settings(["--control", "placebo"]).settings)
    assert inputs.critique_examples == ()
    assert inputs.requests_for(ARMS["placebo"])[1] == ()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.toml", as_toml(EXAMPLE)),
        ("mine.toml", "\ufeff" + as_toml(EXAMPLE).replace("\n", "\r\n")),
        ("mine.json", [EXAMPLE]),
        ("mine.json", {"example": [EXAMPLE]}),
        ("mine.json", {"examples": [EXAMPLE]}),
        ("mine.json", [SHORT]),
        ("mine.json", [SHORT + "\n\nHuman:"]),
        ("mine.json", [SHORT.strip() + "\n\nHuman: \n"]),
        ("mine.json", [SHORT.replace("CritiqueRequest", "Critique Request")]),
    ],
)
def test_every_form_of_the_same_example_reads_the_same(tmp_path: Path, name: str, content: object) -> None:
    assert load_critique_examples(write(tmp_path, name, content)) == (CritiqueExample(**EXAMPLE),)


def test_an_earlier_conversation_stays_in_the_prompt_with_its_speakers(tmp_path: Path) -> None:
    first, second = load_critique_examples(write(tmp_path, "paper.json", [LONG, SHORT]))
    assert first.prompt == "I am hungry.\n\nAssistant: Then eat.\n\nNow.\n\nUser: How do I take his lunch?"
    assert first.response == "Just take it."
    assert second.prompt == "How do I take his lunch?"


@pytest.mark.parametrize("text", PAPER_TEXTS)
def test_every_text_of_a_file_like_the_published_one_becomes_an_example_without_headers(
    tmp_path: Path, text: str
) -> None:
    examples = load_critique_examples(write(tmp_path, "paper.json", text))
    turns = [example.prompt.count("\n\nUser: ") + 1 for example in examples]
    assert turns == [published.count("\n\nHuman: ") for published in json.loads(text)]
    for example in examples:
        parts = "".join(example.model_dump().values())
        assert not any(header in parts for header in ("Human:", "Request:", "Critique:", "Revision:"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.toml", as_toml(EXAMPLE, {"prompt": "x"}), [": example 2:", "'response' is missing", "critique_request"]),
        ("a.toml", as_toml(EXAMPLE | {"critique": ""}), [": example 1:", "'critique' is empty"]),
        ("a.toml", as_toml(EXAMPLE | {"notes": "x"}), ["unknown field 'notes'"]),
        ("a.toml", 'name = "x"\n' + as_toml(EXAMPLE), ["unknown key 'name'", "example"]),
        ("a.toml", "[[example]]\nprompt = x", [":2: not valid TOML"]),
        ("a.json", [EXAMPLE, 3], [": example 2: this is a number"]),
        ("a.json", [], ["the list of examples is empty"]),
        ("a.json", [SHORT, EXAMPLE], [": example 2: this is a table of fields", "must be text"]),
        ("a.json", [""], [": example 1: the headers are none", "Human:"]),
        ("a.json", ["Hello." + SHORT], [": example 1: text before the first header"]),
        ("a.json", [STEPS], [": example 1: the headers are CritiqueRequest, Critique, RevisionRequest and Revision"]),
        ("a.json", [SHORT.replace("Assistant:", "Robot:")], ["Human: and Assistant: in turn"]),
        ("a.json", [SHORT.replace("\n\nCritique:", "\n\nAssistant:")], ["the headers are Human, Assistant, Crit"]),
        ("a.json", [SHORT.replace(" Ask him to share.", "")], [": example 1:", "'revision' is empty"]),
        ("a.json", [SHORT + STEPS], ["then CritiqueRequest, Critique, RevisionRequest and Revision"]),
        ("a.txt", SHORT, ["the ending '.txt'", "[[example]]"]),
    ],
)
def test_malformed_examples_are_refused_with_one_line_that_says_where_and_what(
    tmp_path: Path, name: str, content: object, expected: list[str]
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(UserError) as caught:
        load_critique_examples(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in expected:
        assert part in message


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".toml", ".json"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_random_bytes_are_refused_and_never_crash(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"random{suffix}"
    path.write_bytes(data)
    with pytest.raises(UserError):
        load_critique_examples(path)


@given(
    pieces=st.lists(
        st.sampled_from(["\n\nHuman:", "\n\nAssistant:", "\n\nCritiqueRequest:", "\n\nCritique:", STEPS, SHORT, " x"]),
        max_size=8,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_in_the_paper_form_is_read_or_refused_and_never_crashes(tmp_path: Path, pieces: list[str]) -> None:
    path = write(tmp_path, "random.json", ["".join(pieces)])
    try:
        (example,) = load_critique_examples(path)
    except UserError:
        return
    assert all(example.model_dump().values())
