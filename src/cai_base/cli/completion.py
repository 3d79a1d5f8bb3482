"""The command `completion`: prints a script with which a shell completes commands and flags.

The flags are read from each command's `--help`, so that none is missing or outdated.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from fnmatch import fnmatch
from io import StringIO

from cai_base.cli.commands import COMMANDS, Command
from cai_base.cli.parser import Parser

OF_RUN = "flags of cai-base run"
"""What the help of a command says that takes flags of `cai-base run` too."""
BASH = """\
_cai_base() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" flags=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$word" in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
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
    flags = {name: flags_of(command) for name, command in COMMANDS.items()}
    if shell == "fish":
        print(_fish(flags), end="")
    else:
        print((ZSH if shell == "zsh" else "") + _bash(flags), end="")
    return 0


def flags_of(command: Command) -> list[str]:
    """The flags that a command's help lists."""
    output = StringIO()
    with redirect_stdout(output), suppress(SystemExit):  # argparse ends the process after its help
        command.run(["--help"])
    flags = re.findall(r"^ +(?:-\w, )?(--[a-z][a-z0-9.-]*)", output.getvalue(), re.M)
    return sorted({*flags, *_of_run(command.name, output.getvalue()), "--help"})


def _of_run(name: str, text: str) -> list[str]:
    """The flags of `cai-base run` that a command takes, by its help: those that it names, else all."""
    if name == "run" or OF_RUN not in text:
        return []
    every = flags_of(COMMANDS["run"])
    if name == "study":
        from cai_base.settings.validation import FLAGS_ONLY

        return [flag for flag in every if flag.removeprefix("--") not in FLAGS_ONLY]
    named = re.findall(r"--[a-z][a-z.-]*\*?", text.partition(OF_RUN)[2]) if f"these {OF_RUN}" in text else ["--*"]
    return [flag for flag in every if any(fnmatch(flag, one) for one in named)]


def _bash(flags: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(f'    {name}) flags="{" ".join(of_command)}" ;;' for name, of_command in flags.items())
    return BASH.format(commands=" ".join(flags), cases=cases)


def _fish(flags: Mapping[str, Sequence[str]]) -> str:
    lines = []
    for name, command in COMMANDS.items():
        words = command.about.replace("'", "")
        lines.append(f"complete -c cai-base -n __fish_use_subcommand -f -a {name} -d '{words}'")
        within = f"-n '__fish_seen_subcommand_from {name}'"
        lines += [f"complete -c cai-base {within} -l {flag.removeprefix('--')}" for flag in flags[name]]
    return "\n".join(lines) + "\n"
