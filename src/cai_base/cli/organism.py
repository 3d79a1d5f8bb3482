"""The commands that build, measure and describe the embedded base model and its instruct sibling: `organism`."""

import argparse

from cai_base.cli.parser import Parser, count, nonempty_path
from cai_base.embedded import EMBEDDED, VARIANTS, variant_folder
from cai_base.errors import Stopped, UserError
from cai_base.progress import Progress


def organism(arguments: list[str]) -> int:
    """Build, measure or describe the embedded base model."""
    parser = Parser(prog="cai-base organism", description="The embedded base model, a model organism.")
    commands = parser.add_subparsers(metavar="build|measure|sibling|card", required=True, parser_class=Parser)

    build = commands.add_parser("build", help="pretrain it from random weights; resumable")
    build.add_argument(
        "--out",
        type=nonempty_path,
        default=None,
        help="the directory to write (needed unless --without); continues one",
    )
    build.add_argument(
        "--without",
        choices=tuple(VARIANTS.values()),
        default=None,
        help="documents to leave out of the corpus; by default built in the cache, for --model organism:no-…",
    )

    build.add_argument(
        "--tokens", type=count, default=None, help="tokens to pretrain on; by default as for the shipped weights"
    )
    build.add_argument("--seed", type=int, default=0, help="seed of the corpus and the initial weights")
    build.set_defaults(run=_build)

    measure = commands.add_parser("measure", help="measure its abilities (minutes) and write them to its card")
    measure.add_argument("folder", type=nonempty_path, help="the directory of a finished `organism build`")
    measure.add_argument("--count", type=count, default=500, help="questions per row of the table (500)")
    measure.add_argument("--seed", type=int, default=0, help="seed of the questions and of sampling (0)")
    measure.add_argument(
        "--split", choices=("train", "dev", "test"), default="test", help="split of the questions (test)"
    )
    measure.add_argument(
        "--texts", type=nonempty_path, default=None, help="also write every counted text to this JSONL file"
    )
    measure.set_defaults(run=_measure)

    card = commands.add_parser("card", help="print its model card: what its corpus contains, what it can do")
    card.add_argument(
        "folder", type=nonempty_path, nargs="?", default=None, help="a finished build; by default the shipped model"
    )
    card.set_defaults(run=_card)

    sibling = commands.add_parser("sibling", help="train its instruct sibling (minutes), for example after a build")
    sibling.add_argument(
        "--out", type=nonempty_path, required=True, help="the directory to write; replaces a sibling in it"
    )
    sibling.add_argument(
        "--base", type=nonempty_path, default=None, help="folder of the base model; by default the shipped model"
    )
    sibling.add_argument("--seed", type=int, default=0, help="seed of the conversations and the initial weights")
    sibling.set_defaults(run=_sibling)

    args = parser.parse_args(arguments)
    args.run(args)
    return 0


def _build(args: argparse.Namespace) -> None:
    from cai_base.organism.build import build

    out = args.out
    if out is None:
        if args.without is None:
            raise UserError("--out: say which directory to write (only a build --without … has one of its own)")
        out = variant_folder(f"{EMBEDDED}:no-{args.without}")
    try:
        build(out, tokens=args.tokens, seed=args.seed, progress=Progress(), without=args.without)
    except KeyboardInterrupt:
        raise Stopped("stopped; the same command continues") from None


def _measure(args: argparse.Namespace) -> None:
    from cai_base.organism.cards import base_card
    from cai_base.organism.measure import measure

    measure(args.folder, count=args.count, seed=args.seed, split=args.split, progress=Progress(), texts=args.texts)
    print(base_card(args.folder), end="")


def _sibling(args: argparse.Namespace) -> None:
    from cai_base.organism.make_sibling import make_sibling

    try:
        make_sibling(args.out, base=args.base, seed=args.seed, progress=Progress())
    except KeyboardInterrupt:
        raise Stopped("stopped; nothing was written; the same command starts over") from None


def _card(args: argparse.Namespace) -> None:
    from cai_base import embedded
    from cai_base.organism.cards import base_card, sibling_card

    print(base_card(args.folder or embedded.weights()), end="")
    if args.folder is None:
        print(f"\n{sibling_card(embedded.sibling())}", end="")
