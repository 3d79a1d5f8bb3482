"""The commands that take a run elsewhere, or check it: `export`, `serve` and `verify`."""

import json

from cai_base.cli.parser import run_parser
from cai_base.progress import Progress
from cai_base.text import for_terminal


def verify(arguments: list[str]) -> int:
    """Check a finished run without a model."""
    parser = run_parser(
        "verify",
        "Check a finished run without a model: every file's hash, every verdict of a judge that needs no model, and "
        "every figure of results.json from the stored answers. The first difference ends it, with exit code 2.",
    )
    parser.add_argument("--json", action="store_true", help="print what was checked as JSON")
    args = parser.parse_args(arguments)
    Progress().say(f"Checking the files of {args.run}")
    from cai_base.run.verify import verify as check

    done = check(args.run)
    if args.json:
        print(json.dumps(done.dump(), indent=2))
        return 0
    print(f"{args.run}: nothing differs")
    print(f"  {done.files} files have the bytes that the manifest names")
    if done.verdicts:
        print(f"  {done.verdicts} verdicts are those of the judge, given again")
    rounded = f"; {done.rounded} of them differ by rounding alone" if done.rounded else ""
    print(f"  {done.figures} figures of results.json were computed again from the stored answers{rounded}")
    for name, (then, here) in done.versions.items():
        print(f"  {name} was {then} and is {here} here")
    print("Not checked:")
    for sentence in done.not_checked:
        print(f"  {for_terminal(sentence)}")
    return 0
