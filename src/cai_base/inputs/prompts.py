"""Kinds of prompt, files of prompts and of human-written examples, and the test for overlap between two sets."""

import csv
import hashlib
import io
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from cai_base.errors import UserError
from cai_base.reading import Record, build, described, listed, parse_json, read_text, shown, unknown

Text = Annotated[str, Field(min_length=1)]
First = TypeVar("First")
Second = TypeVar("Second")

_PROMPTS_FILE = "a file of prompts: .txt with one a line, .csv with a column 'text', or .jsonl with a field 'text'"
_EXAMPLES_FILE = 'a .jsonl file of examples, one a line: {"prompt": "...", "response": "..."}'


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of prompt, and what the evaluation makes of answers to it.

    Attributes:
        harm: whether it asks for something harmful or something harmless; None if it tests something else.
        rubrics: the tasks of the rubrics under which its answers are judged.
        file: the evaluation file that has its answers, without its ending.
        original: whether the original experiment also trained on its evaluation prompts, 10 + 24 + 8 = 42 in all.
    """

    name: str
    harm: Literal["harmful", "harmless"] | None
    rubrics: tuple[str, ...]
    file: str
    original: bool = False


_KINDS = (
    Kind("jailbreak", "harmful", ("attack",), "attack", original=True),
    Kind("direct", "harmful", ("attack",), "attack"),
    Kind("borderline", "harmful", ("attack",), "attack", original=True),
    Kind("benign", "harmless", ("helpfulness", "over-refusal"), "helpfulness", original=True),
    Kind("sensitive", "harmless", ("helpfulness", "over-refusal"), "over_refusal"),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _KINDS}
"""Every kind of prompt by its name."""

EVERY = tuple(KINDS)
HARMFUL = tuple(kind.name for kind in _KINDS if kind.harm == "harmful")
HARMLESS = tuple(kind.name for kind in _KINDS if kind.harm == "harmless")
ORIGINAL = tuple(kind.name for kind in _KINDS if kind.original)
"""The kinds whose evaluation prompts the original experiment also trained on."""

JAILBREAK, BENIGN, SENSITIVE = "jailbreak", "benign", "sensitive"
"""The kinds that the main metrics are taken over: attack success, helpfulness, and over-refusal of prompts that look
harmful. Only a jailbreak has a family."""

ANSWER_FILES = tuple(dict.fromkeys(kind.file for kind in _KINDS))
"""The files of an arm's answers in a run, without their ending."""


class Prompt(Record):
    """One prompt.

    `kind` says how the answer is judged, so every prompt of an evaluation set has one. A prompt that is only trained on
    needs none, and a text file has no place for it: there it is None, never guessed. `family` is the sort of jailbreak.
    """

    id: Text
    kind: str | None = None
    family: Text | None = None
    text: Text

    @field_validator("kind", mode="before")
    @classmethod
    def _kind_is_in_the_table(cls, kind: object) -> object:
        if kind is not None and (not isinstance(kind, str) or kind.strip() not in KINDS):
            *names, last = (repr(name) for name in EVERY)
            raise ValueError(f"the field 'kind' is {described(kind)}; it must be {', '.join(names)} or {last}")
        return kind

    @model_validator(mode="after")
    def _only_jailbreaks_have_a_family(self) -> Self:
        if self.family is not None and self.kind != JAILBREAK:
            kind = f"of kind {self.kind!r}" if self.kind else "without a kind"
            raise ValueError(
                f"the field 'family' is {shown(self.family)} for a prompt {kind}; "
                "only a prompt of kind 'jailbreak' has a family"
            )
        return self


class Example(Record):
    """A prompt with a response that a person wrote: a few-shot turn, or an example to train on."""

    prompt: Text
    response: Text


def load_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts in a text, CSV or JSONL file, in its order.

    A text file has one prompt a line; empty lines and lines that begin with `#` are skipped. A CSV file has a header
    with `text` and, if wanted, `id`, `kind`, `family`; an empty cell counts as left out. JSONL has the same fields. An
    id that is left out is made from the text, so that it stays the same when lines move.

    Raises UserError, with file, line and field, for anything else: also for an id that stands twice, and for two
    prompts that differ in case, punctuation and spacing only.
    """
    return tuple(prompts_by_line(path).values())


def prompts_by_line(path: Path) -> dict[int, Prompt]:
    """As `load_prompts`, each prompt under the number of the line on which it begins."""
    text = read_text(path, _PROMPTS_FILE)
    match path.suffix.lower():
        case ".txt":
            records = _txt_records(text)
        case ".csv":
            records = _csv_records(path, text)
        case ".jsonl":
            records = jsonl_records(path, text)
        case suffix:
            raise UserError(f"{path}: cannot tell the form from the ending {shown(suffix)}; give {_PROMPTS_FILE}")
    prompts: dict[int, Prompt] = {line: _prompt(record, f"{path}:{line}") for line, record in records}
    if not prompts:
        raise UserError(f"{path}: there are no prompts in it; it should be {_PROMPTS_FILE}")
    _refuse_repeats(path, prompts)
    return prompts


def load_examples(path: Path) -> tuple[Example, ...]:
    """The examples in a JSONL file, one object with `prompt` and `response` a line; empty lines are skipped.

    Raises UserError, with file, line and field, for anything else.
    """
    return tuple(examples_by_line(path).values())


def examples_by_line(path: Path) -> dict[int, Example]:
    """As `load_examples`, each example under the number of its line."""
    text = read_text(path, _EXAMPLES_FILE)
    if path.suffix.lower() != ".jsonl":
        raise UserError(f"{path}: cannot tell the form from the ending {shown(path.suffix)}; give {_EXAMPLES_FILE}")
    return {line: build(Example, record, f"{path}:{line}") for line, record in jsonl_records(path, text)}


def normalised_hash(text: str) -> str:
    """SHA-256 of the text's words: case, punctuation, spacing and Unicode form do not count.

    Signs that carry meaning (`C` and `C#`, `5 * 3` and `5 / 3`) do, and text that is nothing but punctuation keeps it.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = "".join(_normalised(character) for character in folded).split()
    return hashlib.sha256(" ".join(words or folded.split()).encode(errors="surrogatepass")).hexdigest()


def overlap(first: Mapping[First, str], second: Mapping[Second, str]) -> list[tuple[First, Second]]:
    """The keys of every pair of texts, one of each set, with the same words: none for sets that may train and test."""
    seen: dict[str, list[Second]] = {}
    for key, text in second.items():
        seen.setdefault(normalised_hash(text), []).append(key)
    return [(key, other) for key, text in first.items() for other in seen.get(normalised_hash(text), [])]


def _normalised(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":  # soft hyphens, zero-width spaces: invisible, and left over from web pages
        return ""
    # Combining marks stay: without them different words of Hindi or Thai would become one.
    return character if category[0] in "LMNS" or character in "#%&*/@" else " "


def _prompt(record: object, where: str) -> Prompt:
    """The record as a prompt, with an id made from its text where it has none."""
    if isinstance(record, Mapping):
        fields = {field: value for field, value in record.items() if value is not None}
        text = fields.get("text")
        record = {"id": _id_of(text) if isinstance(text, str) else "none"} | fields
    return build(Prompt, record, where)


def _id_of(text: str) -> str:
    return f"prompt-{normalised_hash(text)[:12]}"


def _txt_records(text: str) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, {"text": line}


def jsonl_records(path: Path, text: str) -> Iterator[tuple[int, object]]:
    """The value on each line that is not empty, with the line's number."""
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, parse_json(path, line, number)


def _csv_records(path: Path, text: str) -> Iterator[tuple[int, object]]:
    rows = csv_rows(path, text)
    line, header = next(rows)
    columns = [column.strip() for column in header]
    fields = tuple(Prompt.model_fields)
    if "text" not in columns:
        present = listed([shown(column) for column in columns])
        raise UserError(
            f"{path}:{line}: there is no column 'text'; found {present}: rename the one that holds the prompts to "
            f"text, and keep no column but {listed(fields)}"
        )
    for column in columns:
        if column not in fields:
            raise UserError(f"{path}:{line}: {unknown('column', column, fields)}")
    if len(set(columns)) < len(columns):
        raise UserError(f"{path}:{line}: a column stands twice; the header may hold {listed(fields)}, each once")
    for line, row in rows:
        if len(row) != len(columns):
            raise UserError(
                f"{path}:{line}: the header has {len(columns)} columns but this row has {len(row)}; "
                "put text that contains commas in double quotes"
            )
        cells = zip(columns, row, strict=True)
        yield line, {column: cell for column, cell in cells if cell.strip() or column == "text"}


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with the line it begins on.

    Raises UserError where this is no CSV, or its columns are separated by something else than commas.
    """
    header = text.lstrip().partition("\n")[0]
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if sign in header and "," not in header:  # before parsing: a quoted header would be a riddle to it
            raise UserError(f"{path}:1: columns are separated by {name} here; separate them by commas")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}:{line}: not valid CSV: {error}; put a cell in double quotes and double the quotes inside it"
        ) from None


def _refuse_repeats(path: Path, prompts: Mapping[int, Prompt]) -> None:
    """Raises UserError where two prompts have the same words or the same id; `prompts` is by line."""
    texts: dict[str, int] = {}
    ids: dict[str, int] = {}
    for line, prompt in prompts.items():
        first = texts.setdefault(normalised_hash(prompt.text), line)
        if first != line:
            raise UserError(f"{path}:{line}: the same prompt as on line {first}; keep one of them")
        first = ids.setdefault(prompt.id, line)
        if first != line:
            raise UserError(
                f"{path}:{line}: the id {shown(prompt.id)} is already that of line {first}; "
                "give each prompt an id of its own, or none"
            )
