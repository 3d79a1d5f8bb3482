"""Parses the arguments of a command. An error is a `UserError`: one message, exit code 2."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from cai_base.errors import UserError
from cai_base.reading import argparse_in_words
from cai_base.store import refuse_no_run
from cai_base.text import split_names


class Parser(argparse.ArgumentParser):
    """A parser that raises UserError, and accepts no abbreviated flags."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{argparse_in_words(message.removeprefix('argument '))}; see {self.prog} --help")


class _RunParser(Parser):
    """A parser with the argument RUN, which must be a run: that is known before anything heavy is imported."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        parsed, rest = super().parse_known_args(args, namespace)
        refuse_no_run(parsed.run)
        return parsed, rest


def wants_help(arguments: list[str]) -> bool:
    """Whether `--help` is among the arguments."""
    return "-h" in arguments or "--help" in arguments


def run_parser(command: str, about: str) -> Parser:
    """A parser with the argument RUN, a run's directory."""
    parser = _RunParser(prog=f"cai-base {command}", description=about)
    parser.add_argument("run", metavar="RUN", type=nonempty_path, help="the run's directory")
    return parser


def take_changes(parser: argparse.ArgumentParser) -> None:
    """Add the flag for changed files to a command that reads a run; see `cai_base.run.accepted`."""
    parser.add_argument(
        "--accept-changed",
        metavar="FILE",
        action="append",
        default=[],
        help="use a file of the run although it was changed after the run; the results say so. Repeat for each file",
    )


def nonempty_path(text: str) -> Path:
    """The type of an argument that takes a path: an empty one would be the working directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; give a path")
    return Path(text)


def count(text: str) -> int:
    """The type of a flag that takes a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def port(text: str) -> int:
    """The type of a flag that takes a port; 0 for any free port."""
    if not (text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number from 0 to 65535")
    return int(text)


def dollars(text: str) -> float:
    """The type of a flag that takes an amount in dollars."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of dollars greater than 0")
    return value


def names(text: str) -> tuple[str, ...]:
    """The type of a flag that takes comma-separated names."""
    try:
        return split_names(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from None
