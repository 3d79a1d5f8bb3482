"""Every command: its name, where it is in `--help`, and the module that runs it.

A command's module is imported only when the command runs: importing torch takes seconds, and `--help` should not wait
for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

GROUPS = {
    "make": "Make",
    "look": "Look",
    "ask": "Ask",
    "take": "Take",
    "organism": "The embedded base model, a model organism",
}
"""The groups of commands in `--help`, in order. A group without commands is not shown."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        name: what the user types.
        group: in `--help`, one of `GROUPS`.
        takes: its arguments, abbreviated.
        about: what it does, in a line or two.
        module: the module of this package whose function of the command's name is called.
    """

    name: str
    group: str
    takes: str
    about: str
    module: str

    @property
    def run(self) -> Callable[[list[str]], int]:
        """The function called with the arguments after the name; returns the exit code."""
        function: Callable[[list[str]], int] = getattr(import_module(f"cai_base.cli.{self.module}"), self.name)
        return function


_COMMANDS = (
    Command("run", "make", "[flags]", "train and evaluate; without flags, on the embedded base model", "make"),
    Command("resume", "make", "RUN", "continue a stopped run", "make"),
    Command("preflight", "make", "[flags]", "only make the checks that precede every run", "make"),
    Command(
        "cost",
        "make",
        "[flags]",
        "an upper bound on a run's tokens, and their price on the Tinker service",
        "make",
    ),
    Command("study", "make", "NAME|FILE.toml", "several runs that share stages, to answer one question", "study"),
    Command("report", "look", "RUN", "write the run's page and figures again", "look"),
    Command("watch", "look", "RUN", "serve a page with the run's progress, on this machine", "look"),
    Command(
        "compare",
        "look",
        "RUN RUN ...",
        "compare several runs, paired by the seeds and prompts that they share",
        "look",
    ),
    Command("track", "look", "RUN", "send a run's curves, or the missing points, to a tracker", "track"),
    Command(
        "chat",
        "look",
        "RUN|MODEL",
        "type a prompt and see the answers of the arms side by side",
        "chat",
    ),
    Command(
        "evaluate",
        "ask",
        "RUN|MODEL",
        "evaluate the arms of a run, or any model, on a standard suite or on prompts from a file",
        "ask",
    ),
    Command(
        "style",
        "ask",
        "RUN",
        "evaluate the arms of a finished run in thirteen styles: adherence to the style, diversity of the answers",
        "ask",
    ),
    Command(
        "calibrate",
        "ask",
        "--judge JUDGE --labels FILE",
        "measure a judge against human labels of answers",
        "calibrate",
    ),
    Command("inspect", "ask", "RUN", "write a run's evaluations as logs for `inspect view`", "ask"),
    Command(
        "export",
        "take",
        "RUN --out DIR",
        "export an arm as a PEFT adapter, a merged folder or a GGUF file, or its preference pairs; with cards",
        "take",
    ),
    Command("serve", "take", "RUN", "serve every arm from an OpenAI-compatible server, on loopback only", "take"),
    Command(
        "verify",
        "take",
        "RUN",
        "check every hash of a finished run, and recompute every figure from its stored answers; needs no model",
        "take",
    ),
    Command(
        "organism",
        "organism",
        "build|measure|sibling|card",
        "pretrain it, measure its abilities, train its instruct sibling, show its card",
        "organism",
    ),
    Command(
        "completion", "take", "bash|zsh|fish", "print a shell script that completes commands and flags", "completion"
    ),
)


COMMANDS = {command.name: command for command in _COMMANDS}
"""Every command by name, in the order of `--help`."""
