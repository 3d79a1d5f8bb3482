"""The rows of a suite's files: CSV tables, JSON arrays and JSON lines, gzipped or not."""

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cai_base.errors import UserError
from cai_base.inputs.tables import csv_rows, jsonl_records, refuse_ragged
from cai_base.reading import LARGEST, check_file, decoded, described, parse_json, quote, read_text, readable

TABLES = (".csv",)
LINES = (".json", ".jsonl", ".gz")
SUITE_FILE = "a suite's file as its authors publish it, or a file of prompts in this project's form"
"""What messages about a wrong file say it should be."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: where it stands, its number from 1, and its fields by name, in lower case."""

    where: str
    number: int
    fields: Mapping[str, object]

    def text(self, name: str) -> str:
        """The field's text.

        Raises:
            UserError: it is empty, or no text, or none of it is visible.
        """
        value = self.get(name)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{self.where}: the field {quote(name)} is {described(value)}; it must be text")
        return self.readable(name, value.strip())

    def readable(self, name: str, text: str) -> str:
        """A text from the field `name`; raises UserError if it has a NUL or nothing visible."""
        try:
            return readable(text)
        except ValueError as error:
            raise UserError(f"{self.where}: the field {quote(name)}: {error}") from None

    def get(self, name: str) -> object:
        """The field's value, whatever the case of its name; None if there is none."""
        return self.fields.get(name.casefold())


def fields_of(path: Path) -> tuple[str, ...]:
    """The fields of a file's first row, in the file's spelling; none where it has no rows with fields.

    Raises:
        UserError: it cannot be read, or is no CSV or JSON.
    """
    if path.suffix.lower() in TABLES:
        _, header = next(csv_rows(path, read_text(path, SUITE_FILE)))
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
        raise UserError(f"{where}: the field {quote(twice)} occurs twice, upper and lower case apart; keep one of them")


def _objects(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """The objects of a JSON array or of JSON lines, each with its place."""
    text = _unpacked(path) if path.suffix.lower() == ".gz" else read_text(path, SUITE_FILE)
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
    check_file(path, SUITE_FILE)
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as a gzipped file ({error}); give {SUITE_FILE}") from None
    if len(data) > LARGEST:  # a small file can hold any length of zeros
        raise UserError(f"{path}: unpacks to more than {LARGEST:,} bytes, which are read at most; divide it")
    return decoded(path, data, SUITE_FILE)


def _table_rows(path: Path) -> Iterator[Row]:
    rows = csv_rows(path, read_text(path, SUITE_FILE))
    first, header = next(rows)
    columns = [column.strip() for column in header]
    _refuse_repeats(columns, f"{path}:{first}")
    for number, (line, cells) in enumerate(rows, start=1):
        refuse_ragged(path, line, columns, cells)
        where = f"{path}:{line}"
        yield Row(where, number, {name.casefold(): cell for name, cell in zip(columns, cells, strict=True)})
