"""Standard suites: prompts read from files in the form in which their authors publish them, each with its kind.

Which prompts are attacks and which are safe decides what is counted: attack success, or over-refusal. A suite does not
mix the two silently: the forms that hold both say which is which.
"""

import gzip
import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cai_base import randomness
from cai_base.errors import UserError
from cai_base.inputs.prompts import (
    JAILBREAK,
    SENSITIVE,
    TEXT_COLUMNS,
    Prompt,
    csv_rows,
    jsonl_records,
    prompts_by_line,
    read_prompts,
    refuse_ragged,
)
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
        ignored: what else is in the files, one sentence each; only for files in this project's own form.
    """

    name: str
    files: tuple[str, ...]
    sha256: str
    prompts: tuple[SuitePrompt, ...]
    left_out: Mapping[str, int]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: where it stands, its number from 1, and its fields by name, in lower case."""

    where: str
    number: int
    fields: Mapping[str, object]

    def text(self, name: str) -> str:
        """The field's text.

        Raises:
            UserError: it is empty, or no text.
        """
        value = self.get(name)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{self.where}: the field {shown(name)} is {described(value)}; it must be text")
        return value.strip()

    def get(self, name: str) -> object:
        """The field's value, whatever the case of its name; None if there is none."""
        return self.fields.get(name.casefold())


Reader = Callable[[Row, str], "SuitePrompt | str"]
"""Reads a row, given the name of its form, as a prompt; or gives the reason why the row is left out."""


@dataclass(frozen=True, slots=True)
class Columns:
    """One set of columns that a form comes in.

    Attributes:
        names: those that it must have, in any order and case.
        read: how a row is read.
        further: whether other columns may stand beside them. Where the names are so plain that other files have them
            too, no column but a row's number may.
    """

    names: tuple[str, ...]
    read: Reader
    further: bool = True


@dataclass(frozen=True, slots=True)
class Form:
    """A published form: the sets of columns that it comes in."""

    columns: tuple[Columns, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns of the authors' own file."""
        return self.columns[0].names


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


def _attack(column: str) -> Reader:
    """Reads a row as the attack in one of its columns."""
    return lambda row, name: SuitePrompt(_prompt(f"{name}-{row.number}", ATTACK, row.text(column)))


def _harmbench_extra(row: Row, name: str) -> SuitePrompt:
    text, context, category = row.text("Behavior"), row.get("ContextString"), row.get("Category")
    if isinstance(context, str) and context.strip():
        text = f"{context.strip()}{CONTEXT}{text}"
    return SuitePrompt(
        _prompt(row.text("BehaviorID"), ATTACK, text),
        category.strip() if isinstance(category, str) and category.strip() else None,
    )


def _jailbreakbench(row: Row, name: str) -> SuitePrompt:
    kind = SAFE if name.endswith("-benign") else ATTACK
    return SuitePrompt(_prompt(f"{name}-{row.number}", kind, row.text("Goal")), row.text("Category"))


def _strongreject(row: Row, name: str) -> SuitePrompt:
    return SuitePrompt(_prompt(f"{name}-{row.number}", ATTACK, row.text("forbidden_prompt")), row.text("category"))


def _xstest(row: Row, name: str) -> SuitePrompt:
    category = row.text("type")
    label = row.text("label") if row.get("label") is not None else None
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


_JAILBREAKBENCH = Form((Columns(("Goal", "Target", "Behavior", "Category"), _jailbreakbench),))
_HARMBENCH_EXTRA = Columns(("Behavior", "Category", "Tags", "ContextString", "BehaviorID"), _harmbench_extra)
FORMS: Mapping[str, Form] = {
    "harmbench": Form(
        (Columns(("Behavior", "FunctionalCategory", "SemanticCategory", "ContextString", "BehaviorID"), _harmbench),)
    ),
    "harmbench-extra": Form((_HARMBENCH_EXTRA,)),
    "advbench": Form(
        (
            Columns(("goal", "target"), _attack("goal"), further=False),
            Columns(("prompt", "target"), _attack("prompt"), further=False),
            _HARMBENCH_EXTRA,
        )
    ),
    "jailbreakbench-harmful": _JAILBREAKBENCH,
    "jailbreakbench-benign": _JAILBREAKBENCH,
    "strongreject": Form((Columns(("category", "source", "forbidden_prompt"), _strongreject),)),
    "xstest": Form((Columns(("prompt", "type", "focus"), _xstest),)),
    "hh-red-team": Form((Columns(("transcript", "task_description"), _red_team),)),
}
"""Every form by its name. JailbreakBench's two files have one form, and differ in what their prompts are. HarmBench
keeps AdvBench, and other attacks, in one form of its own; hub re-exports of AdvBench call the goal a prompt."""
NUMBERS = ("", "id", "index", "idx", "unnamed: 0")
"""Columns that number the rows, and say nothing of what a file is."""
HARMLESS_NAMES = ("benign", "harmless", "safe")
"""Words in a file's name that contradict a form of attacks with columns that say nothing."""
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
    ignored: list[str] = []
    for path in files:
        form, reader, rows = _recognised(path, name)
        named = name or (path.stem if form == OWN else form)
        if form == OWN:
            ignored += read_prompts(path).ignored
        for row in rows:
            item = reader(row, form)
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
    return Suite(
        named,
        tuple(path.name for path in files),
        digest.hexdigest(),
        tuple(prompts.values()),
        dict(left_out),
        tuple(ignored),
    )


def draw_items(items: Sequence[Item], limit: int | None) -> tuple[Item, ...]:
    """`limit` items in their order, drawn from all of them: suites are sorted, and the first ones are of one kind.

    It is the same draw every time, and a greater limit adds to a smaller one.
    """
    if limit is None or limit >= len(items):
        return tuple(items)
    places = randomness.stream("suite", "some").permutation(len(items))[:limit]
    return tuple(items[place] for place in sorted(places.tolist()))


def fields_of(path: Path) -> tuple[str, ...]:
    """The fields of a file's first row, in the file's spelling; none where it has no rows with fields.

    Raises:
        UserError: it cannot be read, or is no CSV or JSON.
    """
    if path.suffix.lower() in TABLES:
        _, header = next(csv_rows(path, read_text(path, _FILE)))
        return tuple(column.strip() for column in header)
    if path.suffix.lower() in LINES:
        first = next(_objects(path), None)
        return tuple(first[1]) if first else ()
    return ()


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a CSV file, or the objects of a JSON array or of JSON lines, gzipped or not.

    Raises:
        UserError: a row has too few or too many cells, something is no object, or the file cannot be read.
    """
    if path.suffix.lower() in TABLES:
        yield from _table_rows(path)
        return
    for number, (where, fields) in enumerate(_objects(path), start=1):
        _refuse_repeats(list(fields), where)
        yield Row(where, number, {name.strip().casefold(): value for name, value in fields.items()})


def _refuse_repeats(names: Sequence[str], where: str) -> None:
    """Raises UserError where two fields have one name, upper and lower case apart."""
    plain = [name.strip().casefold() for name in names]
    twice = next((name for name in plain if name and plain.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{where}: the field {shown(twice)} stands twice, upper and lower case apart; keep one of them")


def _objects(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """The objects of a JSON array or of JSON lines, each with its place."""
    text = _unpacked(path) if path.suffix.lower() == ".gz" else read_text(path, _FILE)
    if text.lstrip().startswith("["):
        array = parse_json(path, text)
        assert isinstance(array, list)
        places = [(f"{path}: item {number}", value) for number, value in enumerate(array, start=1)]
    else:
        places = [(f"{path}:{line}", value) for line, value in jsonl_records(path, text)]
    for where, value in places:
        if not isinstance(value, dict):
            raise UserError(f"{where}: this is {described(value)}; it must be an object with fields")
        yield where, value


def _unpacked(path: Path) -> str:
    try:
        with gzip.open(path) as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as a gzipped file ({error}); give {_FILE}") from None
    return decoded(path, data, _FILE)


def _table_rows(path: Path) -> Iterator[Row]:
    rows = csv_rows(path, read_text(path, _FILE))
    first, header = next(rows)
    columns = [column.strip() for column in header]
    _refuse_repeats(columns, f"{path}:{first}")
    for number, (line, cells) in enumerate(rows, start=1):
        refuse_ragged(path, line, columns, cells)
        where = f"{path}:{line}"
        yield Row(where, number, {name.casefold(): cell for name, cell in zip(columns, cells, strict=True)})


def _recognised(path: Path, name: str | None) -> tuple[str, Reader, Iterator[Row]]:
    """The form of a file, how its rows are read, and its rows."""
    fields = fields_of(path)
    plain = {field.strip().casefold() for field in fields}
    if name is not None:
        form = _side(path, name) if name == "jailbreakbench" else name
        fitting = next((one for one in FORMS[form].columns if _has(plain, one)), None)
        if fitting is None:
            missing = next(field for field in FORMS[form].fields if field.casefold() not in plain)
            has = f"found {listed([shown(field) for field in fields])}" if fields else "found no fields at all"
            raise UserError(
                f"{path}:1: there is no field {shown(missing)}; a file of {name} has "
                f"{listed(FORMS[form].fields)}, {has}"
            )
        return form, fitting.read, rows_of(path)
    if "imagefilename" in plain:
        raise UserError(f"{path}:1: these are HarmBench's behaviours with pictures; only those of text are asked here")
    if plain and not _own_columns(plain):
        form, columns = _form_of(path, fields)
        return _side(path, "jailbreakbench") if columns.read is _jailbreakbench else form, columns.read, rows_of(path)
    return OWN, _own, _own_rows(path)


def _has(plain: Collection[str], columns: Columns) -> bool:
    return all(name.casefold() in plain for name in columns.names)


def _own_columns(plain: Collection[str]) -> bool:
    """Whether columns are those of this project's own form: prompts, and the kind that says what they count for."""
    return "text" in plain or ("kind" in plain and any(name in plain for name in TEXT_COLUMNS))


def _form_of(path: Path, fields: Sequence[str]) -> tuple[str, Columns]:
    """The one form that all of a file's columns fit.

    Raises:
        UserError: no form fits, or several do, or the columns fit and yet something speaks against it.
    """
    plain = {field.strip().casefold() for field in fields}
    fitting: dict[str, Columns] = {}
    for form, one in FORMS.items():
        for columns in one.columns:
            if _has(plain, columns) and columns not in fitting.values():
                fitting[form] = columns
    # JailbreakBench's columns contain AdvBench's: what names more of a file's columns is what the file is.
    names = {form: {name.casefold() for name in columns.names} for form, columns in fitting.items()}
    fitting = {
        form: columns for form, columns in fitting.items() if not any(names[form] < other for other in names.values())
    }
    header = listed([shown(field) for field in fields])
    if not fitting:
        forms = "; ".join(f"{form}: {', '.join(one.fields)}" for form, one in FORMS.items())
        raise UserError(
            f"{path}:1: of no form that is known (its fields are {header}). "
            f"A suite has {forms}; this project's own form has text and kind"
        )
    say_which = " or ".join(f"--suite {form}:{path}" for form in fitting)
    if len(fitting) > 1:
        raise UserError(f"{path}:1: its columns ({header}) fit {listed(list(fitting))}; say which by {say_which}")
    ((form, columns),) = fitting.items()
    others = [field for field in fields if field.strip().casefold() not in {*names[form], *NUMBERS}]
    if not columns.further and others:
        raise UserError(
            f"{path}:1: it has the columns of {form}, but others too "
            f"({listed([shown(field) for field in others])}), so it may be something else; if all its prompts are "
            f"attacks, give {say_which}"
        )
    doubt = [word for word in re.split("[^a-z]+", path.name.lower()) if word in HARMLESS_NAMES]
    if not columns.further and doubt:
        raise UserError(
            f"{path}: it has the columns of {form}, whose prompts are attacks, but its name says {doubt[0]}; if all "
            f"its prompts are attacks, give {say_which}"
        )
    return form, columns


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


def _own(row: Row, name: str) -> SuitePrompt:
    prompt = row.fields["prompt"]
    assert isinstance(prompt, Prompt)
    if prompt.kind is None:
        raise UserError(
            f"{row.where}: the prompt has no kind, which says what is counted; give it one, such as jailbreak, benign "
            "or sensitive (.csv and .jsonl have a field for it, .txt has none)"
        )
    return SuitePrompt(prompt, prompt.family)
