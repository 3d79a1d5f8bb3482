"""Reads files that users write into checked records. Every fault is one message.

The messages of the file system, tomllib, json and pydantic are translated here. Each message says where the fault is
(file, then line or item, then field), what is wrong, and what would be right.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from cai_base.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


class Entry(BaseModel):
    """The base class for entries of a user's files: immutable, strict, without unknown fields, text stripped."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, str_strip_whitespace=True)


def read_text(path: Path, wanted: str) -> str:
    """The file as text with `\\n` line ends and no byte order mark.

    Args:
        path: the file.
        wanted: a description of the expected file, for messages.

    Raises:
        UserError: it is missing, a directory, unreadable, not UTF-8 or empty.
    """
    return decoded(path, read_bytes(path, wanted), wanted)


def read_bytes(path: Path, wanted: str) -> bytes:
    """The file's content as bytes.

    Raises:
        UserError: it is missing, a directory or unreadable.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; give the path of {wanted}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: this is a directory; give the path of {wanted}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); give the path of {wanted}") from None


def decoded(path: Path, data: bytes, wanted: str) -> str:
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
        raise UserError(f"{path}: the file is empty; it should be {wanted}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_toml(path: Path, text: str) -> dict[str, object]:
    """The TOML document.

    Raises:
        UserError: with the line of the first syntax error.
    """
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and integers too long for Python
        problem, _, place = _translated(str(error), TOML_FAULTS).partition(" (at ")
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
        fault = _translated(error.msg, JSON_FAULTS)
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
        raise _RepeatedKeyError(shown(next(key for key in keys if keys.count(key) > 1)))
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
    names = _field_names(model)
    if not isinstance(record, dict):
        text = f"this is {described(record)}; it must be a table of fields: {listed(names)}"
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
        raise _refusal(error, _field_names(model), where, remedy) from None


def _field_names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _refusal(error: ValidationError, fields: Collection[str], where: str, remedy: str) -> UserError:
    """The first fault as a `UserError`."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    return UserError("; ".join(filter(None, (f"{where}: {_fault_in_words(faults[0], fields)}", remedy))))


def read_record(path: Path, kind: type[Model], wanted: str, remedy: str) -> Model:
    """A record that this program stored as one JSON file.

    Args:
        wanted: a description of the expected file.
        remedy: what to do if the file is wrong.

    Raises:
        UserError: the file is missing, not JSON, or not such a record; the message names the field.
    """
    text = read_text(path, wanted)
    parse_json(path, text)  # names the line of a syntax error, which pydantic does not
    return _record(kind, text, f"{path}", remedy)


def read_records(path: Path, kind: type[Model], most: int | None = None) -> Iterator[Model]:
    """The records that this program stored as JSON lines; none if there is no such file.

    Args:
        most: the number of bytes to read; after them a stopped process may have left an incomplete record.

    Raises:
        UserError: a line is not such a record; the message names line and field.
    """
    try:
        lines = path.read_bytes()[:most].splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {RESTORE}") from None
    for number, line in enumerate(lines, start=1):
        yield _record(kind, line, f"{path}:{number}", RESTORE)


def typed(kind: type[Model], lines: Iterable[object], where: str) -> list[Model]:
    """Validate parsed JSON lines as records.

    Raises:
        UserError: a line is not such a record; the message names `where`, line and field.
    """
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(kind.model_validate(line))
        except ValidationError as error:
            raise UserError(f"{where}:{number}: {_fault_in_a_record(error, line)}; {RESTORE}") from None
    return records


RESTORE = "restore the file, or use the version of cai-base that wrote it"


def _record(kind: type[Model], text: str | bytes, where: str, remedy: str) -> Model:
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise UserError(f"{where}: not a JSON record; {remedy}") from None
        raise UserError(f"{where}: {_fault_in_a_record(error, value)}; {remedy}") from None


def _fault_in_a_record(error: ValidationError, value: object) -> str:
    """The first of pydantic's errors about a stored record, with the field's dotted name."""
    fault = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    field, inner = "", value
    for step in fault["loc"]:
        try:
            inner = inner[step]  # type: ignore[index]
        except (LookupError, TypeError):
            if fault["type"] != "missing":
                break  # not a field, but a branch of a union
        field = f"{field}.{step}" if field else str(step)
    if fault["type"] == "json_invalid":  # accepted by Python's parser, such as half of a surrogate pair
        return f"not valid JSON: {_translated(fault['ctx']['error'], JSON_FAULTS)}"
    if not field:
        return f"this is {described(inner)}; it must be a table of fields"
    name = shown(field, most=120)
    match fault["type"]:
        case "missing":
            return f"the field {name} is missing"
        case "extra_forbidden":
            return f"the field {name} is unknown"
        case _:
            return f"the field {name} is {described(inner)}; it {requirement(fault)}"


def _fault_in_words(fault: ErrorDetails, fields: Collection[str]) -> str:
    """One of pydantic's errors as a sentence."""
    path = [str(part) for part in fault["loc"] if isinstance(part, str) and part != "[key]"]
    nested = len(path) > 1  # `fields` are the names of the outermost record only
    field = shown(".".join(path)) if path else "?"
    match fault["type"]:
        case "extra_forbidden":
            return f"unknown field {field}" if nested else unknown("field", path[0], fields)
        case "missing":
            return f"the field {field} is missing" + ("" if nested else f"; the fields are {listed(fields)}")
        case "value_error":
            return str(fault["ctx"]["error"])
        case "json_invalid":
            return f"not valid JSON: {_translated(fault['ctx']['error'], JSON_FAULTS)}"
        case _:
            return f"the field {field} is {described(fault['input'])}; it {requirement(fault)}"


def requirement(fault: ErrorDetails) -> str:
    """What a value must be, from pydantic's error about it, such as `must be a whole number`."""
    context = fault.get("ctx", {})
    match fault["type"]:
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return "must be a whole number"
        case "float_parsing" | "float_type":
            return "must be a number"
        case "finite_number":
            return "must be a finite number"
        case "bool_parsing" | "bool_type":
            return "must be true or false"
        case "greater_than":
            return f"must be greater than {context['gt']:g}"
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}"
        case "less_than":
            return f"must be less than {context['lt']:g}"
        case "less_than_equal":
            return f"must be at most {context['le']:g}"
        case "literal_error":
            return f"must be {context['expected']}"
        case "string_type" | "string_too_short":
            return "must be text"
        case "string_unicode":
            return "must be text of whole unicode characters, without half of a surrogate pair"
        case "string_pattern_mismatch":
            return f"must match the pattern {context['pattern']}"
        case "dict_type" | "model_type":
            return "must be a table of fields"
        case "list_type" | "tuple_type" | "too_short":
            return "must be a list that is not empty"
        case "none_required":
            return "must be null"
        case "path_type":
            return "must be a path"
        case _:
            return f"does not fit: {fault['msg'][0].lower()}{fault['msg'][1:]}"


_HALF = "a text has half of a surrogate pair, an escape such as \\ud800 without its second half"
JSON_FAULTS = {
    "Unterminated string": 'the text that begins there has no closing "',
    "Expecting property name": "the name of a field in double quotes is expected",
    "Illegal trailing comma": "there is a comma before the closing bracket; leave it out",
    "Expecting ':'": "a colon between the name of a field and its value is expected",
    "Expecting ','": "a comma or a closing bracket is expected",
    "Expecting value": 'a value is expected: "text", a number, true, false, null, [a list] or {an object}',
    "Extra data": "there is text after the value; leave it out, or write it on a new line",
    "Invalid control character": "a text contains a line break or a control character; write a line break as \\n",
    "Invalid \\": "a backslash in a text begins no known escape; write it twice",
    "lone leading surrogate": _HALF,
    "unexpected end of hex escape": _HALF,
}
"""Beginnings of the messages of JSON parsers, with their meanings."""

TOML_FAULTS = {
    "Invalid value": "the value is missing, or is text without quotes",
    "Invalid statement": "the line is neither a field nor the heading of a table",
    "Expected '='": "an equals sign after the name of the field is expected",
    "Expected newline": "there is text after the value on the line",
    "Unterminated string": "a text has no closing quote",
    "Illegal character": "a text in single or double quotes continues on the next line; use three quotes",
    "Unclosed array": "a list has no closing bracket",
    "Expected ']'": "the heading of the table has no closing bracket",
    "Expected ']]'": "the heading of the table has no closing brackets",
    "Cannot overwrite a value": "the field occurs twice",
    "Cannot declare": "the table occurs twice",
    "Unescaped '\\'": "a backslash in double quotes begins no known escape; write it twice, or use single quotes",
}
"""Beginnings of the messages of tomllib, with their meanings."""


def _translated(message: str, meanings: Mapping[str, str]) -> str:
    """A parser's message in plain words, with its location after ` (at `; an unknown message is unchanged."""
    for beginning, meaning in meanings.items():
        if message.startswith(beginning):
            return meaning + "".join(message.partition(" (at ")[1:])
    return message


def argparse_in_words(message: str) -> str:
    """A message of argparse in this project's words."""
    return message.replace("expected one argument", "needs a value").replace("unrecognized", "unknown")


def suggestion(name: str, known: Collection[str], *, quote: bool = False) -> str:
    """`did you mean x?`, with the known name closest to `name`; empty if none is close."""
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean {repr(close[0]) if quote else close[0]}?" if close else ""


def unknown(noun: str, name: str, known: Collection[str]) -> str:
    """A sentence that `name` is not one of the `known` names, and which of them was probably meant."""
    remedy = suggestion(name, known, quote=True) or f"the {noun}s are {listed(known)}"
    return f"unknown {noun} {shown(name)}; {remedy}"


def listed(names: Collection[str]) -> str:
    """`a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def described(value: object) -> str:
    """The kind of a value in words; a text is shown, because it is often a misspelling."""
    match value:
        case str():
            return shown(value) if value.strip() else "empty"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "a table of fields"
        case None:
            return "null"
        case _:
            return f"a {type(value).__name__}"


def shown(text: object, most: int = 60) -> str:
    """Text from an unchecked file, made safe for a message: quoted, escaped for a terminal, shortened."""
    quoted = repr(text)
    return quoted if len(quoted) <= most else f"{quoted[: most - 4]}...{quoted[0]}"


def shortened(text: str, most: int = 60) -> str:
    """A text cut to at most `most` characters, with `...` for the rest."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
