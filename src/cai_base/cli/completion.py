"""The command `completion`: prints a script with which a shell completes commands and flags.

Flags and their choices are read from each command's `--help`, so that none is missing or outdated.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from io import StringIO

from cai_base.cli.commands import COMMANDS, Command
from cai_base.cli.parser import Parser

OF_RUN = "flags of cai-base run"
"""What the help of a command says that takes flags of `cai-base run` too."""
BASH = """\
_cai_base() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" flags="" values="" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word"))
    return
  fi
  case "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}} " in
{flags}
  esac
  case "${{COMP_WORDS[1]}} $before" in
{values}
  esac
  [ "$COMP_CWORD" -eq 2 ] && case "${{COMP_WORDS[1]}}" in
{words}
  esac
  case "$word" in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;
    *) COMPREPLY=($(compgen -W "$values $words" -- "$word"))
       [ -n "$values" ] || [ "${{#COMPREPLY[@]}}" -gt 0 ] || COMPREPLY=($(compgen -f -- "$word")) ;;
  esac
}}
complete -o filenames -F _cai_base cai-base
"""
ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
"""The lines before the bash script, with which zsh can run it."""


def completion(arguments: list[str]) -> int:
    """Print the script for a shell."""
    parser = Parser(
        prog="cai-base completion",
        description="Print a script with which a shell completes commands and flags. "
        'bash and zsh: eval "$(cai-base completion bash)" in .bashrc, or zsh in .zshrc. '
        "fish: cai-base completion fish > ~/.config/fish/completions/cai-base.fish",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    shell = parser.parse_args(arguments).shell
    helps = _helps()
    print(_fish(helps) if shell == "fish" else (ZSH if shell == "zsh" else "") + _bash(helps), end="")
    return 0


@dataclass(frozen=True, slots=True)
class _Help:
    """What the help of a command, or of a command of its own such as `organism build`, lists.

    Attributes:
        flags: every flag, with the values that it takes if these are a choice.
        words: the choice for its first argument.
    """

    flags: Mapping[str, Sequence[str]]
    words: Sequence[str]


def _helps() -> dict[str, _Help]:
    """By command, one that is part of another before it."""
    helps: dict[str, _Help] = {}
    of_run = _listed(_help_text(COMMANDS["run"]))
    for name, command in COMMANDS.items():
        text, words = _help_text(command), _words(command)
        flags = {**_listed(text), **({} if name == "run" else _of_run(name, text, of_run))}
        if name == "organism":
            for word in words:
                helps[f"{name} {word}"] = _Help(_listed(_help_text(command, word)), ())
        helps[name] = _Help(flags, words)
    return helps


def _help_text(command: Command, *words: str) -> str:
    output = StringIO()
    with redirect_stdout(output), suppress(SystemExit):  # argparse ends the process after its help
        command.run([*words, "--help"])
    return output.getvalue()


def _words(command: Command) -> list[str]:
    """The choice for a command's first argument; none if it is free."""
    if command.name == "study":
        from cai_base.studies.design import packaged_studies

        return list(packaged_studies())
    return command.takes.split("|") if re.fullmatch(r"[a-z]+(\|[a-z]+)+", command.takes) else []


def _listed(text: str) -> dict[str, list[str]]:
    """The flags that a help text lists, each with its choice, `a|b` or `{a,b}`."""
    lines = re.findall(r"^ +(?:-\w, )?(--[a-z][a-z0-9.-]*)(?:,? +(\S+))?", text, re.M)
    also = re.findall(r"\(also (--[a-z-]+)\)", text)
    return {"--help": [], **{flag: [] for flag in also}, **{flag: _choice(takes) for flag, takes in lines}}


def _choice(takes: str) -> list[str]:
    if re.fullmatch(r"\{\S+\}", takes):
        return takes[1:-1].split(",")
    return takes.split("|") if re.fullmatch(r"[a-z0-9-]+(\|[a-z0-9-]+)+", takes) else []


def _of_run(name: str, text: str, of_run: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The flags of `cai-base run` that a command takes, by its help: those that it names, else all."""
    if OF_RUN not in text:
        return {}
    if name == "study":
        from cai_base.settings.validation import FLAGS_ONLY

        return {flag: choice for flag, choice in of_run.items() if flag.removeprefix("--") not in FLAGS_ONLY}
    named = ["--*"]
    if f"these {OF_RUN}" in text:
        named = re.findall(r"--[a-z][a-z.-]*[a-z*]", text.partition(OF_RUN)[2])
    return {flag: choice for flag, choice in of_run.items() if any(fnmatch(flag, one) for one in named)}


def _bash(helps: Mapping[str, _Help]) -> str:
    return BASH.format(
        commands=" ".join(COMMANDS),
        flags="\n".join(f'    "{name} "*) flags="{" ".join(sorted(one.flags))}" ;;' for name, one in helps.items()),
        values="\n".join(
            f'    "{name.partition(" ")[0]} {flag}") values="{" ".join(choice)}" ;;'
            for name, one in helps.items()
            for flag, choice in one.flags.items()
            if choice
        ),
        words="\n".join(f'    {name}) words="{" ".join(one.words)}" ;;' for name, one in helps.items() if one.words),
    )


def _fish(helps: Mapping[str, _Help]) -> str:
    lines = []
    for name, command in COMMANDS.items():
        words = command.about.replace("'", "")
        lines.append(f"complete -c cai-base -n __fish_use_subcommand -f -a {name} -d '{words}'")
        if helps[name].words:
            first = f"-n '__fish_seen_subcommand_from {name}; and test (count (commandline -opc)) -eq 2'"
            lines.append(f"complete -c cai-base {first} -a '{' '.join(helps[name].words)}'")
    for name, one in helps.items():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split())
        for flag, choice in sorted(one.flags.items()):
            values = f" -x -a '{' '.join(choice)}'" if choice else ""
            lines.append(f"complete -c cai-base -n '{seen}' -l {flag.removeprefix('--')}{values}")
    return "\n".join(lines) + "\n"
