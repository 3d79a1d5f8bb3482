"""Reads CSV and JSON-lines files, each row or value with its line number."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from cai_base.errors import UserError
from cai_base.reading import parse_json


def jsonl_records(path: Path, text: str) -> Iterator[tuple[int, object]]:
    """The value on each line that is not empty, with the line's number."""
    # Not splitlines(), because a JSON string may contain U+2028 and similar characters.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, parse_json(path, line, number)


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with the number of the line on which it begins.

    Raises:
        UserError: the text is no CSV, or its columns are not separated by commas.
    """
    header = text.lstrip().partition("\n")[0]
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if sign in header and "," not in header:  # before parsing, which would report something else
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


def refuse_ragged(path: Path, line: int, columns: Sequence[str], cells: Sequence[str]) -> None:
    """Raises UserError if a row has more or fewer cells than the header has columns."""
    if len(cells) != len(columns):
        raise UserError(
            f"{path}:{line}: the header has {len(columns)} columns but this row has {len(cells)}; "
            "put text that contains commas in double quotes"
        )
