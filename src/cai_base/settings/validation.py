"""Checks settings from several places: every message names the flag, or the file and the field."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cai_base.errors import UserError
from cai_base.reading import quote, requirement, suggestion
from cai_base.settings.presets import Table
from cai_base.settings.schema import RunSettings
from cai_base.store import CONFIG, Run

FLAGS_ONLY = ("config", "from", "out", "track", "json", "print-settings")
"""Flags that are not settings."""


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of settings: flags, which win, and a file. `flags` is None if there is no command line.

    Settings from Python have neither.
    """

    flags: Table | None
    file: Path | None = None
    table: Table | None = None

    def gives(self, field: str) -> bool:
        """Whether a flag or the file has the field; else its value is a default."""
        return any(_has(table, field) for table in (self.flags or {}, self.table or {}))

    def place(self, field: str) -> str:
        """`--field`, or `file: field` if only the file has it; `field` if they are from Python."""
        if self.flags is None and self.file is None:
            return field
        in_file = self.flags is None or (not _has(self.flags, field) and _has(self.table or {}, field))
        return f"{self.file}: {field}" if in_file else f"--{field}"


def _has(table: Table, field: str) -> bool:
    value: object = table
    for part in field.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def stored_settings(run: Run) -> RunSettings:
    """The settings with which a run began.

    Raises:
        UserError: its configuration is not valid in this version.
    """
    file = run.directory / CONFIG
    try:
        check_table(file, run.config)
        return validated(run.config, Source(None, file, run.config))
    except UserError as error:
        first, *_ = str(error).splitlines()
        raise UserError(
            f"{first}; this run was made by another version of cai-base, or was changed: start a new run"
        ) from None


def check_table(file: Path | None, table: Table) -> None:
    """Raises UserError, with a line for each fault, if a file has a table or a name that is not a setting.

    Args:
        file: begins each line; None for settings from Python.
    """
    faults = [fault if file is None else f"{file}: {fault}" for fault in _faults(table, RunSettings)]
    if faults:
        raise UserError("\n".join(faults))


def _faults(table: Table, model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    sections = section_models(model)
    names = {name for name, _ in leaves(RunSettings)}
    numbers = {name: _number_types(field.annotation) for name, field in leaves(RunSettings)}
    switches = {name for name, field in leaves(RunSettings) if field.annotation is bool}
    for key, value in table.items():
        name = prefix + key
        if not prefix and "." in key and key in names:
            section, _, field = key.partition(".")
            yield f"{key}: the name is in quotes; write {key} without them, or {field} under [{section}]"
        elif key in sections and isinstance(value, Mapping):
            yield from _faults(value, sections[key], f"{name}.")
        elif key in sections:
            field = field_names(sections[key])[0]
            yield f"{name} {quote(value)}: is a group of settings; write [{name}], and under it {field} = ..."
        elif key in FLAGS_ONLY and not prefix:
            yield f"{key}: is a flag, not a setting; give --{key} on the command line"
        elif name not in names:
            meant = suggestion(name, [*section_models(RunSettings), *names])
            yield f"{name}: no such setting; {meant or '`cai-base run --help` lists them'}"
        elif isinstance(value, Mapping):
            yield f"{name}: is one setting, not a group; give it a value, such as {name} = ..."
        elif isinstance(value, bool) and name not in switches:
            yield f"{name} {str(value).lower()}: cannot be true or false; `cai-base run --help` lists its values"
        elif isinstance(value, str) and numbers.get(name) and NUMBER.fullmatch(value.strip()):
            yield f"{name} {quote(value)}: is text; write the number without quotes"
        elif isinstance(value, float) and numbers.get(name) == {int}:
            yield f"{name} {value}: has a decimal point; write a whole number"


NUMBER = re.compile(r"[+-]?[\d_.]+(e[+-]?\d+)?", re.IGNORECASE)
"""A number as text: pydantic would take it for one."""


def _number_types(annotation: object) -> set[object]:
    """`int`, `float` or both if a setting is a number, or a number or nothing; else empty."""
    if get_origin(annotation) is Annotated:
        return _number_types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        types = [_number_types(one) for one in get_args(annotation) if one is not NoneType]
        return set().union(*types) if all(types) else set()
    return {annotation} if annotation in (int, float) else set()


def validated(settings: Table, source: Source) -> RunSettings:
    """The checked settings. Raises UserError with a sentence for each fault: the place, the value, the remedy."""
    try:
        return RunSettings.model_validate(settings)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            field = ".".join(part for part in problem["loc"] if isinstance(part, str))
            own = problem["type"] == "value_error"  # a check of this project, which has its own sentence
            text = problem["msg"].removeprefix("Value error, ") if own else requirement(problem)
            if problem["type"] == "missing":
                lines.append(f"{source.place(field)}: is missing")
            elif field:
                text = f" {text}" if text.startswith(("is ", "has ")) else f": {text[0].lower()}{text[1:]}"
                value = problem["input"]
                value = ",".join(map(str, value)) if isinstance(value, list) else value
                lines.append(f"{source.place(field)} {quote(value)}{text}")
            else:  # a check of several settings; its message begins with the name of one
                field, _, rest = text.partition(": ")
                lines.append(f"{source.place(field)}: {rest}")
        raise UserError("\n".join(lines)) from error


def section_models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The groups of settings by name."""
    return {
        field.alias or name: field.annotation
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def field_names(model: type[BaseModel]) -> list[str]:
    """The names of the fields, as written in a file."""
    return [field.alias or name for name, field in model.model_fields.items()]


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every flag's name and field, plain settings before sections."""
    sections = []
    for name, field in model.model_fields.items():
        flag = prefix + (field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections.append((field.annotation, f"{flag}."))
        else:
            yield flag, field
    for section, inner in sections:
        yield from leaves(section, inner)
