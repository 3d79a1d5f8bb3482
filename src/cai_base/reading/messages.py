"""Words for messages: the errors of pydantic, json, tomllib and argparse, and values from unchecked files."""

import difflib
from collections.abc import Collection, Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails


def fault_in_a_record(error: ValidationError, value: object) -> str:
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
        return f"not valid JSON: {translated(fault['ctx']['error'], JSON_FAULTS)}"
    if not field:
        return f"this is {described(inner)}; it must be a table of fields"
    name = quote(field, most=120)
    match fault["type"]:
        case "missing":
            return f"the field {name} is missing"
        case "extra_forbidden":
            return f"the field {name} is unknown"
        case _:
            return f"the field {name} is {described(inner)}; it {requirement(fault)}"


def fault_in_words(fault: ErrorDetails, fields: Mapping[str, bool]) -> str:
    """One of pydantic's errors as a sentence; `fields` says of each field's name whether it may be left out."""
    path = [str(part) for part in fault["loc"] if isinstance(part, str) and part != "[key]"]
    nested = len(path) > 1  # `fields` are the names of the outermost record only
    field = quote(".".join(path)) if path else "?"
    match fault["type"]:
        case "extra_forbidden":
            meant = suggestion(path[-1], fields, quote=True) or f"the fields are {fields_in_words(fields)}"
            return f"unknown field {field}" + ("" if nested else f"; {meant}")
        case "missing":
            return f"the field {field} is missing" + ("" if nested else f"; the fields are {fields_in_words(fields)}")
        case "value_error":
            return str(fault["ctx"]["error"])
        case "json_invalid":
            return f"not valid JSON: {translated(fault['ctx']['error'], JSON_FAULTS)}"
        case _:
            return f"the field {field} is {described(fault['input'])}; it {requirement(fault)}"


def fields_in_words(fields: Mapping[str, bool]) -> str:
    """`a, b and c (optional)`, from the names of fields, and whether each may be left out."""
    return listed([f"{name} (optional)" if optional else name for name, optional in fields.items()])


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
        case "string_too_long":
            return f"must have at most {context['max_length']:,} characters"
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


def translated(message: str, meanings: Mapping[str, str]) -> str:
    """A parser's message in plain words, with its location after ` (at `; an unknown message is unchanged."""
    for beginning, meaning in meanings.items():
        if message.startswith(beginning):
            return meaning + "".join(message.partition(" (at ")[1:])
    return message


def argparse_in_words(message: str) -> str:
    """A message of argparse in this project's words."""
    return message.replace("expected one argument", "needs a value").replace("unrecognized", "unknown")


def suggestion(name: str, known: Collection[str], *, quote: bool = False) -> str:
    """`did you mean x?`, with the known name closest to `name`; empty if none is close.

    Dashes and slashes at the beginning do not count: all flags begin with the same two.
    """
    by_word = {one.lstrip("-/"): one for one in known}
    close = difflib.get_close_matches(name.lower().lstrip("-/"), by_word, n=1)
    if not close:
        return ""
    meant = by_word[close[0]]
    return f"did you mean {repr(meant) if quote else meant}?"


def unknown(noun: str, name: str, known: Collection[str]) -> str:
    """A sentence that `name` is not one of the `known` names, and which of them was probably meant."""
    remedy = suggestion(name, known, quote=True) or f"the {noun}s are {listed(known)}"
    return f"unknown {noun} {quote(name)}; {remedy}"


def listed(names: Collection[str]) -> str:
    """`a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def described(value: object) -> str:
    """The kind of a value in words; a text is shown, because it is often a misspelling."""
    match value:
        case str():
            return quote(value) if value.strip() else "empty"
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


def quote(text: object, most: int = 60) -> str:
    """Text from an unchecked file, made safe for a message: quoted, escaped for a terminal, shortened."""
    quoted = repr(text)
    return quoted if len(quoted) <= most else f"{quoted[: most - 4]}...{quoted[0]}"


def shortened(text: str, most: int = 60) -> str:
    """A text cut to at most `most` characters, with `...` for the rest."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
