"""Constitutions: the packaged one, the file formats, and the messages for malformed files."""

import json
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cai_base import embedded
from cai_base.errors import UserError
from cai_base.inputs import gather, packaged
from cai_base.inputs.constitution import Constitution, Principle, load_constitution
from cai_base.settings.command_line import load_settings

PACKAGED = Path(str(files("cai_base") / "data" / "english" / "constitution.toml"))
PUBLISHED = Path(__file__).resolve().parents[3] / "shared/data/anthropic-cai/CritiqueRevisionInstructions.json"

KIND = {
    "name": "be-kind",
    "category": "manners",
    "critique_request": "Is it rude?",
    "revision_request": "Make it kind.",
}
TRUE = {
    "name": "be-true",
    "category": "honesty",
    "critique_request": "Is it false?",
    "revision_request": "Make it true.",
}
PAPER_FORM = {
    "harmful0": {
        "prompt": ["\n\nCritiqueRequest: Is it rude?\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Make it kind.\n\nRevision:",
    },
    "harmful1": {
        "prompt": ["\n\nCritiqueRequest: Is it false?\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Make it true.\n\nRevision:",
    },
}

# The file published with the paper, where it is at hand, is read beside one in its form.
PAPER_TEXTS = [json.dumps(PAPER_FORM), *(path.read_text() for path in [PUBLISHED] if path.exists())]


def as_toml(*tables: Mapping[str, object]) -> str:
    lines = []
    for table in tables:
        lines += ["[[principle]]", *(f"{field} = {json.dumps(value)}" for field, value in table.items())]
    return "\n".join(lines)


def without(table: dict[str, str], field: str) -> dict[str, str]:
    return {key: value for key, value in table.items() if key != field}


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_constitution(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


def test_the_packaged_constitution_has_18_principles_in_six_categories() -> None:
    constitution = load_constitution(PACKAGED)
    assert constitution.name == "english"
    assert Counter(principle.category for principle in constitution.principles) == {
        "core harmlessness": 4,
        "human rights": 4,
        "honesty": 3,
        "helpfulness": 3,
        "global perspective": 2,
        "AI safety": 2,
    }


def test_every_packaged_critique_request_allows_the_answer_that_there_is_no_fault() -> None:
    for principle in load_constitution(PACKAGED).principles:
        assert "say" in principle.critique_request.lower(), principle.name
        assert "\n" not in principle.critique_request + principle.revision_request, principle.name


def test_packaged_principles_have_names_that_can_stand_in_a_table_and_texts_of_their_own() -> None:
    principles = load_constitution(PACKAGED).principles
    assert all(set(principle.name) <= set("abcdefghijklmnopqrstuvwxyz-") for principle in principles)
    assert len({principle.critique_request for principle in principles}) == len(principles)
    assert len({principle.revision_request for principle in principles}) == len(principles)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.toml", as_toml(KIND, TRUE)),
        ("mine.TOML", as_toml(KIND, TRUE)),
        ("mine.toml", as_toml(KIND, TRUE).replace("[[principle]]", "[[principles]]")),
        ("mine.toml", "\ufeff" + as_toml(KIND, TRUE).replace("\n", "\r\n")),
        ("mine.json", [KIND, TRUE]),
        ("mine.json", {"principle": [KIND, TRUE]}),
        ("mine.json", {"principles": [KIND, TRUE]}),
        ("mine.json", "\ufeff" + json.dumps([KIND, TRUE], indent=2).replace("\n", "\r\n")),
        ("mine.json", [{field: f"  {value}\n" for field, value in KIND.items()}, TRUE]),
    ],
)
def test_every_form_of_the_same_constitution_reads_the_same(tmp_path: Path, name: str, content: object) -> None:
    constitution = load_constitution(write(tmp_path, name, content))
    assert constitution == Constitution(name="mine", principles=(Principle(**KIND), Principle(**TRUE)))


def test_a_constitution_may_name_itself(tmp_path: Path) -> None:
    assert load_constitution(write(tmp_path, "a.toml", 'name = "village"\n' + as_toml(KIND))).name == "village"
    assert load_constitution(write(tmp_path, "a.json", {"name": "village", "principles": [KIND]})).name == "village"


def test_the_digest_depends_on_the_principles_and_their_order_and_not_on_the_file(tmp_path: Path) -> None:
    one = load_constitution(write(tmp_path, "one.toml", as_toml(KIND, TRUE))).digest
    assert one == load_constitution(write(tmp_path, "two.json", [TRUE | KIND, TRUE])).digest
    assert one != load_constitution(write(tmp_path, "three.json", [TRUE, KIND])).digest
    assert one != load_constitution(write(tmp_path, "four.json", [KIND | {"category": "x"}, TRUE])).digest
    assert len(one) == 64


def test_the_paper_form_gives_bare_requests(tmp_path: Path) -> None:
    constitution = load_constitution(write(tmp_path, "paper.json", PAPER_FORM))
    assert constitution.name == "paper"
    assert [principle.model_dump(exclude_none=True) for principle in constitution.principles] == [
        KIND | {"name": "harmful0", "category": "harmful"},
        TRUE | {"name": "harmful1", "category": "harmful"},
    ]


def test_several_critique_requests_under_one_paper_name_become_one_principle_each(tmp_path: Path) -> None:
    entry = {"prompt": ["Critique Request: Rude?\n\nCritique:", "False?"], "edit_request": "Mend it."}
    first, second = load_constitution(write(tmp_path, "paper.json", {"harmful0": entry})).principles
    assert (first.name, first.critique_request, first.revision_request) == ("harmful0-1", "Rude?", "Mend it.")
    assert (second.name, second.critique_request, second.revision_request) == ("harmful0-2", "False?", "Mend it.")


@pytest.mark.parametrize("text", PAPER_TEXTS)
def test_every_entry_of_a_file_like_the_published_one_becomes_a_principle_without_headers(
    tmp_path: Path, text: str
) -> None:
    constitution = load_constitution(write(tmp_path, "paper.json", text))
    assert [principle.name for principle in constitution.principles] == list(json.loads(text))
    for principle in constitution.principles:
        requests = principle.critique_request + principle.revision_request
        assert not any(header in requests for header in ("Request:", "Critique:", "Revision:"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.toml", as_toml(KIND, without(TRUE, "category")), [": principle 2 ('be-true')", "'category' is missing"]),
        (
            "a.toml",
            as_toml(KIND, without(TRUE, "name")),
            [": principle 2:", "'name' is missing", "comparison_request (optional)"],
        ),
        (
            "a.toml",
            as_toml(without(KIND, "critique_request") | {"critque_request": "?"}),
            [": principle 1 ('be-kind')", "unknown field 'critque_request'", "did you mean 'critique_request'?"],
        ),
        (
            "a.toml",
            as_toml(KIND | {"weight": 3}),
            ["unknown field 'weight'", "are name, category", "comparison_request (optional)"],
        ),
        ("a.toml", as_toml(KIND | {"category": 3}), ["'category' is a number; it must be text"]),
        ("a.toml", as_toml(KIND | {"category": True}), ["'category' is true or false; it must be text"]),
        ("a.toml", as_toml(KIND | {"category": ["x"]}), ["'category' is a list; it must be text"]),
        ("a.toml", as_toml(KIND | {"revision_request": "  "}), ["'revision_request' is empty"]),
        ("a.toml", as_toml(KIND, TRUE, KIND), [": principles 1 and 3 are both named 'be-kind'", "a name of its own"]),
        ("a.toml", as_toml(KIND) + "\nname = = 3", [":6: not valid TOML: the value is missing"]),
        ("a.toml", "[[principle]]\nname = 'x", [":2: not valid TOML"]),
        ("a.toml", as_toml(KIND).replace("[[principle]]", "[principle]"), [": principle is a table", "[[principle]]"]),
        (
            "a.toml",
            as_toml(KIND).replace("[[principle]]", "[[princple]]"),
            [":1: unknown key 'princple'", "'principle'?"],
        ),
        ("a.toml", "principle = []", ["the list of principles is empty"]),
        ("a.toml", "principle = ['be kind']", [": principle 1: this is 'be kind'", "a table of fields: name"]),
        ("a.toml", 'name = "x"', ["there is no principle", "[[principle]]"]),
        ("a.toml", "# nothing yet\n", ["there is no principle"]),
        ("a.toml", "name = 3\n" + as_toml(KIND), ["'name' is a number; it must be text"]),
        ("a.toml", f"name = {'[' * 5000}", ["nested too deeply"]),
        ("a.toml", f"name = {'9' * 5000}", ["not valid TOML"]),
        ("a.toml", "", ["the file is empty", "[[principle]]"]),
        ("a.json", " \n\n", ["the file is empty", "[[principle]]"]),
        ("a.json", "[\n{'name': 1}]", [":2: not valid JSON", "double quotes"]),
        ("a.json", "[", [":1: not valid JSON"]),
        ("a.json", "[" * 100_000, ["nested too deeply"]),
        ("a.json", "9" * 5000, ["not valid JSON"]),
        ("a.json", "3", [": the file is a number; it must be a list"]),
        ("a.json", "null", [": the file is null; it must be a list"]),
        ("a.json", [], ["the list of principles is empty"]),
        ("a.json", {}, ["there is no principle"]),
        ("a.json", [KIND, "x"], [": principle 2: this is 'x'"]),
        ("a.json", [KIND | {"name": None}], [": principle 1:", "'name' is null; it must be text"]),
        ("a.json", [KIND | {"name": "\ud800"}], [": principle 1 ('\\ud800')", "'name' is", "unicode"]),
        ("a.json", [KIND | {"\x1b[31m": "x"}], ["unknown field '\\x1b[31m'"]),
        ("a.json", {"principles": [KIND], "principle": [TRUE]}, ["both 'principle' and 'principles'"]),
        ("a.json", {"principles": {"be-kind": KIND}}, [": principle is a table of fields; it must be a list"]),
        ("a.json", {"harmful0": {"prompt": ["x"]}}, [": principle 1 ('harmful0')", "'edit_request' is missing"]),
        ("a.json", PAPER_FORM | {"harmful1": 3}, [": principle 2 ('harmful1')", "a number", "prompt and edit_request"]),
        ("a.json", {"h": {"prompt": "x", "edit_request": "y"}}, ["'prompt' is 'x'; it must be a list"]),
        ("a.json", {"h": {"prompt": [], "edit_request": "y"}}, ["'prompt' is a list", "that is not empty"]),
        ("a.json", {"h": {"prompt": [""], "edit_request": "y"}}, ["'prompt' is empty; it must be text"]),
        (
            "a.json",
            {"h": {"prompt": ["\n\nCritiqueRequest: \n\nCritique:"], "edit_request": "y"}},
            [": principle 1 ('h')", "'critique_request' is empty"],
        ),
        ("a.json", '{"h": {"prompt": ["x"], "prompt": ["y"]}}', ["the key 'prompt' occurs twice"]),
        ("a.yaml", "principle: []", ["the ending '.yaml'", ".toml", ".json"]),
        ("constitution", as_toml(KIND), ["the ending ''", ".toml", ".json"]),
    ],
)
def test_a_malformed_constitution_is_refused_with_one_line_that_says_where_and_what(
    tmp_path: Path, name: str, content: object, expected: list[str]
) -> None:
    message = refusal(write(tmp_path, name, content))
    for part in expected:
        assert part in message


def test_a_file_that_is_missing_or_a_directory_or_not_text_is_refused(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "none.toml")
    assert "this is a directory" in refusal(tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes('name = "x"\ncategory = "café"\n'.encode("latin-1"))
    assert refusal(latin) == ":2: not UTF-8 text (byte 0xe9); save it as UTF-8"
    assert "cannot be read" in refusal(tmp_path / "a\0b.toml")


def test_a_long_value_is_cut_short_in_the_message(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "a.json", ["x" * 10_000]))
    assert len(message) < 300


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".toml", ".json"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_random_bytes_are_refused_and_never_crash(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"random{suffix}"
    path.write_bytes(data)
    with pytest.raises(UserError):
        load_constitution(path)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*KIND, "prompt", "edit_request", "principle", "principles"]) | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(value=JSON_VALUES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_json_is_read_or_refused_and_never_crashes(tmp_path: Path, value: object) -> None:
    path = write(tmp_path, "random.json", value)
    try:
        constitution = load_constitution(path)
    except UserError:
        return
    assert constitution.principles


@pytest.mark.parametrize("model", ["organism", "some/model"])
def test_the_packaged_placebo_constitution_goes_by_its_name_in_either_language(model: str) -> None:
    judged = [] if model == "organism" else ["--judge", "none"]
    placebo, usual = (
        gather(load_settings(["--model", model, *judged, *flags])[0]).constitution
        for flags in (["--constitution", "placebo"], [])
    )
    assert len(placebo.principles) >= 8
    assert placebo.name.endswith("placebo")
    requests = [text.lower() for one in placebo.principles for text in (one.critique_request, one.revision_request)]
    assert len(set(requests)) == len(requests)
    assert not any(word in request for request in requests for word in ("harm", "wrong", "safe", "refus", "help"))
    assert not {one.category for one in placebo.principles} & {one.category for one in usual.principles}


@pytest.mark.parametrize("model", ["organism", "some/model"])
def test_requests_that_name_no_principle_go_by_their_name_and_are_those_of_the_control(model: str) -> None:
    judged = [] if model == "organism" else ["--judge", "none"]
    flags = ["--model", model, *judged]
    named = gather(load_settings([*flags, "--constitution", "no-principle"])[0]).constitution
    assert named == gather(load_settings([*flags, "--control", "examples-only"])[0]).no_principle
    assert len(named.principles) == 1


def test_principles_can_be_chosen_or_left_out_by_name() -> None:
    def names(*principles: str) -> list[str]:
        run = load_settings(["--principles", ",".join(principles)]).settings
        return [one.name for one in gather(run).constitution.principles]

    every = [one.name for one in packaged(embedded.DATA).constitution.principles]
    assert names("clear", "no-harm") == ["no-harm", "clear"]
    assert names("not:no-harm") == every[1:]
    for wrong, message in (
        ("no-ham", "--principles: unknown principle 'no-ham'; did you mean 'no-harm'"),
        ("clear,not:no-harm", "name what is used, or what is left out, not both"),
    ):
        with pytest.raises(UserError, match=message):
            names(wrong)
