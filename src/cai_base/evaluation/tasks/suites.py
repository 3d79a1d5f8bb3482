"""Standard suites of prompts, read from the files that their authors publish.

The formats are in `suite_forms`. A file is recognised by its columns; if several formats fit, it is refused, and the
message says how to name one.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cai_base import randomness
from cai_base.errors import UserError
from cai_base.evaluation.tasks.suite_forms import FORMS, JAILBREAKBENCH, Columns, Reader, SuitePrompt
from cai_base.evaluation.tasks.suite_rows import SUITE_FILE, Row, fields_of, rows_of
from cai_base.inputs.prompts import TEXT_COLUMNS, Prompt, prompts_by_line, read_prompts
from cai_base.reading import listed, quote

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite of prompts.

    Attributes:
        name: the name of its format; for files in this project's format, the file's name.
        files: the names of its files.
        sha256: hash of their concatenated contents.
        prompts: in the order of the files.
        left_out: the number of rows that are left out, by reason.
        ignored: what else the files contain, one sentence each; only for files in this project's format.
    """

    name: str
    files: tuple[str, ...]
    sha256: str
    prompts: tuple[SuitePrompt, ...]
    left_out: Mapping[str, int]
    ignored: tuple[str, ...] = ()


NUMBERS = ("", "id", "index", "idx", "unnamed: 0")
"""Columns that only number the rows, and do not help to recognise a file."""
HARMLESS_NAMES = ("benign", "harmless", "safe")
"""Words in a file's name that contradict a format of attacks that is recognised by very common columns."""
OWN = "prompts"
"""The format of this project's own files of prompts."""


def read(name: str | None, files: Sequence[Path]) -> Suite:
    """Read a suite from its files.

    Args:
        name: its format; for `jailbreakbench` the file's name says which of two it is. None recognises it by its
            columns.
        files: the files that make up the suite together.

    Raises:
        UserError: a file has another format, or a row has a fault.
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
                raise UserError(f"{row.where}: the id {quote(item.prompt.id)} occurs twice; give each one of its own")
            else:
                prompts[item.prompt.id] = item
        digest.update(path.read_bytes())
    if not prompts:
        raise UserError(f"{files[0]}: there are no prompts in it; it should be {SUITE_FILE}")
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
    """`limit` random items in their order. Suites are sorted, so the first items would often be of one kind.

    The draw is always the same, and the items of a smaller limit are among those of a larger one.
    """
    if limit is None or limit >= len(items):
        return tuple(items)
    places = randomness.stream("suite", "some").permutation(len(items))[:limit]
    return tuple(items[place] for place in sorted(places.tolist()))


def _recognised(path: Path, name: str | None) -> tuple[str, Reader, Iterator[Row]]:
    """The name of a file's format, the function that reads its rows, and the rows."""
    fields = fields_of(path)
    plain = {field.strip().casefold() for field in fields}
    if name is not None:
        form = _side(path, name) if name == JAILBREAKBENCH else name
        fitting = next((one for one in FORMS[form].columns if _has(plain, one)), None)
        if fitting is None:
            missing = next(field for field in FORMS[form].fields if field.casefold() not in plain)
            has = f"found {listed([quote(field) for field in fields])}" if fields else "found no fields at all"
            raise UserError(
                f"{path}:1: there is no field {quote(missing)}; a file of {name} has "
                f"{listed(FORMS[form].fields)}, {has}"
            )
        return form, fitting.read, rows_of(path)
    if "imagefilename" in plain:
        raise UserError(f"{path}:1: these are HarmBench's behaviours with images; give its file of text behaviours")
    if plain and not _own_columns(plain):
        form, columns = _form_of(path, fields)
        return _side(path, JAILBREAKBENCH) if form.startswith(JAILBREAKBENCH) else form, columns.read, rows_of(path)
    return OWN, _own, _own_rows(path)


def _has(plain: Collection[str], columns: Columns) -> bool:
    return all(name.casefold() in plain for name in columns.names)


def _own_columns(plain: Collection[str]) -> bool:
    """Whether the columns are those of this project's format: the prompt, and its kind."""
    return "text" in plain or ("kind" in plain and any(name in plain for name in TEXT_COLUMNS))


def _form_of(path: Path, fields: Sequence[str]) -> tuple[str, Columns]:
    """The only format that a file's columns fit.

    Raises:
        UserError: no format fits, several do, or the file's name contradicts the format.
    """
    plain = {field.strip().casefold() for field in fields}
    fitting: dict[str, Columns] = {}
    for form, one in FORMS.items():
        for columns in one.columns:
            if _has(plain, columns) and columns not in fitting.values():
                fitting[form] = columns
    # JailbreakBench's columns include AdvBench's. Where both fit, the format with more of the file's columns is meant.
    names = {form: {name.casefold() for name in columns.names} for form, columns in fitting.items()}
    fitting = {
        form: columns for form, columns in fitting.items() if not any(names[form] < other for other in names.values())
    }
    header = listed([quote(field) for field in fields])
    if not fitting:
        forms = "; ".join(f"{form}: {', '.join(one.fields)}" for form, one in FORMS.items())
        raise UserError(
            f"{path}:1: unknown format (its fields are {header}). "
            f"The formats are {forms}; this project's own format has text and kind"
        )
    say_which = " or ".join(f"--suite {form}:{path}" for form in fitting)
    if len(fitting) > 1:
        raise UserError(f"{path}:1: its columns ({header}) fit {listed(list(fitting))}; say which by {say_which}")
    ((form, columns),) = fitting.items()
    others = [field for field in fields if field.strip().casefold() not in {*names[form], *NUMBERS}]
    if not columns.further and others:
        raise UserError(
            f"{path}:1: it has the columns of {form}, but others too "
            f"({listed([quote(field) for field in others])}), so it may be something else; if all its prompts are "
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
    """Which of JailbreakBench's two files this is. Only the file's name says it."""
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
