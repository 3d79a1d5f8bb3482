"""The command line: the list of commands, `--help`, and exit codes. Each command is in its own module.

Heavy modules are imported only when a command runs: importing torch takes seconds, and `--help` should not wait for it.
"""

import os
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from cai_base import __version__
from cai_base.cli import ask, calibrate, chat, completion, look, make, organism, study, take, track
from cai_base.errors import Stopped, UserError, exhausted
from cai_base.progress import wrapped
from cai_base.text import for_terminal

GROUPS = {
    "make": "Make",
    "look": "Look",
    "ask": "Ask",
    "take": "Take",
    "organism": "The embedded base model, a model organism",
}
"""The groups of commands in `--help`, in order. A group without commands is not shown."""

COLUMN = 22
"""The column at which descriptions of commands begin in `--help`."""

KEYS = ("HF_TOKEN", "WANDB_API_KEY")
"""Keys that libraries read only from the environment; they may also be in `.env`."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        name: what the user types.
        group: in `--help`, one of `GROUPS`.
        takes: its arguments, abbreviated.
        about: what it does, in a line or two.
        run: the function called with the arguments after the name; returns the exit code.
    """

    name: str
    group: str
    takes: str
    about: str
    run: Callable[[list[str]], int]


_COMMANDS = (
    Command("run", "make", "[flags]", "train and evaluate; without flags, on the embedded base model", make.run),
    Command("resume", "make", "RUN", "continue a stopped run", make.resume),
    Command("preflight", "make", "[flags]", "only make the checks that precede every run", make.preflight),
    Command(
        "cost",
        "make",
        "[flags]",
        "an upper bound on a run's tokens, and their price on the Tinker service",
        make.cost,
    ),
    Command("study", "make", "NAME|FILE.toml", "several runs that share stages, to answer one question", study.study),
    Command("report", "look", "RUN", "write the run's page and figures again", look.report),
    Command("watch", "look", "RUN", "serve a page with the run's progress, on this machine", look.watch),
    Command(
        "compare",
        "look",
        "RUN RUN ...",
        "compare several runs, paired by the seeds and prompts that they share",
        look.compare,
    ),
    Command("track", "look", "RUN", "send a run's curves, or the missing points, to a tracker", track.track),
    Command(
        "chat",
        "look",
        "RUN|MODEL",
        "type a prompt and see the answers of the arms side by side",
        chat.chat,
    ),
    Command(
        "evaluate",
        "ask",
        "RUN|MODEL",
        "evaluate the arms of a run, or any model, on a standard suite or on prompts from a file",
        ask.evaluate,
    ),
    Command(
        "style",
        "ask",
        "RUN",
        "evaluate the arms of a finished run in thirteen styles: adherence to the style, diversity of the answers",
        ask.style,
    ),
    Command(
        "calibrate",
        "ask",
        "--judge JUDGE --labels FILE",
        "measure a judge against human labels of answers",
        calibrate.calibrate,
    ),
    Command("inspect", "ask", "RUN", "write a run's evaluations as logs for `inspect view`", ask.inspect),
    Command(
        "export",
        "take",
        "RUN --out DIR",
        "export an arm as a PEFT adapter, a merged folder or a GGUF file, or its preference pairs; with cards",
        take.export,
    ),
    Command("serve", "take", "RUN", "serve every arm from an OpenAI-compatible server, on loopback only", take.serve),
    Command(
        "verify",
        "take",
        "RUN",
        "check every hash of a finished run, and recompute every figure from its stored answers; needs no model",
        take.verify,
    ),
    Command(
        "organism",
        "organism",
        "build|measure|sibling|card",
        "pretrain it, measure its abilities, train its instruct sibling, show its card",
        organism.organism,
    ),
)


def _completion(arguments: list[str]) -> int:
    return completion.completion(arguments, {name: (one.about, one.run) for name, one in COMMANDS.items()})


_COMPLETION = Command(
    "completion", "take", "bash|zsh|fish", "print a shell script that completes commands and flags", _completion
)

COMMANDS = {command.name: command for command in (*_COMMANDS, _COMPLETION)}
"""Every command by name, in the order of `--help`."""


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
        print(wrapped(for_terminal(f"cai-base: {error}"), sys.stderr), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("cai-base: stopped; nothing was lost", file=sys.stderr)
        return Stopped.exit_code
    except BrokenPipeError:  # whatever read our output has ended, as with `| head`
        sys.stderr.close()
        return 0
    except BaseException as error:  # a panic of a library in Rust is no Exception
        reason = exhausted(error)
        if reason is None or debug:
            raise
        message = (
            f"cai-base: {for_terminal(reason)}; what is stored is whole, and the same command goes on or begins again"
        )
        print(wrapped(message, sys.stderr), file=sys.stderr)
        return Stopped.exit_code


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
    _read_keys(Path(".env"))
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


def _read_keys(file: Path) -> None:
    """Copy the `KEYS` of the file into the environment, unless they are already set."""
    if not file.is_file():
        return
    from dotenv import dotenv_values

    values = dotenv_values(file)
    for key in KEYS:
        value = (values.get(key) or "").strip()
        if value:
            os.environ.setdefault(key, value)
