"""The commands that evaluate: `evaluate`, `style` and `inspect`."""

import textwrap
from pathlib import Path

from cai_base.cli import look
from cai_base.cli.look import accept_changes, refuse_unfinished, write_logs
from cai_base.cli.parser import Parser, names, nonempty_path, run_parser, take_changes, wants_help
from cai_base.errors import UserError, install
from cai_base.paths import SUITES
from cai_base.progress import Progress
from cai_base.text import for_terminal

EVALUATE_USAGE = """\
usage: cai-base evaluate RUN|MODEL --suite NAME|FILE [flags]

Evaluate the arms of a finished run on a suite, or a model: organism, a folder, a hub id, or the folder of any PEFT
adapter. Answers and verdicts are stored as they arrive; the same command continues an interrupted evaluation. A run's
page shows its suites.

  --suite NAME|FILE|NAME:FILE  {suites}
  --limit N                    use N of its prompts, a fixed random sample
  --arms base,sft,cai          arms of a run; all by default
  --layout auto|chat|dialogue  layout for a model; auto (the default) is its chat template if it has one, else the
                               few-shot dialogue
  --base MODEL                 base model of a PEFT adapter; by default from its adapter_config.json
  --accept-changed FILE        use a file of the run although it was changed after the run; the results say so
  --out DIR                    RUN/suites/<suite> by default, or evaluations/<date>-<model>-<suite>
  --json                       print results.json instead of the table

and these flags of cai-base run: --judge, --judge-url, --second-judge, --rubric, --votes, --judging.*, --evaluation.*,
--threads; for a model also --seeds, --engine, --tokenizer, --data, --dtype. The default judge of a run is the run's
judge.
"""
SUITES_COLUMN = 31
"""The column at which what a flag takes is described in it."""


def _evaluate_usage() -> str:
    """The help of `evaluate`, with the names of all suites."""
    from cai_base.evaluation.tasks.suite_files import formats_only, suite_names

    *names, style = suite_names()
    about = (
        f"{', '.join(names)} (their authors' files, downloaded once); {style} (for a run: the same as cai-base style); "
        "your own prompts, a CSV or JSONL file with the fields text and kind; or a file in the format of one of these, "
        f"where NAME:FILE says which, also {', '.join(formats_only())}"
    )
    lines = textwrap.wrap(about, 120 - SUITES_COLUMN, break_on_hyphens=False)
    return EVALUATE_USAGE.format(suites=f"\n{' ' * SUITES_COLUMN}".join(lines))


def evaluate(arguments: list[str]) -> int:
    """Evaluate arms or a model on a suite."""
    if not arguments or wants_help(arguments):
        print(_evaluate_usage(), end="")
        return 0 if arguments else UserError.exit_code
    target, *rest = arguments
    if target.startswith("-"):
        raise UserError(f"{target}: the run or the model comes first: cai-base evaluate RUN|MODEL --suite NAME|FILE")
    from cai_base.dialogue import LAYOUTS

    parser = Parser(prog="cai-base evaluate", usage=_evaluate_usage(), add_help=False)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--layout", choices=LAYOUTS, default="auto")
    parser.add_argument("--base", default=None)
    parser.add_argument("--arms", type=names, default=None)
    parser.add_argument("--out", type=nonempty_path, default=None)
    parser.add_argument("--questions", type=int, default=None)
    parser.add_argument("--samples", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    take_changes(parser)
    args, flags = parser.parse_known_args(rest)
    from cai_base.store import MANIFEST

    if args.accept_changed and not (Path(target) / MANIFEST).is_file():
        raise UserError(f"--accept-changed {args.accept_changed[0]}: {target} is no run; leave it out")
    accept_changes(Path(target), args.accept_changed)
    del args.accept_changed
    from cai_base.evaluation.tasks.suite_files import STYLE
    from cai_base.run.evaluation.evaluate import evaluate as ask
    from cai_base.run.evaluation.targets import Request

    as_json = args.json
    del args.json
    results = ask(Request(target, flags=flags, **vars(args)), Progress())
    if args.suite == STYLE:
        return _show_styles(results, as_json)
    run = Path(target).resolve()
    pages = _rewrite_pages(Path(target)) if results.resolve().parent.parent == run / SUITES else []
    from cai_base.report.suite_table import render

    print(results.read_text(encoding="utf-8") if as_json else render(results.parent), end="")
    for path in () if as_json else (results, *pages):
        print(for_terminal(str(path)))
    return 0


def _rewrite_pages(run: Path) -> list[Path]:
    """Write a run's pages with what was just evaluated. Returns their paths."""
    Progress().say(f"Writing the report of {run}")
    from cai_base.report import write

    return write(run)


def style(arguments: list[str]) -> int:
    """Evaluate the arms of a run in thirteen styles."""
    parser = run_parser("style", "Evaluate the arms of a finished run in thirteen styles.")
    parser.add_argument(
        "--arms",
        type=names,
        default=None,
        help="comma-separated; by default all of the run, and on the embedded model instruct too",
    )
    parser.add_argument(
        "--questions",
        type=int,
        default=None,
        help="questions per style, at least 3 (6 for --data world, 3 for english)",
    )
    parser.add_argument("--samples", type=int, default=None, help="answers per question, at least 2 (2)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; the run's by default")
    parser.add_argument("--json", action="store_true", help="print style.json instead of the tables")
    take_changes(parser)
    args = parser.parse_args(arguments)
    accept_changes(args.run, args.accept_changed)
    from cai_base.evaluation.tasks.suite_files import STYLE
    from cai_base.run.evaluation.evaluate import evaluate as ask
    from cai_base.run.evaluation.targets import Request

    threads = () if args.threads is None else ("--threads", str(args.threads))
    request = Request(
        str(args.run), STYLE, arms=args.arms, questions=args.questions, samples=args.samples, flags=threads
    )
    return _show_styles(ask(request, Progress()), args.json)


def _show_styles(results: Path, as_json: bool) -> int:
    """Rewrite the run's pages, and show the figures of its styles."""
    pages = _rewrite_pages(results.parent)
    from cai_base.report.style_table import render

    print(results.read_text(encoding="utf-8") if as_json else render(results.parent), end="")
    for path in () if as_json else (results, *pages):
        print(for_terminal(str(path)))
    return 0


def inspect(arguments: list[str]) -> int:
    """Write a run's evaluations as logs for Inspect."""
    parser = run_parser("inspect", "Write a run's evaluations as logs for `inspect view`.")
    take_changes(parser)
    args = parser.parse_args(arguments)
    if not look.inspect_is_installed():
        raise UserError(f"Inspect is not installed; {install('inspect')}")
    refuse_unfinished(args.run, args.accept_changed)
    for path in write_logs(args.run):
        print(for_terminal(str(path)))
    return 0
