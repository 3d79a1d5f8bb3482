"""The command `study`: several runs that answer one question."""

import shlex
import sys
import textwrap
from pathlib import Path

from cai_base.cli.parser import Parser, count, nonempty_path, wants_help
from cai_base.errors import Stopped, UserError
from cai_base.progress import Progress, wrapped
from cai_base.text import for_terminal

USAGE = """\
usage: cai-base study NAME|FILE.toml --out DIR [flags]

Several runs that share stages, to answer one question. The study's file lists factors, their levels (values of a run's
settings) and the comparisons; docs/studies.md has the format. The study first prints what it can detect and what it
costs. The same command continues a stopped study.

  --out DIR        the study's folder: a new one, or that of a study to continue
  --quick          a small variant, if the file has one, for a first look
  --estimate       only print the plan, the cost, the time and what it can detect
  --processes N    concurrent runs, by default one per core; each has one thread by default
  --runs N         finish at most N runs, then stop; the study can be resumed
  --json           print study.json instead of the table

and flags of cai-base run for all runs, such as --seeds, --threads, --model, --judge, except those that the study
varies.
"""


def study(arguments: list[str]) -> int:
    """Run a study."""
    if not arguments or wants_help(arguments):
        print(USAGE + _packaged(), end="")
        return 0 if arguments else UserError.exit_code
    name, *rest = arguments
    if name.startswith("-"):
        raise UserError(f"{name}: the study comes first: cai-base study NAME|FILE.toml --out DIR")
    parser = Parser(prog="cai-base study", usage=USAGE, add_help=False)
    parser.add_argument("--out", type=nonempty_path, default=None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--estimate", action="store_true")
    parser.add_argument("--processes", type=count, default=None)
    parser.add_argument("--runs", type=count, default=None)
    parser.add_argument("--json", action="store_true")
    args, flags = parser.parse_known_args(rest)
    from cai_base.settings.command_line import flag_table
    from cai_base.settings.validation import FLAGS_ONLY
    from cai_base.studies.design import find, read_design

    own = ("--out", "--quick", "--estimate", "--processes", "--runs", "--json")
    table = flag_table(flags, "study", own)
    if "config" in table:
        raise UserError("--config: a study's file has the settings of its runs under [run]; put them there")
    if others := [name for name in FLAGS_ONLY if name in table]:
        raise UserError(f"--{others[0]}: a study has no such flag; it is of cai-base run alone")
    design = read_design(find(name), quick=args.quick)
    if args.out is None and not args.estimate:
        raise UserError("--out is missing: give the study's folder, or --estimate to see what it would do")
    from cai_base.studies.plan import plan

    plan(design, table)  # raises for a wrong setting before torch is imported, which takes seconds
    from cai_base.studies.study import do, outlook, prepare, time_needed

    progress = Progress()
    progress.say("Computing the plan, its cost and what it can detect")
    prepared = prepare(design, table)
    print(wrapped(outlook(prepared), sys.stdout), end="" if args.estimate else "\n", flush=True)
    processes = args.processes or _cores()
    if args.estimate:
        print(wrapped(time_needed(prepared, processes, progress), sys.stdout), end="")
        return 0
    again = shlex.join(["cai-base", "study", *arguments])
    try:
        do(prepared, args.out, progress, processes=processes, most=args.runs)
    except KeyboardInterrupt:
        raise Stopped(f"stopped; continue with: {again}") from None
    except Stopped as error:
        raise Stopped(f"{error}; continue with: {again}") from error
    _show(args.out, as_json=args.json)
    return 0


def _show(out: Path, *, as_json: bool) -> None:
    from cai_base.report import study_page
    from cai_base.studies.folder import RESULTS

    page = study_page.write(out)
    if as_json:
        print((out / RESULTS).read_text(encoding="utf-8"), end="")
        return
    print(study_page.table(out), end="")
    for path in (out / RESULTS, page):
        print(for_terminal(str(path)))


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _packaged() -> str:
    from cai_base.studies.design import packaged_studies, question_of

    indent = 17 * " "
    lines = [
        textwrap.fill(f"  {name:<15}{question_of(file)}", 120, subsequent_indent=indent)
        for name, file in packaged_studies().items()
    ]
    return "\nPackaged studies:\n" + "\n".join(lines) + "\n"
