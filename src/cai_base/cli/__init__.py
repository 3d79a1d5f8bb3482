"""The command line: `--help`, dispatch and exit codes. The commands are listed in `commands`."""

import os
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cai_base import __version__
from cai_base.cli.commands import COMMANDS as COMMANDS
from cai_base.cli.commands import GROUPS
from cai_base.errors import ChangedFileError, Stopped, UserError, exhausted, forbidden
from cai_base.text import for_terminal

COLUMN = 22
"""The column at which descriptions of commands begin in `--help`."""

KEYS = ("HF_TOKEN", "WANDB_API_KEY")
"""Keys that libraries read only from the environment; they may also be in `.env`."""


def main(args: list[str] | None = None) -> int:
    """Run one command. Returns its exit code."""
    arguments = list(sys.argv[1:] if args is None else args)
    # Read when torch is loaded. Threads that wait by spinning take the cores from each other beside another job.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    try:
        with _sigterm_is_ctrl_c():
            return _dispatch(arguments)
    except (UserError, Stopped) as error:
        if debug:
            traceback.print_exc()
        _say(f"cai-base: {for_terminal(str(error) + _advice(error))}")
        return error.exit_code
    except KeyboardInterrupt:
        print("cai-base: stopped; nothing was lost", file=sys.stderr)
        return Stopped.exit_code
    except BrokenPipeError:  # whatever read our output has ended, as with `| head`
        sys.stderr.close()
        return 0
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if debug:
            raise
        if reason := exhausted(error):
            goes_on = "what is stored is whole, and the same command goes on or begins again"
            _say(f"cai-base: {for_terminal(reason)}; {goes_on}")
            return Stopped.exit_code
        if reason := forbidden(error):
            _say(f"cai-base: {for_terminal(reason)}")
            return UserError.exit_code
        raise


def _advice(error: Exception) -> str:
    """What else can be done about an error, with a flag."""
    if not isinstance(error, ChangedFileError):
        return ""
    from cai_base.run.accepted import advice

    return advice(error.directory, error.name)


def _say(message: str) -> None:
    from cai_base.progress import wrapped

    print(wrapped(message, sys.stderr), file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["help"] and arguments[1:]:
        arguments = [arguments[1], "--help"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help(), end="")
        return 0 if arguments else UserError.exit_code
    if arguments[0] in ("-V", "--version"):
        print(__version__)
        return 0
    command = COMMANDS.get(arguments[0])
    if command is None:
        from cai_base.reading import suggestion

        remedy = suggestion(arguments[0], COMMANDS) or f"the commands are {', '.join(COMMANDS)}"
        raise UserError(f"{arguments[0]}: no such command; {remedy}")
    _read_keys()
    return command.run(arguments[1:])


def _help() -> str:
    width = max(60, min(120, shutil.get_terminal_size((120, 24)).columns))
    lines = ["usage: cai-base COMMAND ...", "", "Constitutional AI from a true base model."]
    for group, title in GROUPS.items():
        commands = [command for command in COMMANDS.values() if command.group == group]
        lines += ["", title] if commands else []
        for command in commands:
            head = f"  {command.name} {command.takes}"
            lines += [head] if len(head) >= COLUMN else []
            lines += textwrap.wrap(
                command.about,
                width,
                initial_indent=" " * COLUMN if len(head) >= COLUMN else f"{head:<{COLUMN}}",
                subsequent_indent=" " * COLUMN,
                break_on_hyphens=False,
            )
    ends = (
        "`cai-base COMMAND --help` lists the arguments of a command. -V, --version: the version.",
        "Exit codes: 0 done, 2 wrong input, 3 stopped and resumable, 1 a bug in cai-base. With --debug, 2 and 3 print "
        "a traceback.",
    )
    return "\n".join([*lines, "", *(textwrap.fill(end, width, break_on_hyphens=False) for end in ends)]) + "\n"


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """While a command runs, SIGTERM (from `timeout`, SLURM or a container runtime) has the effect of Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        if callable(on_ctrl_c):  # asyncio installs its own handler while it runs
            on_ctrl_c(number, frame)
        else:  # Ctrl-C is ignored, as for a background job of a script
            raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread, so signals do not arrive here
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _read_keys() -> None:
    """Copy the `KEYS` of `.env` into the environment, unless they are already set."""
    if not os.path.lexists(".env"):  # most have none, and need not load what reads it
        return
    from cai_base.reading.keys import ENV, stored_keys

    values = stored_keys()
    for key in KEYS:
        value = (values.get(key) or "").strip()
        if not value.isascii() or not value.isprintable():  # the value is not shown: most of it may be the key
            raise UserError(f"{ENV}: {key}: no key has such characters in it; put the key alone there, on one line")
        if value:
            os.environ.setdefault(key, value)
