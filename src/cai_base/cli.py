"""The commands: parse, call, print. What they do lives elsewhere."""

import argparse
import sys
import traceback
from collections.abc import Callable
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cai_base import __version__
from cai_base.errors import Stopped, UserError
from cai_base.progress import Progress

if TYPE_CHECKING:
    from cai_base.experiment import Experiment

USAGE = """\
usage: cai-base COMMAND ...

Constitutional AI from a true base model.

  run [flags]              train and evaluate; without flags, on the embedded base model (cai-base run --help)
  preflight [flags of run] the checks that come first in every run, and nothing else
  resume RUN               continue a run that was stopped
  report RUN               write the run's page and figures again
  evaluate RUN|MODEL       ask a standard suite, or a file of prompts, of a run's arms or of any model
  inspect RUN              write the run's evaluations as logs for `inspect view`
  style RUN                how far each arm of a finished run keeps thirteen styles, and how varied its answers are
  cost [flags of run]      the tokens that a run can take at most, and their price on the Tinker service
  organism build|measure|sibling|card
                           make the embedded base model, count what it can do, train its instruct sibling, show the card
  --version                print the version

Exit codes: 0 done, 2 wrong input, 3 stopped and resumable, 1 a defect. --debug shows the traceback of 2 and 3.
"""

PREFLIGHT_USAGE = (
    "Make the checks that come first in every run, and nothing else: nothing is trained or stored. Takes the flags of\n"
    "the run."
)

COST_USAGE = """\
usage: cai-base cost [flags of cai-base run]

The tokens that this run can take at most, by phase, and what they cost on a Tinker service. Nothing is trained or
sampled, and no service is asked. --price READ,SAMPLED,TRAINED gives dollars per million tokens where the packaged table
has none, or an old one; --tokenizer FOLDER the tokenizer of a model that is in no folder.
"""

EVALUATE_USAGE = """\
usage: cai-base evaluate RUN|MODEL --suite NAME|FILE [flags]

Ask a suite of the arms of a finished run, or of a model: organism, a folder, a hub id, or the folder of a PEFT adapter
that need not be made here. What is answered and judged is kept, and the same command goes on where it was stopped.

  --suite NAME|FILE|NAME:FILE  harmbench, advbench, jailbreakbench, strongreject, xstest, hh-red-team (their authors'
                               files, downloaded once), hhh (the CAI paper's comparisons, by log-probability), style
                               (of a run: as cai-base style), a file of one of these forms, or one's own prompts with
                               their kinds
  --limit N                    ask N of its prompts, drawn from the whole, the same every time
  --arms base,sft,cai          of a run; all by default
  --layout auto|chat|dialogue  of a model; auto (the default) is its chat template, or the few-shot dialogue where it
                               has none
  --base MODEL                 of a PEFT adapter; by default what its adapter_config.json names
  --out DIR                    by default RUN/suites/<suite>, or evaluations/<date>-<model>-<suite>
  --json                       print results.json instead of the table

and these flags of cai-base run: --judge, --judge-url, --second-judge, --rubric, --votes, --judging.*, --evaluation.*,
--threads; for a model also --seeds, --engine, --tokenizer, --data. A run is judged by its own judge by default.
"""


def main(args: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    try:
        return _dispatch(arguments)
    except (UserError, Stopped) as error:
        if debug:
            traceback.print_exc()
        print(f"cai-base: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("cai-base: stopped; nothing was lost", file=sys.stderr)
        return Stopped.exit_code
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        sys.stderr.close()
        return 0


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else UserError.exit_code
    if arguments[0] == "--version":
        print(__version__)
        return 0
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": _run,
        "preflight": _preflight,
        "resume": _resume,
        "report": _report,
        "evaluate": _evaluate,
        "inspect": _inspect,
        "style": _style,
        "cost": _cost,
        "organism": _organism,
    }
    command = commands.get(arguments[0])
    if command is None:
        raise UserError(f"{arguments[0]}: there is no such command; there are {', '.join(commands)}")
    return command(arguments[1:])


def _run(arguments: list[str]) -> int:
    from cai_base.settings.command_line import help_text, load_settings

    if "-h" in arguments or "--help" in arguments:
        print(help_text(), end="")
        return 0
    settings, out, as_json = load_settings(arguments)
    if out is None:
        out = _free(Path("runs") / f"{date.today().isoformat()}-{Path(settings.model).name}")
    from cai_base.experiment import begin

    return _finish(lambda progress: begin(settings, out, progress), out, as_json)


def _preflight(arguments: list[str]) -> int:
    from cai_base.settings.command_line import help_text, load_settings

    if "-h" in arguments or "--help" in arguments:
        print(help_text("preflight", PREFLIGHT_USAGE), end="")
        return 0
    settings, out, as_json = load_settings(arguments)
    from cai_base.experiment import examine
    from cai_base.run.preflight.outcome import as_json as checks_as_json
    from cai_base.run.preflight.outcome import refuse, table

    examined = examine(settings, out or Path("runs") / "new", Progress())
    found = examined.checks
    for warning in examined.warnings:
        Progress().say(f"warning: {warning}")
    print(checks_as_json(found) if as_json else table(found), end="")
    refuse(found, settings.accept)
    return 0


def _resume(arguments: list[str]) -> int:
    parser = _Parser(prog="cai-base resume", description="Continue a run that was stopped.")
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's directory")
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")
    parser.add_argument("--max-cost", type=float, default=None, help="another limit in dollars than it began with")
    given = parser.parse_args(arguments)
    from cai_base.store import Run

    Progress().say(f"Checking the files of {given.run}")
    if Run.open(given.run).progress("results"):
        Progress().say(f"{given.run} is complete: nothing is left to do, and these are its results")
        _show(given.run, given.json)
        from cai_base.run.results import refuse_lost_arms

        refuse_lost_arms(given.run)
        return 0
    from cai_base.experiment import resume

    return _finish(lambda progress: resume(given.run, progress, given.max_cost), given.run, given.json)


def _finish(open_run: Callable[[Progress], "Experiment"], directory: Path, as_json: bool) -> int:
    """Take a run to its end, and show what came out."""
    from cai_base.run.results import refuse_lost_arms

    progress = Progress()
    try:
        experiment = open_run(progress)
        experiment.finish()
        _show(directory, as_json)
        refuse_lost_arms(directory)
    except KeyboardInterrupt:
        if not (directory / "manifest.json").exists():
            raise Stopped("stopped before the run began; nothing was stored") from None
        raise Stopped(f"stopped; continue with: cai-base resume {directory}") from None
    except Stopped as error:
        if not (directory / "manifest.json").exists():
            raise
        raise Stopped(f"{error}; continue with: cai-base resume {directory}") from error
    return 0


def _show(directory: Path, as_json: bool) -> None:
    Progress().say(f"Writing the report of {directory}")
    from cai_base.report import write
    from cai_base.report.table import render

    pages = write(directory)
    if inspect_is_there():
        _write_logs(directory)
    if as_json:
        print((directory / "results.json").read_text(encoding="utf-8"), end="")
        return
    print(render(directory), end="")
    for path in (directory / "results.json", *pages):
        print(path)


def _report(arguments: list[str]) -> int:
    parser = _Parser(prog="cai-base report", description="Write a run's page and figures again.")
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's directory")
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")
    given = parser.parse_args(arguments)
    _refuse_unfinished(given.run)
    _show(given.run, given.json)
    return 0


def _evaluate(arguments: list[str]) -> int:
    from cai_base.run.evaluate import evaluate
    from cai_base.run.targets import LAYOUTS, STYLE, Request

    parser = _Parser(prog="cai-base evaluate", usage=EVALUATE_USAGE, allow_abbrev=False, add_help=False)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--layout", choices=LAYOUTS, default="auto")
    parser.add_argument("--base", default=None)
    parser.add_argument("--arms", type=lambda text: tuple(text.split(",")), default=None)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--questions", type=int, default=None)
    parser.add_argument("--samples", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(EVALUATE_USAGE, end="")
        return 0 if arguments else UserError.exit_code
    target, *rest = arguments
    if target.startswith("-"):
        raise UserError(f"{target}: the run or the model comes first: cai-base evaluate RUN|MODEL --suite NAME|FILE")
    given, flags = parser.parse_known_args(rest)
    as_json = given.json
    del given.json
    results = evaluate(Request(target, flags=flags, **vars(given)), Progress())
    if given.suite == STYLE:
        return _show_styles(results, as_json)
    if as_json:
        print(results.read_text(encoding="utf-8"), end="")
        return 0
    from cai_base.report.suite_table import render

    print(render(results.parent), end="")
    print(results)
    return 0


def _refuse_unfinished(directory: Path) -> None:
    from cai_base.store import Run

    Progress().say(f"Checking the files of {directory}")
    if not Run.open(directory).progress("results"):
        raise UserError(f"{directory}: has no results yet; finish it first: cai-base resume {directory}")


def _inspect(arguments: list[str]) -> int:
    parser = _Parser(prog="cai-base inspect", description="Write a run's evaluations as logs for `inspect view`.")
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's directory")
    given = parser.parse_args(arguments)
    if not inspect_is_there():
        raise UserError("Inspect is not installed; pip install 'cai-base[inspect]'")
    _refuse_unfinished(given.run)
    for path in _write_logs(given.run):
        print(path)
    return 0


def _write_logs(directory: Path) -> list[Path]:
    Progress().say(f"Writing logs for Inspect; see them with: inspect view --log-dir {directory / 'inspect'}")
    from cai_base.integrations.inspect_logs import write

    return write(directory)


def inspect_is_there() -> bool:
    return find_spec("inspect_ai") is not None


def _style(arguments: list[str]) -> int:
    parser = _Parser(prog="cai-base style", description="Ask the arms of a finished run in thirteen styles.")
    parser.add_argument("run", type=Path, help="the run's directory")
    parser.add_argument(
        "--arms", default=None, help="with commas; all of the run by default, and on the embedded model instruct too"
    )
    parser.add_argument("--questions", type=int, default=None, help="in each style (6 in the village, 3 in English)")
    parser.add_argument("--samples", type=int, default=None, help="answers to each (2)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; the run's by default")
    parser.add_argument("--json", action="store_true", help="print style.json instead of the tables")
    given = parser.parse_args(arguments)
    from cai_base.run.evaluate import evaluate
    from cai_base.run.targets import STYLE, Request

    request = Request(
        str(given.run),
        STYLE,
        arms=None if given.arms is None else tuple(given.arms.split(",")),
        questions=given.questions,
        samples=given.samples,
        flags=() if given.threads is None else ("--threads", str(given.threads)),
    )
    return _show_styles(evaluate(request, Progress()), given.json)


def _show_styles(results: Path, as_json: bool) -> int:
    """Write the run's pages anew, and show the figures of its styles."""
    from cai_base.report import write
    from cai_base.report.style_table import render

    pages = write(results.parent)
    print(results.read_text(encoding="utf-8") if as_json else render(results.parent), end="")
    for path in () if as_json else (results, *pages):
        print(path)
    return 0


def _cost(arguments: list[str]) -> int:
    from cai_base.settings.command_line import load_settings

    if "-h" in arguments or "--help" in arguments:
        print(COST_USAGE, end="")
        return 0
    settings, _, as_json = load_settings(arguments)
    from cai_base.experiment import estimate_cost

    print(estimate_cost(settings, as_json=as_json), end="")
    return 0


def _organism(arguments: list[str]) -> int:
    parser = _Parser(prog="cai-base organism", description="The embedded base model, a model organism.")
    commands = parser.add_subparsers(
        dest="command", metavar="build|measure|sibling|card", required=True, parser_class=_Parser
    )
    build = commands.add_parser("build", help="pretrain it from random weights; resumable")
    build.add_argument("--out", type=Path, required=True, help="the directory to write; an unfinished build continues")
    build.add_argument(
        "--tokens", type=int, default=None, help="tokens to pretrain on; as for the shipped weights by default"
    )
    build.add_argument("--seed", type=int, default=0, help="seed of the corpus and the initial weights")
    measure = commands.add_parser("measure", help="measure its abilities (minutes) and write them on its card")
    measure.add_argument("folder", type=Path, help="a directory that `organism build` has finished")
    measure.add_argument("--count", type=int, default=500, help="questions for each row of the table (500)")
    measure.add_argument("--seed", type=int, default=0, help="seed of questions and sampling (0)")
    measure.add_argument(
        "--split", choices=("train", "dev", "test"), default="test", help="split of the questions (test)"
    )
    measure.add_argument("--texts", type=Path, default=None, help="a JSONL file for every text that was counted")
    show = commands.add_parser("card", help="print its model card: what was planted in its corpus, what it can do")
    show.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=None,
        help="a finished build; the shipped model by default",
    )
    sibling = commands.add_parser("sibling", help="train its instruct sibling (minutes), for example after a build")
    sibling.add_argument("--out", type=Path, required=True, help="the directory to write; a sibling in it is replaced")
    sibling.add_argument(
        "--base", type=Path, default=None, help="folder of the base model; the shipped model by default"
    )
    sibling.add_argument("--seed", type=int, default=0, help="seed of the conversations and the initial weights")
    given = parser.parse_args(arguments)
    if given.command == "sibling":
        return _sibling(given)
    for name in ("tokens", "count"):
        value = getattr(given, name, None)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: must be at least 1")
    from cai_base import embedded
    from cai_base.organism.build import build as build_base
    from cai_base.organism.cards import base_card, sibling_card

    if given.command == "measure":
        from cai_base.organism.measure import measure as measure_abilities

        measure_abilities(
            given.folder,
            count=given.count,
            seed=given.seed,
            split=given.split,
            progress=Progress(),
            texts=given.texts,
        )
    if given.command in ("card", "measure"):
        print(base_card(given.folder or embedded.weights()), end="")
        if given.folder is None:
            print(f"\n{sibling_card(embedded.sibling())}", end="")
        return 0
    try:
        build_base(given.out, tokens=given.tokens, seed=given.seed, progress=Progress())
    except KeyboardInterrupt:
        raise Stopped(f"stopped; the same command continues: cai-base organism build --out {given.out}") from None
    return 0


def _sibling(given: argparse.Namespace) -> int:
    from cai_base.organism.make_sibling import make_sibling

    progress = Progress()
    try:
        make_sibling(given.out, base=given.base, seed=given.seed, progress=progress)
    except KeyboardInterrupt:
        raise Stopped("stopped; nothing was written; the same command starts again") from None
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours: one message, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def _free(directory: Path) -> Path:
    """The directory, or the first of its kind with a number that does not exist yet."""
    candidate, number = directory, 2
    while candidate.exists():
        candidate, number = directory.with_name(f"{directory.name}-{number}"), number + 1
    return candidate
