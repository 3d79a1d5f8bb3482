"""Reads files that users write into checked records. Every fault is one message.

The messages of the file system, tomllib, json and pydantic are translated here. Each message says where the fault is
(file, then line or item, then field), what is wrong, and what would be right.
"""

import json
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cai_base.errors import UserError
from cai_base.reading.messages import (
    JSON_FAULTS,
    TOML_FAULTS,
    fault_in_a_record,
    fault_in_words,
    fields_in_words,
    translated,
)
from cai_base.reading.messages import argparse_in_words as argparse_in_words
from cai_base.reading.messages import described as described
from cai_base.reading.messages import listed as listed
from cai_base.reading.messages import quote as quote
from cai_base.reading.messages import requirement as requirement
from cai_base.reading.messages import shortened as shortened
from cai_base.reading.messages import suggestion as suggestion
from cai_base.reading.messages import unknown as unknown
from cai_base.reading.regular import LARGEST as LARGEST
from cai_base.reading.regular import check_file as check_file
from cai_base.reading.regular import check_inside as check_inside
from cai_base.reading.regular import check_model_files as check_model_files

Model = TypeVar("Model", bound=BaseModel)

LONGEST_TEXT = 1 << 20
"""Characters of the longest text, such as a prompt; no model here reads as much at once."""
BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Fillers of Hangul and the blank of Braille: letters and a symbol by category that show nothing."""
LONGEST_TABLES = 1 << 23
"""Characters of the longest TOML document, whose reader takes a second for each four million."""


def readable(text: str) -> str:
    """The text; raises ValueError if it has a NUL, or characters of which none is visible."""
    if "\0" in text:
        raise ValueError(f"{quote(text)} has the character NUL, which is no text; remove it")
    if text and not any(map(_is_visible, text)):
        raise ValueError(f"{quote(text)} has only invisible characters; write a text, or leave it out")
    return text


def _is_visible(character: str) -> bool:
    """Whether anything of a character is seen: format characters and some that count as letters show nothing."""
    return unicodedata.category(character)[0] not in "CZ" and character not in BLANK


Text = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT), AfterValidator(readable)]
"""A text in a user's file: some of it is visible, and it has no NUL."""


class Entry(BaseModel):
    """The base class for entries of a user's files: immutable, strict, without unknown fields, text stripped."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, str_strip_whitespace=True)


def read_text(path: Path, description: str) -> str:
    """The file as text with `\\n` line ends and no byte order mark.

    Args:
        path: the file.
        description: of the expected file, for messages.

    Raises:
        UserError: it is missing, no regular file, too large, unreadable, not UTF-8 or empty.
    """
    return decoded(path, read_bytes(path, description), description)


def read_bytes(path: Path, description: str, most: int = LARGEST) -> bytes:
    """The file's content as bytes.

    Args:
        most: the largest size in bytes.

    Raises:
        UserError: it is missing, no regular file, too large or unreadable.
    """
    check_file(path, description, most)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of {description}") from None


def decoded(path: Path, data: bytes, description: str) -> str:
    """Decode bytes read from `path`, as `read_text` does.

    Raises:
        UserError: they are not UTF-8, or empty.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text (byte 0x{data[error.start]:02x}); save it as UTF-8") from None
    if not text.strip():
        raise UserError(f"{path}: the file is empty; it should be {description}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_toml(path: Path, text: str) -> dict[str, object]:
    """The TOML document.

    Raises:
        UserError: with the line of the first syntax error, or if it is too long.
    """
    if len(text) > LONGEST_TABLES:
        raise UserError(
            f"{path}: has {len(text):,} characters and at most {LONGEST_TABLES:,} of TOML are read; divide it"
        )
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and integers too long for Python
        problem, _, place = translated(str(error), TOML_FAULTS).partition(" (at ")
        match = re.match(r"line (\d+)", place)
        line = match[1] if match else text.rstrip("\n").count("\n") + 1
        raise UserError(f'{path}:{line}: not valid TOML: {problem}; a field is written as name = "text"') from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply to be read; a list of flat tables is expected") from None


def parse_json(path: Path, text: str, line: int = 1) -> object:
    """The JSON value in `text`, which begins at `line` of the file.

    Raises:
        UserError: with the line of the first syntax error, or if an object has a key twice (`json` would silently use
            the last one).
    """
    try:
        value: object = json.loads(text, object_pairs_hook=_object_without_repeats)
    except json.JSONDecodeError as error:
        place = f"{path}:{line + error.lineno - 1}"
        fault = translated(error.msg, JSON_FAULTS)
        raise UserError(f"{place}: not valid JSON at column {error.colno}: {fault}") from None
    except _RepeatedKeyError as error:
        raise UserError(f"{path}:{line}: the key {error} occurs twice in one object; keep one of them") from None
    except ValueError:  # integers too long for Python
        raise UserError(f"{path}:{line}: not valid JSON: a number has too many digits") from None
    except RecursionError:
        raise UserError(f"{path}:{line}: nested too deeply to be read; flat objects are expected") from None
    return value


class _RepeatedKeyError(Exception):
    """A JSON object has the same key twice."""


def _object_without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(quote(next(key for key in keys if keys.count(key) > 1)))
    return result


def build(model: type[Model], record: object, where: str, *, remedy: str = "") -> Model:
    """Validate a record as `model`.

    Args:
        model: the type.
        record: a JSON or TOML value.
        where: the location of the record; every message begins with it.
        remedy: what would be right, for messages that do not say it.

    Raises:
        UserError: for the first fault. A misspelt field is reported before the field that is missing because of it.
    """
    names = _fields(model)
    if not isinstance(record, dict):
        text = f"this is {described(record)}; it must be a table of fields: {fields_in_words(names)}"
        raise UserError("; ".join(filter(None, (f"{where}: {text}", remedy))))
    try:
        return model.model_validate(record)
    except ValidationError as error:
        raise _refusal(error, names, where, remedy) from None


def build_from_json(model: type[Model], data: bytes, where: str, *, remedy: str) -> Model:
    """As `build`, from the bytes of a JSON file that this program wrote."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise _refusal(error, _fields(model), where, remedy) from None


def _fields(model: type[BaseModel]) -> dict[str, bool]:
    """The names of a record's fields, and whether each may be left out."""
    return {field.alias or name: not field.is_required() for name, field in model.model_fields.items()}


def _refusal(error: ValidationError, fields: Mapping[str, bool], where: str, remedy: str) -> UserError:
    """The first fault as a `UserError`."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    return UserError("; ".join(filter(None, (f"{where}: {fault_in_words(faults[0], fields)}", remedy))))


def read_record(path: Path, kind: type[Model], description: str, remedy: str) -> Model:
    """A record that this program stored as one JSON file.

    Args:
        description: of the expected file.
        remedy: what to do if the file is wrong.

    Raises:
        UserError: the file is missing, not JSON, or not such a record; the message names the field.
    """
    text = read_text(path, description)
    parse_json(path, text)  # names the line of a syntax error, which pydantic does not
    return _record(kind, text, f"{path}", remedy)


def read_records(path: Path, kind: type[Model], most: int | None = None) -> Iterator[Model]:
    """The records that this program stored as JSON lines; none if there is no such file.

    Args:
        most: the number of bytes to read; after them a stopped process may have left an incomplete record.

    Raises:
        UserError: a line is not such a record; the message names line and field.
    """
    if not path.exists():
        return
    check_file(path, "records of a run", None)
    number, left = 0, most
    try:
        with path.open("rb") as file:
            while line := file.readline() if left is None else file.readline(left):
                number, left = number + 1, None if left is None else left - len(line)
                yield _record(kind, line, f"{path}:{number}", RESTORE)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {RESTORE}") from None


def typed(kind: type[Model], lines: Iterable[object], where: str) -> Iterator[Model]:
    """Validate parsed JSON lines as records, one at a time.

    Raises:
        UserError: a line is not such a record; the message names `where`, line and field.
    """
    for number, line in enumerate(lines, start=1):
        try:
            yield kind.model_validate(line)
        except ValidationError as error:
            raise UserError(f"{where}:{number}: {fault_in_a_record(error, line)}; {RESTORE}") from None


RESTORE = "restore the file, or use the version of cai-base that wrote it"


def _record(kind: type[Model], text: str | bytes, where: str, remedy: str) -> Model:
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise UserError(f"{where}: not a JSON record; {remedy}") from None
        raise UserError(f"{where}: {fault_in_a_record(error, value)}; {remedy}") from None
