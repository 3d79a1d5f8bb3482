"""`cai-base chat`: a prompt is typed, and the arms answer side by side; one revision chain can be walked by hand."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cai_base.cli.parser import Parser, count, wants_help
from cai_base.errors import UserError
from cai_base.progress import Progress

if TYPE_CHECKING:
    from cai_base.cli.conversation import Conversation

CHAT_USAGE = """\
usage: cai-base chat RUN|MODEL [flags]

Type a prompt: the base model, SFT-only, full CAI (and the instruct model, where there is one) answer side by side.
Every prompt stands alone, as in the evaluation, and is asked in each arm's own layout. In a pipe a line is a prompt.

  --arm base,sft,cai    which arms of a run; by default all but the controls
  --seed N              which seed of a run; the first by default
  --temperature X       0 takes the most probable token; by default as in the run's evaluation
  --max-tokens N        longest answer; by default as in the run's evaluation
  --threads N           CPU threads; by default the run's
  --base MODEL          of a PEFT adapter; by default what its adapter_config.json names
  --layout auto|chat|dialogue
                        of a MODEL; auto (the default) is its chat template, or the few-shot dialogue where it has none

While it runs:
  /more TEXT            a further turn of the last conversation
  /again                the last prompt with other draws
  /critique PRINCIPLE   the SFT arm (or the first that is no chat model) criticises its last answer; name or number
  /revise               and revises it; /critique goes on from the revision
  /principles           the principles of the constitution
  /why                  the log-probability of each arm's answer under the other arms
  /save FILE            the session so far, a line of JSON for each step
  /help, /quit
"""


def chat(arguments: list[str]) -> int:
    """Talk to the arms of a run, or to a model."""
    if not arguments or wants_help(arguments):
        print(CHAT_USAGE, end="")
        return 0 if arguments else UserError.exit_code
    target, *rest = arguments
    if target.startswith("-"):
        raise UserError(f"{target}: the run or the model comes first: cai-base chat RUN|MODEL")
    parser = Parser(prog="cai-base chat", usage=CHAT_USAGE, add_help=False)
    parser.add_argument("--arm", type=lambda text: tuple(name.strip() for name in text.split(",")), default=None)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--temperature", type=float, default=None)
    parser.add_argument("--max-tokens", type=count, default=None)
    parser.add_argument("--threads", type=count, default=None)
    parser.add_argument("--base", default=None)
    parser.add_argument("--layout", choices=("auto", "chat", "dialogue"), default="auto")
    args = parser.parse_args(rest)
    if args.temperature is not None and not 0 <= args.temperature < float("inf"):
        raise UserError(f"--temperature {args.temperature}: must be a number from 0 on")
    from cai_base.run.targets import check_target

    check_target(target)
    from cai_base.cli.conversation import ChatFlags, open_conversation

    flags = ChatFlags(args.arm, args.seed, args.temperature, args.max_tokens, args.threads, args.base, args.layout)
    conversation = open_conversation(target, flags, Progress())
    try:
        _converse(conversation)
    except (EOFError, KeyboardInterrupt):
        print()
    return 0


def _converse(conversation: "Conversation") -> None:
    """Take lines until there are no more. In a terminal a wrong one is said and the talk goes on; in a pipe it ends."""
    interactive = sys.stdin.isatty()
    for line in _lines(interactive):
        if line.strip() in ("/quit", "/exit"):
            return
        try:
            conversation.take(line)
        except UserError as error:
            if not interactive:
                raise
            conversation.say(str(error))


def _lines(interactive: bool) -> Iterator[str]:
    """What is typed, or what comes through the pipe, without empty lines. Bytes that are no UTF-8 become U+FFFD."""
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    if not interactive:
        yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        return
    import readline  # noqa: F401  # gives `input` its editing and history

    while True:
        line = input("\n> ")
        if line.strip():
            yield line


def save_file(text: str) -> Path:
    """The file of `/save FILE`.

    Raises:
        UserError: none is named, or it exists already.
    """
    if not text:
        raise UserError("/save: name the file, such as /save talk.jsonl")
    path = Path(text).expanduser()
    if path.exists():
        raise UserError(f"/save {path}: exists already; give a new name")
    if not path.parent.is_dir():
        raise UserError(f"/save {path}: there is no folder {path.parent}")
    return path
