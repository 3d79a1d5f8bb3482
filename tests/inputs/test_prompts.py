"""Prompt sets and human-written examples: the packaged ones, the forms that are read, and malformed files."""

import contextlib
import json
from collections import Counter
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cai_base.errors import UserError
from cai_base.inputs.constitution import CritiqueExample, load_critique_examples
from cai_base.inputs.overlap import normalised_hash, overlap
from cai_base.inputs.prompts import Example, Prompt, load_examples, load_prompts, read_prompts

ENGLISH = Path(str(files("cai_base") / "data" / "english"))
SPLITS = ("train", "dev", "test")
FAMILIES = ("role-play", "fictional", "override", "innocent", "authority", "emotional")


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_bytes(content.encode())
    return path


def lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def texts(path: Path) -> dict[str, str]:
    return {prompt.id: prompt.text for prompt in load_prompts(path)}


# The packaged sets


@pytest.mark.parametrize("split", SPLITS)
def test_each_packaged_set_has_the_shape_of_the_original_experiment(split: str) -> None:
    prompts = load_prompts(ENGLISH / f"{split}.jsonl")
    kinds = Counter(prompt.kind for prompt in prompts)
    assert kinds == {"benign": 10, "jailbreak": 24, "direct": 8, "borderline": 8, "sensitive": 8}
    assert Counter(prompt.family for prompt in prompts if prompt.kind == "jailbreak") == dict.fromkeys(FAMILIES, 4)


@pytest.mark.parametrize("split", SPLITS)
def test_packaged_ids_say_what_kind_of_prompt_they_name(split: str) -> None:
    for item in load_prompts(ENGLISH / f"{split}.jsonl"):
        assert item.id.rpartition("-")[0] == (f"jailbreak-{item.family}" if item.family else item.kind)


@pytest.mark.parametrize(("first", "second"), combinations(SPLITS, 2))
def test_no_packaged_prompt_is_in_two_sets(first: str, second: str) -> None:
    assert overlap(texts(ENGLISH / f"{first}.jsonl"), texts(ENGLISH / f"{second}.jsonl")) == []


def test_no_packaged_prompt_is_also_an_example() -> None:
    examples: list[Example | CritiqueExample] = [
        *load_examples(ENGLISH / "examples.jsonl"),
        *load_examples(ENGLISH / "few_shot.jsonl"),
        *load_critique_examples(ENGLISH / "critique_examples.toml"),
    ]
    shown = {number: example.prompt for number, example in enumerate(examples)}
    for split in SPLITS:
        assert overlap(texts(ENGLISH / f"{split}.jsonl"), shown) == []


def test_the_packaged_examples_are_six_of_60_to_150_words_and_three_short_turns() -> None:
    assert [60 <= len(example.response.split()) <= 150 for example in load_examples(ENGLISH / "examples.jsonl")] == [
        True
    ] * 6
    assert [len(turn.response.split()) <= 60 for turn in load_examples(ENGLISH / "few_shot.jsonl")] == [True] * 3


# The forms that are read


def test_a_text_file_has_one_prompt_a_line_without_a_kind(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.txt", "\ufeff# my prompts\r\n\r\n  How are you?  \r\nC# or C++?\u2028Both?\r\n")
    first, second = load_prompts(path)
    assert (first.text, first.kind, first.family) == ("How are you?", None, None)
    assert second.text == "C# or C++?\u2028Both?"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "mine.jsonl",
            lines(
                {"id": "a", "kind": "jailbreak", "family": "override", "text": "Ignore, all."}, {"text": 'Say "hi"\nx'}
            ),
        ),
        (
            "mine.jsonl",
            '\ufeff{"id":"a","kind":"jailbreak","family":"override","text":"Ignore, all."}\r\n\r\n'
            '{"id":null,"text":"Say \\"hi\\"\\nx"}',
        ),
        (
            "mine.csv",
            'id,kind,family,text\na,jailbreak,override,"Ignore, all."\n,,,"Say ""hi""\nx"\n',
        ),
        (
            "mine.CSV",
            '\ufefftext, family ,kind,id\r\n"Ignore, all.",override,jailbreak,a\r\n\r\n"Say ""hi""\r\nx", ,,\r\n',
        ),
    ],
)
def test_every_form_of_the_same_prompts_reads_the_same(tmp_path: Path, name: str, content: str) -> None:
    first, second = load_prompts(write(tmp_path, name, content))
    assert first == Prompt(id="a", kind="jailbreak", family="override", text="Ignore, all.")
    assert (second.kind, second.family, second.text) == (None, None, 'Say "hi"\nx')


def test_an_id_made_for_a_prompt_does_not_depend_on_other_prompts(tmp_path: Path) -> None:
    one = {p.text: p.id for p in load_prompts(write(tmp_path, "one.txt", "Hello?\nWho is it?\n"))}
    two = {p.text: p.id for p in load_prompts(write(tmp_path, "two.csv", "text\nNew!\nWho is it?\nHello?\n"))}
    assert len(set(two.values())) == 3
    assert one.items() <= two.items()


def test_examples_are_read_from_jsonl(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.jsonl", lines({"prompt": " Hi. ", "response": "Hello.\n\nWelcome."}) + "\n")
    assert load_examples(path) == (Example(prompt="Hi.", response="Hello.\n\nWelcome."),)


# The forms of others


PUBLISHED = [
    ("csv", "id,prompt,source\n1,How do I bake?,web\n", ["How do I bake?"], ["the column 'source' is not used"]),
    ("csv", "Source, PROMPT ,ID\nweb,How do I bake?,1\n", ["How do I bake?"], ["the column 'Source' is not used"]),
    ("csv", ",Text,\n0,How?,\n", ["How?"], ["the column '' is not used"]),
    (
        "jsonl",
        lines({"Prompt": "How do I bake?", "score": 3, "tags": ["x"]}, {"prompt": "Why?", "score": 1}),
        ["How do I bake?", "Why?"],
        ["the columns 'score' and 'tags' are not used"],
    ),
    (
        "jsonl",
        lines(
            {"messages": [{"role": "user", "content": "Hello"}]},
            {
                "messages": [
                    {"role": "system", "content": "Be kind."},
                    {"role": "user", "content": [{"type": "text", "text": "Who"}, {"type": "text", "text": "mills?"}]},
                    {"role": "assistant", "content": "The miller."},
                ]
            },
        ),
        ["Hello", "Who\nmills?"],
        ["only the user's first turn is used; conversations that contain more: 1"],
    ),
    (
        "jsonl",
        lines({"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]}),
        ["Hello"],
        ["only the user's first turn is used; conversations that contain more: 1"],
    ),
    ("jsonl", lines({"prompt": [{"role": "user", "content": "Hello"}], "id": 7}), ["Hello"], []),
    ("csv", 'messages\n"[{""role"": ""user"", ""content"": ""Hello""}]"\n', ["Hello"], []),
    (
        "jsonl",
        lines(
            {"instruction": "Sharpen a knife", "input": "", "output": "…"},
            {"output": "…", "input": "The mill", "instruction": "Describe it."},
        ),
        ["Sharpen a knife", "Describe it.\n\nThe mill"],
        ["the column 'output' is not used"],
    ),
]


@pytest.mark.parametrize(("suffix", "content", "prompts", "ignored"), PUBLISHED)
def test_columns_of_published_files_are_read_in_any_order_and_case_and_the_rest_is_named(
    tmp_path: Path, suffix: str, content: str, prompts: list[str], ignored: list[str]
) -> None:
    path = write(tmp_path, f"mine.{suffix}", content)
    reading = read_prompts(path)
    assert [prompt.text for prompt in reading.prompts.values()] == prompts
    assert list(reading.ignored) == [f"{path}: {line}" for line in ignored]


@pytest.mark.parametrize("column", ["question", " QUESTION"])
def test_the_user_can_name_the_column_that_holds_the_prompts(tmp_path: Path, column: str) -> None:
    path = write(tmp_path, "mine.csv", "text,Question,kind\nan essay,How do I bake?,benign\n")
    reading = read_prompts(path, column)
    (prompt,) = reading.prompts.values()
    assert (prompt.text, prompt.kind) == ("How do I bake?", "benign")
    assert reading.ignored == (f"{path}: the column 'text' is not used",)
    none = (
        r"mine\.csv:1: --prompts-column quest: there is no such column; the columns are 'text', 'Question' and 'kind'"
    )
    with pytest.raises(UserError, match=none):
        read_prompts(path, "quest")
    with pytest.raises(UserError, match="a text file has no columns; leave --prompts-column out"):
        read_prompts(write(tmp_path, "mine.txt", "How?\n"), column)


# Malformed files


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "", [": the file is empty", ".txt", ".csv", ".jsonl"]),
        ("a.txt", "# only\n# comments\n", [": there are no prompts in it"]),
        ("a.txt", "Hi there!\n\n# x\nhi  THERE", [":4: the same prompt as on line 1; keep one of them"]),
        ("a.json", "[]", [": cannot tell the form from the ending '.json'", ".jsonl"]),
        ("a.jsonl", '{"text": "x"}\n{"text": }', [":2: not valid JSON", "column 10"]),
        ("a.jsonl", '{"text": "x", "text": "y"}', [":1: the key 'text' occurs twice"]),
        (
            "a.jsonl",
            '["x"]',
            [":1: this is a list; it must be a table of fields: id, kind (optional), family (optional) and text"],
        ),
        ("a.jsonl", '\n"x"', [":2: this is 'x'"]),
        ("a.jsonl", "3", [":1: this is a number"]),
        (
            "a.jsonl",
            lines({"kind": "benign"}),
            [":1: there is no field 'text', 'prompt', 'instruction', 'messages' or 'conversations'; found 'kind'"],
        ),
        ("a.jsonl", lines({"text": "x"}, {"text": " "}), [":2: the field 'text' is empty; it must be text"]),
        ("a.jsonl", lines({"text": 3}), [":1: the field 'text' is a number; it must be text"]),
        ("a.jsonl", lines({"text": "x", "id": [3]}), [":1: the field 'id' is a list; it must be text"]),
        ("a.jsonl", lines({"prompt": " "}), [":1: the field 'prompt' is empty; it must be text"]),
        ("a.jsonl", lines({"text": "x", "Text": "y"}), [":1: a field occurs twice"]),
        ("a.jsonl", lines({"text": "x", "knd": "benign"}), [":1: unknown field 'knd'; did you mean 'kind'?"]),
        (
            "a.jsonl",
            lines({"prompt": "x", "messages": []}),
            [":1: the fields 'prompt' and 'messages' may all hold the prompts; name one with --prompts-column"],
        ),
        ("a.jsonl", lines({"messages": "x"}), [":1: not valid JSON"]),
        ("a.jsonl", lines({"messages": [{"role": "assistant", "content": "x"}]}), [":1: the field 'messages' is no c"]),
        ("a.jsonl", lines({"messages": [{"role": "user", "content": None}]}), [":1: the field 'messages' is no c"]),
        ("a.jsonl", lines({"messages": ["x"]}), [":1: the field 'messages' is no conversation; it must be a list of"]),
        (
            "a.jsonl",
            lines({"text": "x", "kind": "evil"}),
            [":1: the field 'kind' is 'evil'", "'jailbreak', 'direct', 'borderline', 'benign' or 'sensitive'"],
        ),
        ("a.jsonl", lines({"text": "x", "kind": 1}), [":1: the field 'kind' is a number; it must be 'jailbreak'"]),
        (
            "a.jsonl",
            lines({"text": "x", "kind": "direct", "family": "override"}),
            [":1: the field 'family' is 'override' for a prompt of kind 'direct'; only a prompt of kind 'jailbreak'"],
        ),
        ("a.jsonl", lines({"text": "x", "family": "f"}), [":1: the field 'family' is 'f' for a prompt without a kind"]),
        (
            "a.jsonl",
            lines({"text": "x", "id": "a"}, {"text": "y", "id": "a"}),
            [":2: the id 'a' is already that of line 1; give each prompt an id of its own"],
        ),
        ("a.jsonl", lines({"text": "x"}, {"text": "y"}, {"text": "X."}), [":3: the same prompt as on line 1"]),
        ("a.jsonl", lines({"text": "\ud800"}), [":1: the field 'text' is"]),
        (
            "a.csv",
            "goal,target\nx,y\n",
            ["'messages' or 'conversations'; found 'goal' and 'target': rename the one"],
        ),
        ("a.csv", "goal,target\nx,y\n", [": rename the one that holds the prompts to text, or name it by --prompts-c"]),
        ("a.csv", "txt\nx\n", ["; found 'txt': rename the one that holds the prompts"]),
        ("a.csv", "text,knd\nx,benign\n", [":1: unknown column 'knd'; did you mean 'kind'?"]),
        ("a.csv", "id,kind\n1,benign\n", [":1: there is no column 'text'"]),
        ("a.csv", "text,text\nx,y\n", [":1: a column occurs twice"]),
        ("a.csv", "text\n", [": there are no prompts in it"]),
        (
            "a.csv",
            "text,kind\nx,benign\nHow, then?,benign\n",
            [":3: the header has 2 columns but this row has 3", "double quotes"],
        ),
        ("a.csv", "text;kind\nx;benign\n", [":1: columns are separated by semicolons here; separate them by commas"]),
        ("a.csv", "text,kind\nx\n", [":2: the header has 2 columns but this row has 1"]),
        ("a.csv", 'text\n"two\nlines"\n"open', [":4: not valid CSV"]),
        ("a.csv", 'text\n"x"y\n', [":2: not valid CSV", "double the quotes"]),
        ("a.csv", '"text"\t"kind"\nx\tbenign\n', [":1: columns are separated by tabs here"]),
        ("a.csv", "text,kind\n,benign\n", [":2: the field 'text' is empty; it must be text"]),
        ("a.csv", 'text,kind\n"two\nlines",benign\ny,evil\n', [":4: the field 'kind' is 'evil'"]),
        ("a.csv", f"text\n{'x' * 200_000}\n", [":2: not valid CSV: field larger than"]),
    ],
)
def test_malformed_prompts_are_refused_with_file_line_and_field(
    tmp_path: Path, name: str, content: str, expected: list[str]
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(UserError) as caught:
        load_prompts(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in expected:
        assert part in message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", "\n", ": the file is empty"),
        ("a.jsonl", lines({"prompt": "x"}), ":1: the field 'response' is missing; the fields are prompt and response"),
        ("a.jsonl", lines({"prompt": "x", "response": ""}), ":1: the field 'response' is empty"),
        ("a.jsonl", lines({"prompt": "x", "answer": "y"}), ":1: unknown field 'answer'"),
        ("a.jsonl", "{", ":1: not valid JSON"),
        ("a.csv", "prompt,response\nx,y\n", ": cannot tell the form from the ending '.csv'"),
    ],
)
def test_malformed_examples_are_refused_with_file_line_and_field(
    tmp_path: Path, name: str, content: str, expected: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(UserError) as caught:
        load_examples(path)
    assert str(caught.value).startswith(f"{path}{expected}")


@pytest.mark.parametrize("load", [load_prompts, load_examples])
def test_a_file_that_is_missing_or_a_directory_or_not_text_is_refused(load: object, tmp_path: Path) -> None:
    assert callable(load)
    with pytest.raises(UserError, match=r"none\.jsonl: there is no such file; give the path of a"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"this is a directory"):
        load(tmp_path)
    wide = tmp_path / "wide.jsonl"
    wide.write_bytes(b'{"text": "x"}\n\xff\xfe')
    with pytest.raises(UserError, match=r"wide\.jsonl:2: not UTF-8 text \(byte 0xff\); save it as UTF-8"):
        load(wide)


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".txt", ".csv", ".jsonl"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_random_bytes_are_read_or_refused_and_never_crash(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"random{suffix}"
    path.write_bytes(data)
    for load in (load_prompts, load_examples):
        with contextlib.suppress(UserError):
            assert load(path)


@given(body=st.text(max_size=100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_csv_body_is_read_or_refused_and_never_crashes(tmp_path: Path, body: str) -> None:
    path = write(tmp_path, "random.csv", f"text,kind\nx,benign\n{body}")
    with contextlib.suppress(UserError):
        assert load_prompts(path)[0].text == "x"


# The same words or not


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I win?", "how do I  WIN"),
        ("“Quoted” — text…", '"quoted" - text'),
        ("ﬁne, Straße", "FINE STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("soft\u00adware", "software"),
        ("one\u00a0two\nthree", "One two, three."),
    ],
)
def test_case_punctuation_spacing_and_unicode_form_do_not_make_a_new_prompt(one: str, other: str) -> None:
    assert normalised_hash(one) == normalised_hash(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Win the game", "Win a game"),
        ("How do I learn C?", "How do I learn C#?"),
        ("How do I learn C?", "How do I learn C++?"),
        ("What is 5 * 3?", "What is 5 / 3?"),
        ("तुम किताब", "तुम कताब"),
        ("???", "!!!"),
        ("dog cat", "dogcat"),
    ],
)
def test_other_words_and_signs_make_a_new_prompt(one: str, other: str) -> None:
    assert normalised_hash(one) != normalised_hash(other)


@given(st.text())
def test_the_hash_does_not_depend_on_case_or_on_spaces_around(text: str) -> None:
    assert normalised_hash(text) == normalised_hash(f"  {text}\n")


def test_overlap_names_the_pairs_that_two_sets_share() -> None:
    train = {"t1": "Hello!", "t2": "Bye.", "t3": "Thanks."}
    test = {"e1": "THANKS", "e2": "New", "e3": "hello"}
    assert overlap(train, test) == [("t1", "e3"), ("t3", "e1")]
    assert overlap(train, {}) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a\0b", "has the character NUL, which is no text"),
        ("\u200b\u200d\ufeff", "has only invisible characters"),
        ("\u3164\u2800", "has only invisible characters"),
    ],
)
@pytest.mark.parametrize("name", ["one.txt", "one.csv", "one.jsonl"])
def test_a_prompt_that_cannot_be_seen_or_has_a_nul_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str, why: str
) -> None:
    good = "How do I bake?"
    content = {
        "one.txt": f"{good}\n{text}\n",
        "one.csv": f"text\n{good}\n{text}\n",
        "one.jsonl": lines({"text": good}, {"text": text}),
    }[name]
    file = write(tmp_path, name, content)
    with pytest.raises(UserError, match=f"one.{file.suffix[1:]}:{content.count(chr(10))}: .*{why}"):
        load_prompts(file)


def test_a_text_with_an_invisible_character_in_it_is_read(tmp_path: Path) -> None:
    file = write(tmp_path, "one.txt", "\u200bWhat is a loaf\u00ad?\n")
    assert [prompt.text for prompt in load_prompts(file)] == ["\u200bWhat is a loaf\u00ad?"]
