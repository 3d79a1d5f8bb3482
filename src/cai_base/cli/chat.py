"""`cai-base chat`: you type a prompt, the arms answer side by side; you can also step through a revision chain."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cai_base.cli.parser import Parser, count, names, wants_help
from cai_base.errors import UserError
from cai_base.progress import Progress

if TYPE_CHECKING:
    from cai_base.cli.conversation import Conversation

CHAT_USAGE = """\
usage: cai-base chat RUN|MODEL [flags]

Type a prompt: the base model, SFT-only, full CAI and the instruct model answer side by side. The instruct model is the
run's; with the embedded model it is its shipped sibling, even if the run has no such arm. Every prompt starts a new
conversation, as in the evaluation, in each arm's own layout. From a pipe, each line is a prompt.

  --arms base,sft,cai   arms of a run (also --arm); by default all but the controls
  --seed N              seed of a run; by default the first
  --temperature X       0 takes the most probable token; by default as in the run's evaluation
  --max-tokens N        most tokens of an answer; by default as in the run's evaluation
  --threads N           CPU threads; by default the run's
  --base MODEL          base model of a PEFT adapter; by default from its adapter_config.json
  --layout auto|chat|dialogue
                        layout for a MODEL; auto (the default) is its chat template if it has one, else the few-shot
                        dialogue

While it runs:
  /more TEXT            continue the last conversation with another turn
  /again                sample new answers to the last prompt
  /critique PRINCIPLE   the SFT arm (or the first arm without a chat template) criticises its answer; name or number
  /revise               it revises the answer; a further /critique starts from the revision
  /principles           the principles of the constitution
  /why                  the mean log-probability per token of each answer, and of the last revision, under every arm
  /save FILE            save the session so far as JSON lines, one per step
  /help, /quit
"""


def chat(arguments: list[str]) -> int:
    """Chat with the arms of a run, or with a model."""
    if not arguments or wants_help(arguments):
        print(CHAT_USAGE, end="")
        return 0 if arguments else UserError.exit_code
    target, *rest = arguments
    if target.startswith("-"):
        raise UserError(f"{target}: the run or the model comes first: cai-base chat RUN|MODEL")
    parser = Parser(prog="cai-base chat", usage=CHAT_USAGE, add_help=False)
    parser.add_argument("--arms", "--arm", dest="arms", type=names, default=None)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--temperature", type=float, default=None)
    parser.add_argument("--max-tokens", type=count, default=None)
    parser.add_argument("--threads", type=count, default=None)
    parser.add_argument("--base", default=None)
    parser.add_argument("--layout", choices=("auto", "chat", "dialogue"), default="auto")
    args = parser.parse_args(rest)
    if args.temperature is not None and not 0 <= args.temperature < float("inf"):
        raise UserError(f"--temperature {args.temperature}: must be a number of at least 0")
    from cai_base.run.evaluation.targets import check_target

    check_target(target)
    from cai_base.cli.conversation import ChatFlags, open_conversation

    flags = ChatFlags(args.arms, args.seed, args.temperature, args.max_tokens, args.threads, args.base, args.layout)
    conversation = open_conversation(target, flags, Progress())
    try:
        _converse(conversation)
    except (EOFError, KeyboardInterrupt):
        print()
    return 0


def _converse(conversation: "Conversation") -> None:
    """Handle lines until there are no more. An error is printed in a terminal, and ends the command in a pipe."""
    interactive = sys.stdin.isatty()
    if interactive:
        conversation.say("Type a prompt, and each arm answers. /help lists the commands, /quit ends.")
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
    """The non-empty lines from the terminal or the pipe. Invalid UTF-8 becomes U+FFFD."""
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    if not interactive:
        yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        return
    import readline  # noqa: F401  # adds line editing and history to `input`

    while True:
        line = input("\n> ")
        if line.strip():
            yield line


def save_file(text: str) -> Path:
    """The path for `/save FILE`.

    Raises:
        UserError: there is no name, the file exists, or none can be made there.
    """
    if not text:
        raise UserError("/save: name the file, such as /save talk.jsonl")
    from cai_base.store import check_new_file

    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"/save {text}: there is no such user; give the path of a new file") from None
    check_new_file(path, "/save")
    if path.exists():
        raise UserError(f"/save {path}: already exists; give a new name")
    return path
