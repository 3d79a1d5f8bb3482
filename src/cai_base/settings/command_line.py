"""The settings of a run from its command line: flags, a TOML file, and what is said of a wrong one.

Every message names the place of the fault: the flag, or the file and the field in it.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill, indent
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, CliImplicitFlag, CliSettingsSource, SettingsError

from cai_base.embedded import EMBEDDED
from cai_base.errors import UserError
from cai_base.reading import parse_toml, read_text, shown, suggestion
from cai_base.settings.presets import Table, defaults, merge
from cai_base.settings.schema import JudgeName, RunSettings
from cai_base.store import CONFIG, Run

INDENT = " " * 6
"""Before what `--help` says about a flag."""
FLAGS_ONLY = ("config", "out", "json")
"""Flags that are not settings."""


class RunCommand(NamedTuple):
    """What `cai-base run` was told: the run's settings, its directory if one is given, and `--json`."""

    settings: RunSettings
    out: Path | None
    as_json: bool


def load_settings(args: list[str], under: Table | None = None) -> RunCommand:
    """What the flags of `cai-base run` say.

    Args:
        args: the flags.
        under: settings that another command has by default, in place of the preset's.

    Raises:
        UserError: a flag, a field of the file or a value is wrong; the message names it.
    """
    flags = _flags(args)
    out = flags.pop("out", None)
    config = flags.pop("config", None)
    as_json = str(flags.pop("json", "")).lower() == "true"
    file = None if config is None else Path(config)
    table = {} if file is None else parse_toml(file, read_text(file, "a TOML file of settings"))
    if file is not None:
        _check_table(file, table)
    source = _Source(flags, file, table)
    given = merge(table, flags)
    model, protocol = str(given.get("model", EMBEDDED)), str(given.get("protocol", ""))
    if given.get("engine") == "tinker" and "model" not in given:
        raise UserError("--model is missing: --engine tinker has no default model; give one that the service serves")
    check_folder(source.place("model"), model)  # first: a message about its judge would not help
    settings = _validated(merge(merge(defaults(model, protocol), under or {}), given), source)
    return RunCommand(settings, Path(out) if out else None, as_json)


def override_settings(config: Table, args: list[str]) -> RunSettings:
    """A run's settings, with those that the flags name in the place of its own.

    Raises:
        UserError: the message names the flag.
    """
    flags = _flags(args)
    return _validated(merge(config, flags), _Source(flags))


def stored_settings(run: Run) -> RunSettings:
    """The settings with which a run began.

    Raises:
        UserError: its configuration is not one of this version.
    """
    file = run.directory / CONFIG
    try:
        _check_table(file, run.config)
        return _validated(run.config, _Source({}, file, run.config))
    except UserError as error:
        raise UserError(
            f"{error}; this run was made by another version of cai-base, or changed: begin a new one"
        ) from None


def check_folder(place: str, model: str) -> None:
    """Check that a model whose name can only be a path is a folder.

    Args:
        place: where the name was given: the flag, or the file and the field.
        model: the model's name: a path, a hub id or the embedded model.

    Raises:
        UserError: it is a path, and no folder is there.
    """
    if model.startswith((".", "/", "~")) and not Path(model).is_dir():
        raise UserError(f"{place} {model}: there is no such folder; give a folder in Hugging Face layout or a hub id")


def flag_names(args: list[str], command: str, own: Sequence[str]) -> set[str]:
    """The settings that are among the flags, a section's by its own name.

    Args:
        args: the flags that are not the command's own.
        command: which takes some of the flags of `run`.
        own: its own flags, one of which may be misspelt.

    Raises:
        UserError: one is not a flag of `run`.
    """
    return set(_flags(args, command, own))


class _Command(RunSettings, BaseSettings):  # type: ignore[misc]  # their configurations differ in type alone
    """`RunSettings` with everything optional, for reading flags alone, plus the flags that are no settings."""

    config: str | None = Field(None, description="a TOML file with any of these settings")
    out: str | None = Field(
        None, description="the run's directory, which must not exist; runs/<date>-<model> by default"
    )
    json_: CliImplicitFlag[bool] = Field(False, alias="json", description="print results.json instead of the table")


@dataclass(frozen=True, slots=True)
class _Source:
    """Where settings were given: flags, which win, and a file."""

    flags: Table
    file: Path | None = None
    table: Table | None = None

    def place(self, field: str) -> str:
        """`--field`, or `file: field` where only the file has it."""
        in_file = not _has(self.flags, field) and _has(self.table or {}, field)
        return f"{self.file}: {field}" if in_file else f"--{field}"


def _has(table: Table, field: str) -> bool:
    value: object = table
    for part in field.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _flags(args: list[str], command: str = "run", own: Sequence[str] = ()) -> dict[str, Any]:
    """The settings among `args`, nested, as strings; pydantic reads their types later.

    A flag that is none may be meant for the `command`, which has its `own`.
    """
    for section, fields in _sections(_Command).items():
        # pydantic takes the bare name of a section, and with it a run would begin on nothing but defaults.
        if any(arg.partition("=")[0] == f"--{section}" for arg in args):
            raise UserError(f"--{section}: is a group of settings; give one of them, such as --{section}.{fields[0]}")
    try:
        source: CliSettingsSource[Any] = CliSettingsSource(
            _Command, cli_parse_args=args, cli_prog_name="cai-base run", cli_exit_on_error=False, cli_avoid_json=True
        )
        return dict(source())
    except SettingsError as error:
        reason = str(error).removeprefix("error parsing CLI: ").removeprefix("argument ")
        reason = reason.replace("Parsing error encountered for ", "--", 1)
        words = [word.partition("=")[0].rstrip(":") for word in reason.split() if word.startswith("--")]
        flags = [*own, *(f"--{name}" for name, _ in _leaves(_Command))]
        remedy = suggestion(words[0], flags) if words and words[0] not in flags else ""
        raise UserError(f"{reason}; {remedy or f'`cai-base {command} --help` lists every flag'}") from error


def _check_table(file: Path, table: Table) -> None:
    """Raises UserError, with a line for each fault, if a file's tables and names are not those of the settings."""
    faults = [f"{file}: {fault}" for fault in _faults(table, RunSettings)]
    if faults:
        raise UserError("\n".join(faults))


def _faults(table: Table, model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    sections = _section_models(model)
    names = {name for name, _ in _leaves(RunSettings)}
    for key, value in table.items():
        name = prefix + key
        if not prefix and "." in key and key in names:
            section, _, field = key.partition(".")
            yield f"{key}: the name stands in quotes; write {key} without them, or {field} under [{section}]"
        elif key in sections and isinstance(value, Mapping):
            yield from _faults(value, sections[key], f"{name}.")
        elif key in sections:
            field = _names(sections[key])[0]
            yield f"{name} {shown(value)}: is a group of settings; write [{name}], and under it {field} = ..."
        elif key in FLAGS_ONLY and not prefix:
            yield f"{key}: is a flag and not a setting; give --{key} on the command line"
        elif name not in names:
            meant = suggestion(name, [*_section_models(RunSettings), *names])
            yield f"{name}: there is no such setting; {meant or '`cai-base run --help` lists them'}"
        elif isinstance(value, Mapping):
            yield f"{name}: is one setting and not a group; give it a value, such as {name} = ..."
        elif isinstance(value, bool):
            yield f"{name} {str(value).lower()}: is never true or false; `cai-base run --help` says what it takes"


def _validated(settings: Table, source: _Source) -> RunSettings:
    """The settings, checked. Raises UserError with one sentence for each wrong one: its place, what it is, a remedy."""
    try:
        return RunSettings.model_validate(settings)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            field = ".".join(part for part in problem["loc"] if isinstance(part, str))
            text = problem["msg"].removeprefix("Value error, ")
            if field:
                text = f" {text}" if text.startswith("is ") else f": {text[0].lower()}{text[1:]}"
                lines.append(f"{source.place(field)} {shown(problem['input'])}{text}")
            else:  # a check of several settings, whose message begins with the name of one
                field, _, rest = text.partition(": ")
                lines.append(f"{source.place(field)}: {rest}")
        raise UserError("\n".join(lines)) from error


def _section_models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The groups of settings by name."""
    return {
        field.alias or name: field.annotation
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _sections(model: type[BaseModel]) -> dict[str, list[str]]:
    """The names of the groups of settings, each with those of its fields."""
    return {name: _names(section) for name, section in _section_models(model).items()}


RUN_USAGE = (
    "Train a base model by Constitutional AI and compare it with SFT alone. Without flags: on the embedded base\n"
    "model (a model organism), in minutes."
)


def help_text(command: str = "run", does: str = RUN_USAGE) -> str:
    """Every flag of `cai-base run`: what it takes, what it does, and its two defaults.

    Args:
        command: another that takes the same flags.
        does: what that does.
    """
    embedded, other = (_flat(defaults(model)) for model in (EMBEDDED, "any other"))
    lines = [
        f"usage: cai-base {command} [flags]",
        "",
        f"{does} In brackets the default: for the embedded model | for any other.",
        "",
    ]
    section = ""
    width = max(60, min(120, shutil.get_terminal_size((120, 24)).columns))
    for name, field in _leaves(_Command):
        values = [table.get(name, field.default) for table in (embedded, other)]
        words = [str(value) for value in values if isinstance(value, str | int | float) and value is not False]
        bracket = f" [{' | '.join(dict.fromkeys(words))}]" if words else ""
        if name.rpartition(".")[0] != section:
            section = name.rpartition(".")[0]
            lines.append("")
        lines.append(f"  --{name} {_takes(field)}".rstrip())
        about = f"{field.description}{bracket}"
        lines.append(indent(fill(about, width - len(INDENT), break_on_hyphens=False, break_long_words=False), INDENT))
    return "\n".join(lines) + "\n"


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every flag's name and field, plain settings before sections."""
    sections = []
    for name, field in model.model_fields.items():
        flag = prefix + (field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections.append((field.annotation, f"{flag}."))
        else:
            yield flag, field
    for section, inner in sections:
        yield from _leaves(section, inner)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _takes(field: FieldInfo) -> str:
    """What a flag takes: its choices, or a word for its type."""
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not NoneType]
    kinds = [kind.__origin__ if get_origin(kind) is Annotated else kind for kind in kinds]
    if get_origin(field.annotation) is Literal:
        return "|".join(str(choice) for choice in kinds)
    words = {int: "N", float: "X", str: "TEXT", JudgeName: "TEXT", Path: "FILE"}
    return words.get(kinds[0], "") if len(kinds) == 1 or get_origin(field.annotation) is tuple else ""
