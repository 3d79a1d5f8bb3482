"""From flags, a TOML file and presets to the settings of a run.

What a setting is comes from the first of: the flag, the `--config` file, the preset of the model. The preset `original`
holds the original experiment's figures; `embedded` holds what suits the model organism on a laptop.
"""

import difflib
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from textwrap import fill, indent
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, CliImplicitFlag, CliSettingsSource, SettingsError

from cai_base.embedded import EMBEDDED
from cai_base.errors import UserError
from cai_base.reading import parse_toml, read_text
from cai_base.settings.schema import JudgeName, RunSettings

INDENT = " " * 6
"""Before what `--help` says about a flag."""


def preset(name: str) -> dict[str, Any]:
    """A packaged preset's settings."""
    return tomllib.loads((resources.files("cai_base") / "data" / "presets" / f"{name}.toml").read_text())


def load_settings(args: list[str], defaults: Mapping[str, Any] | None = None) -> tuple[RunSettings, Path | None, bool]:
    """The settings that `cai-base run` was given, `--out`, and `--json`.

    Args:
        args: the flags.
        defaults: settings that another command has by default, in place of the preset's.

    Raises:
        UserError: a flag, a field of the file or a value is wrong; the message names it.
    """
    flags = _flags(args)
    out = flags.pop("out", None)
    file = flags.pop("config", None)
    as_json = str(flags.pop("json", "")).lower() == "true"
    in_file = parse_toml(Path(file), read_text(Path(file), "a TOML file of settings")) if file is not None else {}
    given = _merge(in_file, flags)
    if given.get("engine") == "tinker" and "model" not in given:
        raise UserError("--model is missing: --engine tinker has no default model; give one that the service serves")
    check_folder("--model", str(given.get("model", EMBEDDED)))  # before a judge is asked for, which is no help
    embedded = given.get("model", EMBEDDED) == EMBEDDED
    base = preset("original")
    if embedded:
        base = _merge(base, preset("embedded"))
        if given.get("protocol") == "original":
            base = _merge(base, preset("original")) | {"data": "world", "judge": "ground-truth"}
    base = _merge(base, defaults or {})
    try:
        settings = RunSettings.model_validate(_merge(base, given))
    except ValidationError as error:
        raise UserError(_message(error, flags, file)) from error
    return settings, Path(out) if out else None, as_json


def check_folder(flag: str, model: str) -> None:
    """See that a model whose name can only be a path is there.

    Args:
        flag: where the name was given.
        model: the model's name: a path, a hub id or the embedded model.

    Raises:
        UserError: it is a path, and no folder is there.
    """
    if model.startswith((".", "/", "~")) and not Path(model).is_dir():
        raise UserError(f"{flag} {model}: there is no such folder; give a folder in Hugging Face layout or a hub id")


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


def settings_anew(config: Mapping[str, Any], args: list[str]) -> RunSettings:
    """A run's settings with those that the flags name in their place.

    Raises:
        UserError: the message names the flag.
    """
    flags = _flags(args)
    try:
        return RunSettings.model_validate(_merge(config, flags))
    except ValidationError as error:
        raise UserError(_message(error, flags, None)) from error


class _Command(RunSettings, BaseSettings):  # type: ignore[misc]  # their configurations differ in type alone
    """`RunSettings` with everything optional, for reading flags alone, plus the flags that are no settings."""

    config: str | None = Field(None, description="a TOML file with any of these settings")
    out: str | None = Field(
        None, description="the run's directory, which must not exist; runs/<date>-<model> by default"
    )
    json_: CliImplicitFlag[bool] = Field(False, alias="json", description="print results.json instead of the table")


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
        reason = str(error).removeprefix("error parsing CLI: ")
        unknown = [word.partition("=")[0].rstrip(":") for word in reason.split() if word.startswith("--")]
        flags = [*own, *(f"--{name}" for name, _ in _leaves(_Command))]
        meant = _meant(unknown[0], flags) if unknown and unknown[0] not in flags else ""
        raise UserError(f"{reason}; {meant or f'`cai-base {command} --help` lists every flag'}") from error


def _sections(model: type[BaseModel]) -> dict[str, list[str]]:
    """The names of the groups of settings, each with those of its fields."""
    return {
        field.alias or name: [inner.alias or key for key, inner in field.annotation.model_fields.items()]
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def _meant(name: str, known: list[str]) -> str:
    """A question with the known name that `name` probably is a misspelling of; nothing if none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else ""


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`, section by section."""
    merged = dict(low)
    for key, value in high.items():
        merged[key] = _merge(merged.get(key, {}), value) if isinstance(value, Mapping) else value
    return merged


def _message(error: ValidationError, flags: Mapping[str, Any], file: str | None) -> str:
    """One sentence for each wrong setting: where it was given, what it was, what would be right."""
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        if not field:
            lines.append(f"--{text}")
            continue
        given: Any = flags
        for part in problem["loc"]:
            given = given.get(part) if isinstance(given, Mapping) else None
        where = f"--{field}" if given is not None or file is None else f"{file}: {field}"
        if problem["type"] == "extra_forbidden":
            known = [*_sections(RunSettings), *(name for name, _ in _leaves(RunSettings))]
            lines.append(
                f"{where}: there is no such setting; {_meant(field, known) or '`cai-base run --help` lists them'}"
            )
        else:
            lines.append(f"{where} {problem['input']!r}: {text[0].lower()}{text[1:]}")
    return "\n".join(lines)


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
    embedded, original = (_flat(preset(name)) for name in ("embedded", "original"))
    lines = [
        f"usage: cai-base {command} [flags]",
        "",
        f"{does} In brackets the default: for the embedded model | for any other.",
        "",
    ]
    section = ""
    width = max(60, min(120, shutil.get_terminal_size((120, 24)).columns))
    for name, field in _leaves(_Command):
        other = original.get(name, field.default)
        defaults = [embedded.get(name, other), other]
        shown = [str(value) for value in defaults if isinstance(value, str | int | float) and value is not False]
        bracket = f" [{' | '.join(dict.fromkeys(shown))}]" if shown else ""
        if name.rpartition(".")[0] != section:
            section = name.rpartition(".")[0]
            lines.append("")
        lines.append(f"  --{name} {_takes(field)}".rstrip())
        said = f"{field.description}{bracket}"
        lines.append(indent(fill(said, width - len(INDENT), break_on_hyphens=False, break_long_words=False), INDENT))
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
