"""Reads files of prompts and of human-written examples."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import field_validator, model_validator

from cai_base.errors import UserError
from cai_base.inputs.kinds import EVERY, JAILBREAK, PROMPT_KINDS
from cai_base.inputs.overlap import normalised_hash
from cai_base.inputs.tables import csv_rows, jsonl_records, refuse_ragged
from cai_base.reading import LONGEST_TEXT, Entry, Text, build, described, listed, parse_json, quote, read_text, unknown

TEXT_COLUMNS = ("text", "prompt", "instruction", "messages", "conversations")
"""The columns that hold prompts in published files; a file may have one of them."""
CONVERSATIONS = ("messages", "conversations")
"""The columns that hold conversations: OpenAI's messages (role, content), ShareGPT's turns (from, value)."""
USERS = ("user", "human")
"""The roles of the user in a conversation."""
NEAR = 0.8
"""A column's name at least this similar to `kind` or `family` (a ratio of difflib) counts as a misspelling of it."""

_PROMPTS_FILE = "a file of prompts: .txt with one per line, .csv with a column 'text', or .jsonl with a field 'text'"
_EXAMPLES_FILE = 'a .jsonl file of examples, one per line: {"prompt": "...", "response": "..."}'


class Prompt(Entry):
    """One prompt.

    Attributes:
        id: no other prompt of the same list has it; it is part of the address of every random draw for this prompt.
        kind: how answers to it are judged: `jailbreak`, `direct` or `borderline` (harmful), `benign` or `sensitive`
            (harmless). Every evaluation prompt has one; it is None for a prompt that is only trained on and does not
            state it.
        family: the type of a jailbreak prompt; None for prompts of other kinds.
        text: the prompt itself, without layout.
    """

    id: Text
    kind: str | None = None
    family: Text | None = None
    text: Text

    @field_validator("kind", mode="before")
    @classmethod
    def _kind_is_in_the_table(cls, kind: object) -> object:
        if kind is not None and (not isinstance(kind, str) or kind.strip() not in PROMPT_KINDS):
            *names, last = (repr(name) for name in EVERY)
            raise ValueError(f"the field 'kind' is {described(kind)}; it must be {', '.join(names)} or {last}")
        return kind

    @model_validator(mode="after")
    def _only_jailbreaks_have_a_family(self) -> Self:
        if self.family is not None and self.kind != JAILBREAK:
            kind = f"of kind {self.kind!r}" if self.kind else "without a kind"
            raise ValueError(
                f"the field 'family' is {quote(self.family)} for a prompt {kind}; "
                "only a prompt of kind 'jailbreak' has a family"
            )
        return self


class Example(Entry):
    """A prompt with a human-written response: a few-shot turn, or an SFT example."""

    prompt: Text
    response: Text


@dataclass(frozen=True, slots=True)
class PromptFile:
    """The content of a file of prompts.

    Attributes:
        prompts: by the number of the line on which each begins.
        ignored: what else the file contains, one sentence each; empty if everything is used.
    """

    prompts: Mapping[int, Prompt]
    ignored: tuple[str, ...] = ()


def load_prompts(path: Path | str) -> tuple[Prompt, ...]:
    """The prompts in a text, CSV or JSONL file, in the order of the file.

    A text file has one prompt per line. CSV and JSONL have one of the columns `TEXT_COLUMNS` (`text`, `prompt`,
    `instruction`, `messages`, `conversations`), and may have `id`, `kind` and `family`; further columns are ignored.

    Args:
        path: of the file; its ending, .txt, .csv or .jsonl, says which form it has.

    Raises:
        UserError: the file cannot be read as prompts; the message names the file, the line and the field.
    """
    return tuple(prompts_by_line(Path(path)).values())


def prompts_by_line(path: Path, column: str | None = None) -> dict[int, Prompt]:
    """The prompts of a file, by the number of the line on which each begins; see `load_prompts`."""
    return dict(read_prompts(path, column).prompts)


def read_prompts(path: Path, column: str | None = None) -> PromptFile:
    """The prompts in a text, CSV or JSONL file.

    A text file has one prompt per line; empty lines and lines that begin with `#` are skipped. A CSV file has a header
    with one of `TEXT_COLUMNS` and optionally `id`, `kind` and `family`; an empty cell counts as missing. JSONL has the
    same fields. The order and case of columns do not matter, and further columns are ignored. An `instruction` is
    joined with its `input`, as in Alpaca; of a conversation, the user's first turn is the prompt. A missing id is made
    from a hash of the text, so that it does not depend on the line.

    Args:
        path: the file.
        column: the column or field that holds the prompts, if it is none of `TEXT_COLUMNS`, or if there are several.

    Raises:
        UserError: the file has another format, an id occurs twice, or two prompts differ only in case, punctuation and
            spacing; the message names the file, the line and the field.
    """
    text = read_text(path, _PROMPTS_FILE)
    rows: Iterable[tuple[int, _Row]]
    match path.suffix.lower():
        case ".txt" if column is not None:
            raise UserError(f"{path}: a text file has no columns; leave --prompts-column out")
        case ".txt":
            rows = _txt_rows(text)
        case ".csv":
            rows = _csv_prompt_rows(path, text, column)
        case ".jsonl":
            rows = _jsonl_prompt_rows(path, text, column)
        case suffix:
            raise UserError(f"{path}: cannot tell the form from the ending {quote(suffix)}; give {_PROMPTS_FILE}")
    prompts: dict[int, Prompt] = {}
    unused: dict[str, None] = {}
    shortened = 0
    for line, row in rows:
        prompts[line] = _prompt(row.fields, f"{path}:{line}")
        unused |= dict.fromkeys(row.unused)
        shortened += row.shortened
    if not prompts:
        raise UserError(f"{path}: there are no prompts in it; it should be {_PROMPTS_FILE}")
    _refuse_repeats(path, prompts)
    ignored = []
    if unused:
        what = "the column {} is" if len(unused) == 1 else "the columns {} are"
        ignored.append(f"{path}: {what.format(listed([quote(name) for name in unused]))} not used")
    if shortened:
        ignored.append(f"{path}: only the user's first turn is used; conversations that contain more: {shortened}")
    return PromptFile(prompts, tuple(ignored))


def load_examples(path: Path) -> tuple[Example, ...]:
    """The examples in a JSONL file: one object with `prompt` and `response` per line. Empty lines are skipped.

    Raises:
        UserError: the file has another format; the message names the file, the line and the field.
    """
    return tuple(examples_by_line(path).values())


def examples_by_line(path: Path) -> dict[int, Example]:
    """The examples in a JSONL file, by the number of their line; see `load_examples`."""
    text = read_text(path, _EXAMPLES_FILE)
    if path.suffix.lower() != ".jsonl":
        raise UserError(f"{path}: cannot tell the form from the ending {quote(path.suffix)}; give {_EXAMPLES_FILE}")
    return {line: build(Example, record, f"{path}:{line}") for line, record in jsonl_records(path, text)}


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of a file of prompts.

    Attributes:
        fields: the fields of a `Prompt`.
        unused: the names of the other columns.
        shortened: whether its conversation contains more than the prompt.
    """

    fields: Mapping[str, object]
    unused: tuple[str, ...] = ()
    shortened: bool = False


def _prompt(fields: Mapping[str, object], where: str) -> Prompt:
    """The fields as a prompt, with an id made from the text if it has none."""
    return build(Prompt, {"id": _id_of(str(fields["text"])[: LONGEST_TEXT + 1])} | dict(fields), where)


def _id_of(text: str) -> str:
    return f"prompt-{normalised_hash(text)[:12]}"


def _txt_rows(text: str) -> Iterator[tuple[int, _Row]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, _Row({"text": line})


def _jsonl_prompt_rows(path: Path, text: str, column: str | None) -> Iterator[tuple[int, _Row]]:
    for line, record in jsonl_records(path, text):
        where = f"{path}:{line}"
        if not isinstance(record, dict):
            build(Prompt, record, where)  # raises
        assert isinstance(record, dict)
        fields = {name: value for name, value in record.items() if value is not None}
        columns = _columns(list(fields), column, where, "field")
        yield line, _row(path, line, columns, list(fields), list(fields.values()))


def _csv_prompt_rows(path: Path, text: str, column: str | None) -> Iterator[tuple[int, _Row]]:
    rows = csv_rows(path, text)
    line, header = next(rows)
    names = [name.strip() for name in header]
    columns = _columns(names, column, f"{path}:{line}", "column")
    for line, cells in rows:
        refuse_ragged(path, line, names, cells)
        yield line, _row(path, line, columns, names, [cell if cell.strip() else None for cell in cells])


def _columns(names: Sequence[str], column: str | None, where: str, noun: str) -> Mapping[str, int]:
    """The index of the column of each field of a prompt; `input` is the second part of an instruction.

    Args:
        names: the names of all columns, as spelled in the file.
        column: the column that holds the prompts, if the user names it.
        where: the place in the file.
        noun: what a column is called in this kind of file.

    Raises:
        UserError: no column holds the prompts, or several could; a column occurs twice, or is misspelt.
    """
    plain = [name.strip().casefold() for name in names]
    texts = TEXT_COLUMNS if column is None else (column.strip().casefold(),)
    places = [place for place, name in enumerate(plain) if name in texts]
    present = listed([quote(name) for name in names]) if names else "nothing"
    if not places and column is not None:
        there_are = f"the {noun}s are" if len(names) > 1 else "found"
        raise UserError(f"{where}: --prompts-column {column}: there is no such {noun}; {there_are} {present}")
    if not places:
        *but_last, last = (quote(name) for name in TEXT_COLUMNS)
        missing = f"there is no {noun} {', '.join(but_last)} or {last}"
        raise UserError(
            f"{where}: {missing}; found {present}: rename the one that holds the prompts to text, or name it by "
            "--prompts-column"
        )
    others = {"id", "kind", "family"} - {plain[places[0]]}
    if column is None and plain[places[0]] == "instruction":
        others.add("input")
    used = [plain[place] for place in places] + [name for name in plain if name in others]
    if len(set(used)) < len(used):
        raise UserError(f"{where}: a {noun} occurs twice; {listed(sorted(set(used)))} may each stand once")
    if len(places) > 1:
        both = listed([quote(names[place]) for place in places])
        raise UserError(f"{where}: the {noun}s {both} may all hold the prompts; name one with --prompts-column")
    for name, spelt in zip(plain, names, strict=True):
        if name not in used and difflib.get_close_matches(name, ("kind", "family"), cutoff=NEAR):
            raise UserError(f"{where}: {unknown(noun, spelt, ('kind', 'family'))}")
    return {"text": places[0]} | {name: plain.index(name) for name in plain if name in others}


def _row(path: Path, line: int, columns: Mapping[str, int], names: Sequence[str], values: Sequence[object]) -> _Row:
    """A row's values as the fields of a prompt."""
    fields = {field: values[place] for field, place in columns.items() if values[place] is not None}
    name, value = names[columns["text"]], fields.get("text")
    conversation, shortened = name.strip().casefold() in CONVERSATIONS, False
    if conversation and isinstance(value, str):  # as in a CSV file
        value = parse_json(path, value, line)
    if conversation or isinstance(value, list):
        value, shortened = _first_turn(value, f"{path}:{line}", name)
    if not isinstance(value, str) or not value.strip():
        described_value = "empty" if value is None else described(value)
        raise UserError(f"{path}:{line}: the field {quote(name)} is {described_value}; it must be text")
    more = fields.pop("input", None)
    fields["text"] = f"{value.strip()}\n\n{more.strip()}" if isinstance(more, str) and more.strip() else value
    if type(fields.get("id")) is int:
        fields["id"] = str(fields["id"])
    return _Row(fields, tuple(name for place, name in enumerate(names) if place not in columns.values()), shortened)


def _first_turn(conversation: object, where: str, name: str) -> tuple[str, bool]:
    """The user's first turn in a conversation, and whether the conversation contains more.

    Raises:
        UserError: the value is no conversation, or has no turn of a user.
    """
    turns = conversation if isinstance(conversation, list) else []
    for turn in turns:
        if not isinstance(turn, dict):
            break
        if turn.get("role", turn.get("from")) in USERS:
            content = turn.get("content", turn.get("value"))
            if isinstance(content, list):  # a list of parts, some of which may be images
                parts = [part.get("text") for part in content if isinstance(part, dict)]
                content = "\n".join(part for part in parts if isinstance(part, str))
            if isinstance(content, str) and content.strip():
                return content, len(turns) > 1
            break
    raise UserError(
        f"{where}: the field {quote(name)} is no conversation; it must be a list of messages with role and content, "
        "the first of the role user not empty"
    )


def _refuse_repeats(path: Path, prompts: Mapping[int, Prompt]) -> None:
    """Raises UserError if two prompts have the same words or the same id; `prompts` is by line."""
    texts: dict[str, int] = {}
    ids: dict[str, int] = {}
    for line, prompt in prompts.items():
        first = texts.setdefault(normalised_hash(prompt.text), line)
        if first != line:
            raise UserError(f"{path}:{line}: the same prompt as on line {first}; keep one of them")
        first = ids.setdefault(prompt.id, line)
        if first != line:
            raise UserError(
                f"{path}:{line}: the id {quote(prompt.id)} is already that of line {first}; "
                "give each prompt an id of its own, or none"
            )
