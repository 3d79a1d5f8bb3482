"""Standard suites: prompts read from files in the form in which their authors publish them, each with its kind.

Which prompts are attacks and which are safe decides what is counted: attack success, or over-refusal. A suite does not
mix the two silently: the forms that hold both say which is which.
"""

import gzip
import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cai_base import randomness
from cai_base.errors import UserError
from cai_base.inputs.prompts import JAILBREAK, SENSITIVE, Prompt, csv_rows, jsonl_records, prompts_by_line
from cai_base.reading import decoded, described, listed, parse_json, read_text, shown

ATTACK = JAILBREAK
"""The kind of every attack, with a framing around it or without: it counts in the attack success rate."""
SAFE = SENSITIVE
"""The kind of a safe prompt that looks unsafe, which counts in the over-refusal rate."""
CONTEXT = "\n\n---\n\n"
"""HarmBench's separator between a context and the behaviour."""
HARMBENCH = ("standard", "contextual", "copyright")
"""HarmBench's functional categories."""
TABLES = (".csv",)
LINES = (".json", ".jsonl", ".gz")
_FILE = "a suite's file as its authors publish it, or a file of prompts in this project's form"
_FIRST_TURN = re.compile(r"\s*Human:(.*?)(?=\n\nAssistant:|\Z)", re.DOTALL)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class SuitePrompt:
    """One prompt of a suite, and the category that the suite puts it in, if it has any."""

    prompt: Prompt
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Suite:
    """What is asked.

    Attributes:
        name: of the form it came in; a file of one's own has the file's name.
        files: names of the files it was read from.
        sha256: of their contents, one after the other.
        prompts: in the files' order.
        left_out: how many rows are no part of it, by reason.
    """

    name: str
    files: tuple[str, ...]
    sha256: str
    prompts: tuple[SuitePrompt, ...]
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: where it stands, its number from 1, and its fields."""

    where: str
    number: int
    fields: Mapping[str, object]

    def text(self, name: str) -> str:
        """The field's text.

        Raises:
            UserError: it is empty, or no text.
        """
        value = self.fields.get(name)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{self.where}: the field {shown(name)} is {described(value)}; it must be text")
        return value.strip()


Reader = Callable[[Row, str], "SuitePrompt | str"]
"""Reads a row, given the name of its form, as a prompt; or gives the reason why the row is left out."""


@dataclass(frozen=True, slots=True)
class Form:
    """A published form: the fields that identify it, and how a row is read."""

    fields: tuple[str, ...]
    read: Reader


def _harmbench(row: Row, name: str) -> SuitePrompt | str:
    about, text = row.text("FunctionalCategory"), row.text("Behavior")
    if about not in HARMBENCH:
        raise UserError(
            f"{row.where}: the field 'FunctionalCategory' is {shown(about)}; it must be {listed(HARMBENCH)}"
        )
    if about == "copyright":
        return "asks for protected text, which is scored by comparing with that text and by no judge"
    if about == "contextual":
        text = f"{row.text('ContextString')}{CONTEXT}{text}"
    return SuitePrompt(_prompt(row.text("BehaviorID"), ATTACK, text), row.text("SemanticCategory"))


def _advbench(row: Row, name: str) -> SuitePrompt:
    return SuitePrompt(_prompt(f"{name}-{row.number}", ATTACK, row.text("goal")))


def _jailbreakbench(row: Row, name: str) -> SuitePrompt:
    kind = SAFE if name.endswith("-benign") else ATTACK
    return SuitePrompt(_prompt(f"{name}-{row.number}", kind, row.text("Goal")), row.text("Category"))


def _strongreject(row: Row, name: str) -> SuitePrompt:
    return SuitePrompt(_prompt(f"{name}-{row.number}", ATTACK, row.text("forbidden_prompt")), row.text("category"))


def _xstest(row: Row, name: str) -> SuitePrompt:
    category = row.text("type")
    label = row.text("label") if "label" in row.fields else None
    if label not in ("safe", "unsafe", None):
        raise UserError(f"{row.where}: the field 'label' is {shown(label)}; it must be safe or unsafe")
    # Before it had labels, the contrasts to the safe prompts were told by their type alone.
    unsafe = label == "unsafe" if label else category.startswith("contrast_")
    return SuitePrompt(_prompt(f"{name}-{row.number}", ATTACK if unsafe else SAFE, row.text("prompt")), category)


def _red_team(row: Row, name: str) -> SuitePrompt | str:
    transcript = row.text("transcript")
    first = _FIRST_TURN.match(transcript)
    if first is None:
        raise UserError(f"{row.where}: the field 'transcript' does not begin with a turn of 'Human:'")
    if not first[1].strip():
        return "has an empty first turn"
    return SuitePrompt(_prompt(f"{name}-{row.number}", ATTACK, first[1].strip()))


def _prompt(name: str, kind: str, text: str) -> Prompt:
    return Prompt(id=name, kind=kind, text=text)


_JAILBREAKBENCH = Form(("Goal", "Target", "Behavior", "Category"), _jailbreakbench)
FORMS: Mapping[str, Form] = {
    "harmbench": Form(
        ("Behavior", "FunctionalCategory", "SemanticCategory", "ContextString", "BehaviorID"), _harmbench
    ),
    "advbench": Form(("goal", "target"), _advbench),
    "jailbreakbench-harmful": _JAILBREAKBENCH,
    "jailbreakbench-benign": _JAILBREAKBENCH,
    "strongreject": Form(("category", "source", "forbidden_prompt"), _strongreject),
    "xstest": Form(("prompt", "type", "focus"), _xstest),
    "hh-red-team": Form(("transcript", "task_description"), _red_team),
}
"""Every form by its name. JailbreakBench's two files have one form, and differ in what their prompts are."""
OWN = "prompts"
"""The form of this project's own files of prompts."""


def read(name: str | None, files: Sequence[Path]) -> Suite:
    """A suite from its files.

    Args:
        name: its form; `jailbreakbench` takes what a file is from its name. None recognises it by its fields.
        files: one file, or the files that make up the suite together.

    Raises:
        UserError: a file is of another form, or a row of it is wrong.
    """
    prompts: dict[str, SuitePrompt] = {}
    left_out: Counter[str] = Counter()
    digest = hashlib.sha256()
    named = name
    for path in files:
        form, rows = _recognised(path, name)
        named = name or (path.stem if form == OWN else form)
        for row in rows:
            item = _own(row) if form == OWN else FORMS[form].read(row, form)
            if isinstance(item, str):
                left_out[item] += 1
            elif item.prompt.id in prompts:
                raise UserError(f"{row.where}: the id {shown(item.prompt.id)} stands twice; give each one of its own")
            else:
                prompts[item.prompt.id] = item
        digest.update(path.read_bytes())
    if not prompts:
        raise UserError(f"{files[0]}: there are no prompts in it; it should be {_FILE}")
    assert named is not None
    return Suite(named, tuple(p.name for p in files), digest.hexdigest(), tuple(prompts.values()), dict(left_out))


def draw_items(items: Sequence[Item], limit: int | None) -> tuple[Item, ...]:
    """`limit` items in their order, drawn from all of them: suites are sorted, and the first ones are of one kind.

    It is the same draw every time, and a greater limit adds to a smaller one.
    """
    if limit is None or limit >= len(items):
        return tuple(items)
    places = randomness.stream("suite", "some").permutation(len(items))[:limit]
    return tuple(items[place] for place in sorted(places.tolist()))


def fields_of(path: Path) -> tuple[str, ...]:
    """The fields of a file's first row; none where it has no rows with fields.

    Raises:
        UserError: it cannot be read, or is no CSV or JSON.
    """
    if path.suffix.lower() in TABLES:
        _, header = next(csv_rows(path, read_text(path, _FILE)))
        return tuple(column.strip() for column in header)
    if path.suffix.lower() in LINES:
        first = next(json_rows(path), None)
        return tuple(first.fields) if first else ()
    return ()


def json_rows(path: Path) -> Iterator[Row]:
    """The objects of a JSON array or of JSON lines, gzipped or not.

    Raises:
        UserError: something in it is no object, or it cannot be read.
    """
    text = _unpacked(path) if path.suffix.lower() == ".gz" else read_text(path, _FILE)
    if text.lstrip().startswith("["):
        array = parse_json(path, text)
        assert isinstance(array, list)
        places = [(f"{path}: item {number}", value) for number, value in enumerate(array, start=1)]
    else:
        places = [(f"{path}:{line}", value) for line, value in jsonl_records(path, text)]
    for number, (where, value) in enumerate(places, start=1):
        if not isinstance(value, dict):
            raise UserError(f"{where}: this is {described(value)}; it must be an object with fields")
        yield Row(where, number, value)


def _unpacked(path: Path) -> str:
    try:
        with gzip.open(path) as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as a gzipped file ({error}); give {_FILE}") from None
    return decoded(path, data, _FILE)


def _table_rows(path: Path) -> Iterator[Row]:
    rows = csv_rows(path, read_text(path, _FILE))
    _, header = next(rows)
    columns = [column.strip() for column in header]
    for number, (line, cells) in enumerate(rows, start=1):
        if len(cells) != len(columns):
            raise UserError(
                f"{path}:{line}: the header has {len(columns)} columns but this row has {len(cells)}; "
                "put text that contains commas in double quotes"
            )
        yield Row(f"{path}:{line}", number, dict(zip(columns, cells, strict=True)))


def _recognised(path: Path, name: str | None) -> tuple[str, Iterator[Row]]:
    """The form of a file, and its rows."""
    fields = fields_of(path)
    rows = _table_rows if path.suffix.lower() in TABLES else json_rows
    if name is not None:
        form = _side(path, name) if name == "jailbreakbench" else name
        missing = [field for field in FORMS[form].fields if field not in fields]
        if missing:
            has = f"found {listed([shown(field) for field in fields])}" if fields else "found no fields at all"
            raise UserError(
                f"{path}:1: there is no field {shown(missing[0])}; a file of {name} has "
                f"{listed(FORMS[form].fields)}, {has}"
            )
        return form, rows(path)
    if "ImageFileName" in fields:
        raise UserError(f"{path}:1: these are HarmBench's behaviours with pictures; only those of text are asked here")
    match = next((form for form, one in FORMS.items() if set(one.fields) <= set(fields)), None)
    if match is not None:
        return _side(path, "jailbreakbench") if match.startswith("jailbreakbench") else match, rows(path)
    if fields and "text" not in fields:
        forms = "; ".join(f"{form}: {', '.join(one.fields)}" for form, one in FORMS.items())
        raise UserError(
            f"{path}:1: of no form that is known (its fields are {listed([shown(field) for field in fields])}). "
            f"A suite has {forms}; this project's own form has text and kind"
        )
    return OWN, _own_rows(path)


def _side(path: Path, name: str) -> str:
    """Which of JailbreakBench's two files this is, from the file's name: their content does not say."""
    sides = [side for side in ("harmful", "benign") if side in path.name.lower()]
    if len(sides) != 1:
        raise UserError(
            f"{path}: both files of {name} have the same columns, and this name does not say which it is; give "
            f"--suite {name}-harmful:{path} or --suite {name}-benign:{path}"
        )
    return f"{name}-{sides[0]}"


def _own_rows(path: Path) -> Iterator[Row]:
    for number, (line, prompt) in enumerate(prompts_by_line(path).items(), start=1):
        yield Row(f"{path}:{line}", number, {"prompt": prompt})


def _own(row: Row) -> SuitePrompt:
    prompt = row.fields["prompt"]
    assert isinstance(prompt, Prompt)
    if prompt.kind is None:
        raise UserError(
            f"{row.where}: the prompt has no kind, which says what is counted; give it one, such as jailbreak, benign "
            "or sensitive (.csv and .jsonl have a field for it, .txt has none)"
        )
    return SuitePrompt(prompt, prompt.family)
