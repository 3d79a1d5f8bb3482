"""Ways to spoil a file: bytes, text and the values in it. Each takes what was valid and a choice of hypothesis."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

ODD_NUMBERS = (0, -1, 1e308, -1e308, 10**30, float("nan"), float("inf"), 0.5, 2**63)
ODD_TEXTS = (
    "",
    " ",
    "\x00",
    "\u202e",
    "\ud800",
    "../../etc/passwd",
    "{{ 7 * 7 }}",
    "</script>",
    "\x1b]0;title\x07",
    "a" * 70_000,
    "None",
    "true",
)
ODD_VALUES: tuple[Any, ...] = (*ODD_NUMBERS, *ODD_TEXTS, None, True, [], {}, [[]], {"": None})
ODD_BYTES = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x80",
    b"\n" * 50,
    b'"',
    b"[" * 3000,
    b"{" * 3000,
    b",",
    b"=",
    b"\r",
)


@st.composite
def spoiled_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """Cut, doubled, or with other bytes in some places."""
    data = valid
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(("cut", "drop", "insert", "replace", "double"))):
            case "cut":
                data = data[:place]
            case "drop":
                data = data[:place] + data[place + draw(st.integers(1, 40)) :]
            case "insert":
                data = data[:place] + draw(st.sampled_from(ODD_BYTES)) + data[place:]
            case "replace":
                data = data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]
            case _:
                data = data[:place] + data
    return data


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to every value inside a JSON value, at most a few hundred."""
    places = [path]
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(children)[:60]:
        places += _places(child, (*path, key))
    return places[:400]


def _changed(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = _changed(copied[path[0]], path[1:], change)
    return copied


@st.composite
def spoiled_values(draw: st.DrawFn, valid: Any) -> Any:
    """A JSON value with some values replaced, taken away, or put beside the others under a new name."""
    value = valid
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_places(value)))
        odd = draw(st.sampled_from(ODD_VALUES))
        match draw(st.sampled_from(("replace", "remove", "add", "nest"))):
            case "replace":
                value = _changed(value, path, lambda _, odd=odd: odd)
            case "remove" if path:
                value = _changed(value, path[:-1], lambda of, key=path[-1]: _without(of, key))
            case "nest":
                value = _changed(value, path, lambda old: [old])
            case _:
                value = _changed(
                    value, path, lambda of, odd=odd: {**of, "surprise": odd} if isinstance(of, dict) else odd
                )
    return value


def _without(of: Any, key: Any) -> Any:
    if isinstance(of, dict):
        return {name: value for name, value in of.items() if name != key}
    return [value for number, value in enumerate(of) if number != key]


def as_json(value: Any) -> bytes:
    """JSON as careless programs write it: NaN and lone surrogates included."""
    return json.dumps(value, ensure_ascii=True).encode()
