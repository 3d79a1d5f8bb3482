"""Reads the settings of a run from the command line: flags and a TOML file, with a message for every error.

Every message names the place of the error: the flag, or the file and the field.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill, indent
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, CliImplicitFlag, CliSettingsSource, SettingsError

from cai_base.embedded import EMBEDDED
from cai_base.errors import UserError
from cai_base.reading import (
    argparse_in_words,
    check_model_files,
    parse_json,
    parse_toml,
    quote,
    read_text,
    suggestion,
)
from cai_base.settings.engines import ENGINES
from cai_base.settings.judges import JudgeName
from cai_base.settings.presets import Table, defaults, merge
from cai_base.settings.printed import as_toml
from cai_base.settings.schema import RunSettings
from cai_base.settings.section import Section
from cai_base.settings.validation import (
    Source,
    check_table,
    field_names,
    leaves,
    section_models,
    stored_settings,
    validated,
)
from cai_base.settings.values import DIRECTORY, FILE, OneOf, TokenPrices
from cai_base.store import CONFIG, Run
from cai_base.text import split_names

MOVABLE = ("model", "tokenizer", "instruct", "judge-url", "second-judge-url", "tinker-url")
"""The flags that can be combined with `--from`: they change the location of something, not what it is."""

NOT_EMPTY = {
    "out": "the run's directory, which must not exist",
    "config": "the path of a TOML file of settings, or the config.json of a run",
    "from": "the directory of a run",
    "track": "names of trackers",
}
"""What the flags take that are not settings."""

INDENT = " " * 6
"""The indent of a flag's description in `--help`."""


class RunCommand(NamedTuple):
    """The parsed arguments of `cai-base run`.

    Attributes:
        out: the run's directory, if one is given.
        as_json: whether `--json` was given.
        trackers: the trackers to which curves are sent.
        repeats: the directory of the run to repeat, if any.
        printed: what `--print-settings` prints in place of a run; None without it.
    """

    settings: RunSettings
    out: Path | None
    as_json: bool
    trackers: tuple[str, ...]
    repeats: Path | None = None
    printed: str | None = None


def load_settings(args: list[str], under: Table | None = None) -> RunCommand:
    """Parse the flags of `cai-base run`.

    Args:
        args: the flags.
        under: default settings of another command, which replace the preset's.

    Raises:
        UserError: a flag, a field of the file or a value is wrong; the message names it.
    """
    flags = _flags(args)
    out, config, repeats = _taken(flags, "out"), _taken(flags, "config"), _taken(flags, "from")
    as_json, prints = (str(flags.pop(name, "")).lower() == "true" for name in ("json", "print-settings"))
    trackers = _trackers(_taken(flags, "track"))
    if repeats:
        settings, source = _repeated(Path(repeats), flags, config)
    else:
        file = None if config is None else Path(config)
        table = {} if file is None else _table(file)
        source = Source(flags, file, table)
        settings = _completed(merge(table, flags), source, under)
    printed = as_toml(settings, source) if prints else None
    return RunCommand(
        settings, Path(out) if out else None, as_json, trackers, Path(repeats) if repeats else None, printed
    )


def from_python(changes: Table) -> RunSettings:
    """The settings of a run with these changes, in which names have underscores, and a section may be a `Section`.

    Raises:
        UserError: there is no such setting, or a value is wrong; the message names it.
    """
    table: dict[str, object] = {}
    for name, value in changes.items():
        if isinstance(value, Section):
            value = value.model_dump()
        if isinstance(value, Mapping):
            value = {str(field).replace("_", "-"): one for field, one in value.items()}
        elif section := section_models(RunSettings).get(name.replace("_", "-")):
            first = next(iter(section.model_fields))
            remedy = f"give those that change, such as {name}={{{first!r}: ...}}"
            raise UserError(f"{name} {quote(value)}: is a group of settings; {remedy}")
        table[name.replace("_", "-")] = value
    check_table(None, table)
    return _completed(table, Source(None))


def _completed(table: Table, source: Source, under: Table | None = None) -> RunSettings:
    """The settings of the table and, for all others, the defaults of `under` or of the preset."""
    model, protocol = str(table.get("model", EMBEDDED)), str(table.get("protocol", ""))
    dpo = table.get("dpo")
    loss = str(dpo.get("loss", "")) if isinstance(dpo, Mapping) else None
    engine = str(table.get("engine", ""))
    if engine in ENGINES and ENGINES[engine].served and "model" not in table:
        raise UserError(
            f"--model is missing: --engine {engine} has no default model; give a model that the service serves"
        )
    check_folder(source.place("model"), model)  # first: a wrong path would otherwise cause a message about the judge
    return validated(merge(merge(defaults(model, protocol, loss), under or {}), table), source)


def _trackers(names: str | None) -> tuple[str, ...]:
    try:
        return () if names is None else split_names(names)
    except ValueError as error:
        raise UserError(f"--track {quote(names)} {error}") from None


def _taken(flags: dict[str, object], name: str) -> str | None:
    """The value of a flag that is no setting, which is taken out of the others."""
    value = flags.pop(name, None)
    if value is not None and not str(value).strip():
        raise UserError(f"--{name} '': is empty; give {NOT_EMPTY[name]}, or leave --{name} out")
    return None if value is None else str(value)


def _table(file: Path) -> Table:
    """The settings in a TOML file, or in the `config.json` of a run.

    Raises:
        UserError: it cannot be read, or a field is wrong.
    """
    if file.suffix.lower() == ".json":
        table = parse_json(file, read_text(file, "a JSON file of settings, such as a run's config.json"))
        if not isinstance(table, dict):
            raise UserError(f"{file}: must be a JSON object of settings; give a run's config.json, or a TOML file")
    else:
        table = parse_toml(file, read_text(file, "a TOML file of settings"))
    check_table(file, table)
    return table


def _repeated(directory: Path, flags: Table, config: str | None) -> tuple[RunSettings, Source]:
    """The settings of the run in a directory, with changed locations, and where they are from.

    Raises:
        UserError: the directory is not a run, or a flag changes more than a location.
    """
    run = Run.open(directory)
    settings = stored_settings(run)
    if config is not None:
        raise UserError(f"--config {config}: --from {directory} takes that run's settings; leave --config out")
    for flag in _flat(flags):
        if flag not in MOVABLE:
            raise UserError(
                f"--{flag}: --from {directory} takes that run's settings; only flags for a location can be given: "
                f"--{', --'.join(MOVABLE)}; to change a setting, use --config {directory / CONFIG} instead of --from"
            )
    check_folder("--model", str(flags.get("model", settings.model)))
    source = Source(flags, directory / CONFIG, run.config)
    return validated(merge(run.config, flags), source), source


def override_settings(config: Table, args: list[str]) -> RunSettings:
    """A run's settings, with the settings of the flags replaced.

    Raises:
        UserError: the message names the flag.
    """
    flags = _flags(args)
    return validated(merge(config, flags), Source(flags))


def check_folder(place: str, model: str) -> None:
    """Check that a model whose name can only be a path is a folder or a GGUF file.

    Args:
        place: the origin of the name: the flag, or the file and the field.
        model: the model's name: a path, a hub id or the embedded model.

    Raises:
        UserError: it is empty, or is a path and does not exist, or the folder has what is no regular file.
    """
    if not model.strip():
        raise UserError(f"{place} '': is empty; give a folder in Hugging Face layout, a GGUF file or a hub id")
    if len(model) > 4000 or any(len(part.encode(errors="surrogatepass")) > 255 for part in model.split("/")):
        raise UserError(f"{place} {model[:40]!r}...: is too long for a path or a hub id; give a shorter one")
    if model.lower().endswith(".gguf"):
        if not Path(model).is_file():
            raise UserError(f"{place} {model}: there is no such file; give the path of a GGUF file")
    elif model.startswith((".", "/", "~")) and not Path(model).is_dir():
        raise UserError(
            f"{place} {model}: there is no such folder; give a folder in Hugging Face layout, a GGUF file or a hub id"
        )
    elif Path(model).is_dir():
        check_model_files(Path(model))


def flag_names(args: list[str], command: str, own: Sequence[str]) -> set[str]:
    """The names of the settings among the flags; for a section's setting, the section's name.

    Args:
        args: the flags that are not the command's own.
        command: the command that takes some of the flags of `run`.
        own: the command's own flags, to suggest one for a misspelt flag.

    Raises:
        UserError: a flag is not a flag of `run`.
    """
    return set(flag_table(args, command, own))


def flag_table(args: list[str], command: str, own: Sequence[str]) -> dict[str, object]:
    """The settings among the flags, nested and as strings, for a command that merges them into other settings.

    Args:
        args, command, own: as for `flag_names`.

    Raises:
        UserError: a flag is not a flag of `run`.
    """
    return _flags(args, command, own)


class _Command(RunSettings, BaseSettings):  # type: ignore[misc]  # only the types of their configurations differ
    """`RunSettings` with everything optional, for reading only flags, and the flags that are not settings."""

    config: str | None = Field(
        None, json_schema_extra=FILE, description="a TOML file with any of these settings, or the config.json of a run"
    )
    from_: str | None = Field(
        None,
        json_schema_extra=DIRECTORY,
        alias="from",
        description="repeat the run in this directory, using only its files; results.json will be byte-identical",
    )
    out: str | None = Field(
        None,
        json_schema_extra=DIRECTORY,
        description="the run's directory, which must not exist; runs/<date>-<model> by default",
    )
    track: str | None = Field(None, description="comma-separated trackers for the curves: wandb, trackio, tensorboard")
    json_: CliImplicitFlag[bool] = Field(False, alias="json", description="print results.json instead of the table")
    print_settings: CliImplicitFlag[bool] = Field(
        False,
        alias="print-settings",
        description="only print every setting, and whether a flag or the file gave it, as a TOML file for --config",
    )


def _flags(args: list[str], command: str = "run", own: Sequence[str] = ()) -> dict[str, object]:
    """The settings among `args`, nested, as strings; pydantic parses their types later.

    For an unknown flag, the message may suggest one of the `own` flags of `command`.
    """
    for section, model in section_models(_Command).items():
        # pydantic accepts the bare name of a section, so a run would begin with defaults only.
        if any(arg.partition("=")[0] == f"--{section}" for arg in args):
            raise UserError(
                f"--{section}: is a group of settings; give one of them, such as --{section}.{field_names(model)[0]}"
            )
    try:
        source: CliSettingsSource[Any] = CliSettingsSource(
            _Command, cli_parse_args=args, cli_prog_name="cai-base run", cli_exit_on_error=False, cli_avoid_json=True
        )
        return dict(source())
    except SettingsError as error:
        reason = str(error).removeprefix("error parsing CLI: ").removeprefix("argument ")
        reason = reason.replace("Parsing error encountered for ", "--", 1)
        reason = argparse_in_words(reason)
        words = [word.partition("=")[0].rstrip(":") for word in reason.split() if word.startswith("--")]
        flags = [*own, *(f"--{name}" for name, _ in leaves(_Command))]
        remedy = suggestion(words[0], flags) if words and words[0] not in flags else ""
        raise UserError(f"{reason}; {remedy or f'`cai-base {command} --help` lists every flag'}") from error


RUN_USAGE = (
    "Train a base model by Constitutional AI and compare it with SFT alone. Without flags: on the embedded base\n"
    "model (a model organism), in minutes."
)


def help_text(command: str = "run", does: str = RUN_USAGE) -> str:
    """The help text: every flag of `cai-base run`, its value, its meaning, and its two defaults.

    Args:
        command: the command; it takes the same flags.
        does: what the command does.
    """
    embedded, other = (_flat(defaults(model)) for model in (EMBEDDED, "any other"))
    lines = [
        f"usage: cai-base {command} [flags]",
        "",
        f"{does} Defaults in brackets: for the embedded model | for any other.",
        "",
    ]
    section = ""
    width = max(60, min(120, shutil.get_terminal_size((120, 24)).columns))
    for name, field in leaves(_Command):
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


def _flat(settings: Table, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _takes(field: FieldInfo) -> str:
    """A flag's choices, or the name of its type."""
    if isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["takes"])
    for one in field.metadata:
        if isinstance(one, OneOf):
            return "|".join(one.names)
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not NoneType]
    kinds = [kind.__origin__ if get_origin(kind) is Annotated else kind for kind in kinds]
    if get_origin(field.annotation) is Literal:
        return "|".join(str(choice) for choice in kinds)
    words = {int: "N", float: "X", str: "TEXT", JudgeName: "TEXT", TokenPrices: "TEXT", Path: "FILE"}
    return words.get(kinds[0], "") if len(kinds) == 1 or get_origin(field.annotation) is tuple else ""
