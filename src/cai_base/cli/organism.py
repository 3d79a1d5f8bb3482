"""The commands that build, measure and describe the embedded base model and its instruct sibling: `organism`."""

import argparse
from pathlib import Path

from cai_base.cli.parser import Parser, count
from cai_base.errors import Stopped
from cai_base.progress import Progress


def organism(arguments: list[str]) -> int:
    """Build, measure or describe the embedded base model."""
    parser = Parser(prog="cai-base organism", description="The embedded base model, a model organism.")
    commands = parser.add_subparsers(metavar="build|measure|sibling|card", required=True, parser_class=Parser)

    build = commands.add_parser("build", help="pretrain it from nothing; resumable")
    build.add_argument("--out", type=Path, required=True, help="where to; a directory begun before is continued")
    build.add_argument("--tokens", type=count, default=None, help="of pretraining; as many as the shipped by default")
    build.add_argument("--seed", type=int, default=0, help="the corpus's and the initialisation's seed")
    build.set_defaults(run=_build)

    measure = commands.add_parser("measure", help="count what it can do, in minutes, and write that into its card")
    measure.add_argument("folder", type=Path, help="a directory that build has finished")
    measure.add_argument("--count", type=count, default=500, help="questions for each row of the table (500)")
    measure.add_argument("--seed", type=int, default=0, help="of the questions and of sampling (0)")
    measure.add_argument("--split", choices=("train", "dev", "test"), default="test", help="whose questions (test)")
    measure.add_argument("--texts", type=Path, default=None, help="a JSONL file to write every counted text to")
    measure.set_defaults(run=_measure)

    sibling = commands.add_parser("sibling", help="train its instruct sibling again, in minutes, as after a build")
    sibling.add_argument("--out", type=Path, required=True, help="where to; a sibling that is there is replaced")
    sibling.add_argument("--base", type=Path, default=None, help="the base model's folder; the shipped one by default")
    sibling.add_argument("--seed", type=int, default=0, help="the conversations' and the initialisation's seed")
    sibling.set_defaults(run=_sibling)

    card = commands.add_parser("card", help="what it is, what was planted in its corpus, what it can do")
    card.add_argument("folder", type=Path, nargs="?", default=None, help="a directory of build; the shipped by default")
    card.set_defaults(run=_card)

    args = parser.parse_args(arguments)
    args.run(args)
    return 0


def _build(args: argparse.Namespace) -> None:
    from cai_base.organism.build import build

    try:
        build(args.out, tokens=args.tokens, seed=args.seed, progress=Progress())
    except KeyboardInterrupt:
        raise Stopped(f"stopped; the same command continues: cai-base organism build --out {args.out}") from None


def _measure(args: argparse.Namespace) -> None:
    from cai_base.organism.build import card
    from cai_base.organism.measure import measure

    measure(args.folder, count=args.count, seed=args.seed, split=args.split, progress=Progress(), texts=args.texts)
    print(card(args.folder), end="")


def _sibling(args: argparse.Namespace) -> None:
    from cai_base.organism.make_sibling import build

    try:
        build(args.out, base=args.base, seed=args.seed, progress=Progress())
    except KeyboardInterrupt:
        raise Stopped("stopped; nothing was written, and the same command begins again") from None


def _card(args: argparse.Namespace) -> None:
    from cai_base import embedded
    from cai_base.organism import build, make_sibling

    print(build.card(args.folder or embedded.weights()), end="")
    if args.folder is None:
        print(f"\n{make_sibling.card(embedded.sibling())}", end="")
