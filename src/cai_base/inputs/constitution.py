"""Reads constitutions, and the worked examples of critique and revision that precede a request to a base model.

Both may be in this project's format (TOML or JSON), or in that of the files published with the paper, Bai et al. 2022,
"Constitutional AI: Harmlessness from AI Feedback" (github.com/anthropics/ConstitutionalHarmlessnessPaper, folder
`prompts`).
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from cai_base.errors import UserError
from cai_base.reading import (
    Entry,
    Model,
    Text,
    build,
    described,
    listed,
    parse_json,
    parse_toml,
    quote,
    read_text,
    unknown,
)

_CONSTITUTION_FILE = (
    "a constitution: .toml with [[principle]] tables, .json, or the paper's CritiqueRevisionInstructions.json"
)
_EXAMPLES_FILE = (
    "critique examples: .toml with [[example]] tables, .json, or the paper's CritiqueRevisionFewShotPrompts.json"
)


class Principle(Entry):
    """One critique request and one revision request, and for feedback one comparison request.

    Attributes:
        name: no other principle of the constitution has it.
        category: what it is about, such as `core harmlessness`; for readers.
        critique_request: asks for a critique of the last response, such as "Say what is harmful in this answer."
        revision_request: asks for a response that the critique no longer applies to.
        comparison_request: asks which of two responses is better; None if it is not used for feedback.
    """

    name: Text
    category: Text
    critique_request: Text
    revision_request: Text
    comparison_request: Text | None = None


class Constitution(Entry):
    """A named list of principles. Their order matters, because principles are drawn by their index.

    Attributes:
        name: for readers.
        principles: at least one; their names differ.
    """

    name: Text
    principles: Annotated[tuple[Principle, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        places: dict[str, int] = {}
        for place, principle in enumerate(self.principles, start=1):
            first = places.setdefault(principle.name, place)
            if first != place:
                raise ValueError(
                    f"principles {first} and {place} are both named {quote(principle.name)}; "
                    "give each principle a name of its own"
                )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of what revision reads of the principles, in their order, whatever the file's name and form."""
        content = [principle.model_dump(exclude={"comparison_request"}) for principle in self.principles]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


LEFT_OUT = "not:"
"""Before the name of a principle that is left out."""


def with_principles(constitution: Constitution, names: Sequence[str]) -> Constitution:
    """The constitution with these principles alone or, where names begin with `not:`, without these.

    Raises:
        UserError: a name is none of its principles', names are of both kinds, or no principle is left.
    """
    if not names:
        return constitution
    without = [name for name in names if name.startswith(LEFT_OUT)]
    if without and len(without) < len(names):
        raise UserError(f"--principles {','.join(names)}: name what is used, or what is left out, not both")
    selection = {name.removeprefix(LEFT_OUT) for name in names}
    known = [principle.name for principle in constitution.principles]
    for name in selection:
        if name not in known:
            raise UserError(f"--principles: {unknown('principle', name, known)}")
    principles = tuple(one for one in constitution.principles if (one.name in selection) != bool(without))
    if not principles:
        raise UserError(f"--principles {','.join(names)}: leaves no principle; keep at least one")
    return Constitution(name=f"{constitution.name}: {', '.join(names)}", principles=principles)


class CritiqueExample(Entry):
    """One worked example of critique and revision.

    Attributes:
        prompt: the user's question. If the conversation has earlier turns, they come first, one paragraph per turn and
            without the first `User:`, as in `first question`, `Assistant: first answer`, `User: last question`.
        response: the answer that is criticised.
        critique_request, revision_request: as in a `Principle`.
        critique, revision: what the model should write after each request.
    """

    prompt: Text
    response: Text
    critique_request: Text
    critique: Text
    revision_request: Text
    revision: Text


def load_constitution(path: Path | str) -> Constitution:
    """Read a constitution from a TOML or JSON file, in this project's format or the paper's.

    This project's format is a list of principles: `[[principle]]` tables in TOML, `[...]` or `{"principles": [...]}` in
    JSON. A top-level `name` names the constitution; without it, the file's name does. In the paper's format each
    name maps to `{"prompt": [critique requests], "edit_request": revision request}`. Its headers (`CritiqueRequest:`
    and so on) are removed; the name without its number is the category; a name with several critique requests becomes
    several principles, `name-1`, `name-2` and so on.

    Args:
        path: of the file, such as the paper's `CritiqueRevisionInstructions.json` (Bai et al. 2022, arXiv 2212.08073).

    Raises:
        UserError: the file has neither format; the message names the file, the principle and the field.
    """
    path = Path(path)
    data = _parsed(path, _CONSTITUTION_FILE)
    name: object = path.stem
    if isinstance(data, dict) and _is_published_constitution(data):
        principles = _published_principles(path, data)
    else:
        principles = _items(path, data, Principle, "principle", beside=("name",))
        if isinstance(data, dict):
            name = data.get("name", name)
    return build(Constitution, {"name": name, "principles": principles}, str(path))


def load_critique_examples(path: Path) -> tuple[CritiqueExample, ...]:
    """Read critique examples from a TOML or JSON file, in this project's format or the paper's.

    This project's format is a list of examples: `[[example]]` tables in TOML, `[...]` or `{"examples": [...]}` in JSON.
    The paper's format is a JSON list of texts, each a conversation (`Human:` and `Assistant:` in turn) followed by
    `CritiqueRequest:`, `Critique:`, `RevisionRequest:` and `Revision:`, and optionally an empty `Human:`.

    Raises:
        UserError: the file has neither format; the message names the file, the example and the field.
    """
    data = _parsed(path, _EXAMPLES_FILE)
    if isinstance(data, list) and any(isinstance(item, str) for item in data):
        return tuple(_published_example(item, f"{path}: example {n}") for n, item in enumerate(data, start=1))
    return _items(path, data, CritiqueExample, "example")


def _parsed(path: Path, description: str) -> object:
    """The content of a TOML or JSON file."""
    text = read_text(path, description)
    match path.suffix.lower():
        case ".toml":
            return parse_toml(path, text)
        case ".json":
            return parse_json(path, text)
        case suffix:
            raise UserError(f"{path}: cannot tell the form from the ending {quote(suffix)}; give {description}")


def _items(path: Path, data: object, model: type[Model], noun: str, beside: Sequence[str] = ()) -> tuple[Model, ...]:
    """The entries of a file in this project's format: a list, at the top level or under `noun` or its plural."""
    records = data
    if isinstance(data, dict):
        keys = [key for key in (noun, f"{noun}s") if key in data]
        for key in data:
            if key not in (*keys, *beside):
                raise UserError(f"{path}{_line_of(path, key)}: {unknown('key', key, (noun, *beside))}")
        if len(keys) != 1:
            how_many = f"both {noun!r} and '{noun}s'" if keys else f"no {noun}"
            raise UserError(f"{path}: there is {how_many}; write one [[{noun}]] table for each {noun}")
        records = data[keys[0]]
    if not isinstance(records, list):
        raise UserError(
            f"{path}: {'the file' if records is data else noun} is {described(records)}; it must be a list: "
            f'[[{noun}]] tables in TOML, [{{"{next(iter(model.model_fields))}": ...}}, ...] in JSON'
        )
    if not records:
        raise UserError(f"{path}: the list of {noun}s is empty; write at least one {noun}")
    return tuple(build(model, record, _place(path, noun, n, record)) for n, record in enumerate(records, start=1))


def _line_of(path: Path, key: str) -> str:
    """`:3`, the line of a TOML file on which a key or table of the top level begins; empty where it is not plain."""
    if path.suffix.lower() != ".toml":
        return ""
    begins = re.compile(rf"""\s*(?:\[\[?\s*)?["']?{re.escape(key)}["']?\s*[=\].]""")
    lines = read_text(path, _CONSTITUTION_FILE).split("\n")
    return next((f":{number}" for number, line in enumerate(lines, start=1) if begins.match(line)), "")


def _place(path: Path, noun: str, number: int, record: object) -> str:
    """`file: principle 3 ('its-name')`, or without the name if it has none."""
    name = record.get("name") if isinstance(record, dict) else None
    return f"{path}: {noun} {number}" + (f" ({quote(name)})" if isinstance(name, str) else "")


# The paper's files


class _PublishedEntry(Entry):
    """One entry of CritiqueRevisionInstructions.json."""

    prompt: Annotated[list[Text], Field(min_length=1)]
    edit_request: Text


def _is_published_constitution(data: dict[str, object]) -> bool:
    fields = _PublishedEntry.model_fields.keys()
    return any(isinstance(entry, dict) and not fields.isdisjoint(entry) for entry in data.values())


def _published_principles(path: Path, data: dict[str, object]) -> tuple[Principle, ...]:
    principles = []
    for number, (name, content) in enumerate(data.items(), start=1):
        where = f"{path}: principle {number} ({quote(name)})"
        entry = build(_PublishedEntry, content, where)
        for place, prompt in enumerate(entry.prompt, start=1):
            record = {
                "name": name if len(entry.prompt) == 1 else f"{name}-{place}",
                "category": name.rstrip("0123456789") or name,
                "critique_request": _without_headers(prompt, "Critique"),
                "revision_request": _without_headers(entry.edit_request, "Revision"),
            }
            principles.append(build(Principle, record, where))
    return tuple(principles)


def _without_headers(text: str, step: str) -> str:
    """The text between the header `CritiqueRequest:` and the final `Critique:`, both of which are optional."""
    return re.sub(rf"^\s*{step} ?Request:|{step}:\s*$", "", text).strip()


_HEADER = re.compile(r"(?:^|\n\n)(Human|Assistant|Critique ?Request|Critique|Revision ?Request|Revision):")
_STEPS = ("CritiqueRequest", "Critique", "RevisionRequest", "Revision")
_ROLES = {"Human": "User", "Assistant": "Assistant"}


def _published_example(text: object, where: str) -> CritiqueExample:
    """One text of CritiqueRevisionFewShotPrompts.json as an example."""
    if not isinstance(text, str):
        raise UserError(f"{where}: this is {described(text)}; in a list of texts each must be text")
    before, *rest = _HEADER.split(text.strip())
    headers = [header.replace(" ", "") for header in rest[::2]]
    parts = [part.strip() for part in rest[1::2]]
    if headers[-1:] == ["Human"] and not parts[-1]:  # the start of the next example
        del headers[-1], parts[-1]
    turns = len(headers) - len(_STEPS)
    if before or turns < 2 or headers != ["Human", "Assistant"] * (turns // 2) + list(_STEPS):
        fault = (
            "text before the first header" if before else f"the headers are {listed(headers) if headers else 'none'}"
        )
        raise UserError(
            f"{where}: {fault}; a text must have Human: and Assistant: in turn, then {listed(_STEPS)}, "
            "each after an empty line and with a colon"
        )
    earlier = [f"{_ROLES[role]}: {part}" for role, part in zip(headers, parts[: turns - 1], strict=False)]
    record = {
        "prompt": "\n\n".join(earlier).removeprefix("User:"),
        "response": parts[turns - 1],
        **dict(zip(("critique_request", "critique", "revision_request", "revision"), parts[turns:], strict=True)),
    }
    return build(CritiqueExample, record, where)
