"""The commands that make runs: `run`, `resume`, `preflight` and `cost`."""

import shlex
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cai_base.cli.look import accept_changes, show
from cai_base.cli.parser import Parser, dollars, run_parser, take_changes, wants_help
from cai_base.errors import Stopped, UserError, exhausted
from cai_base.progress import Progress
from cai_base.text import resume_command

if TYPE_CHECKING:
    from cai_base.experiment import Experiment
    from cai_base.settings.schema import RunSettings

PREFLIGHT_USAGE = (
    "Only make the checks that precede every run; nothing is trained or stored. Takes the flags of\n`cai-base run`."
)

COST_USAGE = """\
usage: cai-base cost [flags of cai-base run]

An upper bound on the run's tokens, by phase, and their cost on a Tinker service. Nothing is trained or sampled, and no
request is sent. --price READ,SAMPLED,TRAINED gives dollars per million tokens if the packaged table has no price or an
old one; --tokenizer FOLDER gives the tokenizer of a model that is not in a local folder.
"""


def run(arguments: list[str]) -> int:
    """Make a run: train and evaluate."""
    from cai_base.settings.command_line import help_text, load_settings

    if wants_help(arguments):
        print(help_text(), end="")
        return 0
    settings, out, as_json, trackers, repeats, printed = load_settings(arguments)
    if printed is not None:
        print(printed, end="")
        return 0
    if out is None:
        out = _unused(Path("runs") / f"{date.today().isoformat()}-{Path(settings.model).name}")
    repeated = None
    if repeats is None:
        _check_inputs(settings, out)
    else:
        from cai_base.run.repeat import read_repeated
        from cai_base.store import refuse_existing

        refuse_existing(out)
        repeated = read_repeated(repeats)
    _check_trackers(trackers)
    from cai_base import experiment

    def begin(progress: Progress) -> "Experiment":
        if repeated is None:
            begun = experiment.begin(settings, out, progress)
        else:
            begun = experiment.repeat(repeated, settings, out, progress)
        progress.say(f"The run's folder: {out}")
        return begun

    return _finish(begin, out, as_json, trackers)


def preflight(arguments: list[str]) -> int:
    """Make the checks of a run."""
    from cai_base.settings.command_line import help_text, load_settings

    if wants_help(arguments):
        print(help_text("preflight", PREFLIGHT_USAGE), end="")
        return 0
    settings, out, as_json, _, repeats, printed = load_settings(arguments)
    if printed is not None:
        print(printed, end="")
        return 0
    _refuse_repeating(repeats, "preflight")
    out = out or Path("runs") / "new"
    _check_inputs(settings, out)
    from cai_base.experiment import examine
    from cai_base.run.preflight import outcome

    progress = Progress()
    try:
        examined = examine(settings, out, progress)
    except KeyboardInterrupt:
        raise Stopped("stopped; nothing was started: give the same command again") from None
    print(outcome.as_json(examined.checks) if as_json else outcome.table(examined.checks), end="")
    if failed := outcome.advice(examined.checks, settings.accept):
        raise UserError(failed)
    return 0


def cost(arguments: list[str]) -> int:
    """Print an upper bound on a run's cost."""
    from cai_base.settings.command_line import load_settings

    if wants_help(arguments):
        print(COST_USAGE, end="")
        return 0
    settings, _, as_json, _, repeats, printed = load_settings(arguments)
    if printed is not None:
        print(printed, end="")
        return 0
    _refuse_repeating(repeats, "cost")
    _check_inputs(settings)
    from cai_base.experiment import estimate_cost

    print(estimate_cost(settings, as_json=as_json), end="")
    return 0


def resume(arguments: list[str]) -> int:
    """Continue a run."""
    parser = run_parser("resume", "Continue a stopped run.")
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")
    parser.add_argument("--max-cost", type=dollars, default=None, help="a new cost limit in dollars, for this run")
    take_changes(parser)
    args, flags = parser.parse_known_args(arguments)
    if flags:
        _refuse_settings(parser, args.run, flags)
    accept_changes(args.run, args.accept_changed)
    from cai_base.settings.validation import stored_settings
    from cai_base.store import Run

    progress = Progress()
    progress.say(f"Checking the files of {args.run}")
    stored = Run.open(args.run)
    stored_settings(stored)
    if stored.progress("results"):
        progress.say(f"{args.run} is complete: there is nothing left to do; these are its results")
        show(args.run, as_json=args.json)
        from cai_base.run.results.run import refuse_lost_arms

        refuse_lost_arms(args.run)
        return 0
    from cai_base import experiment

    return _finish(lambda progress: experiment.resume(args.run, progress, args.max_cost), args.run, args.json)


def _refuse_settings(parser: Parser, directory: Path, flags: Sequence[str]) -> NoReturn:
    """Raise UserError: for a flag of `cai-base run`, how another run is started with it."""
    from cai_base.settings.schema import RunSettings
    from cai_base.settings.validation import leaves
    from cai_base.store import CONFIG

    first = flags[0].partition("=")[0]
    if first.removeprefix("--") not in {name for name, _ in leaves(RunSettings)}:
        parser.error(f"unknown arguments: {' '.join(flags)}")
    config = directory / CONFIG if (directory / CONFIG).is_file() else Path("RUN") / CONFIG
    command = shlex.join(["cai-base", "run", "--config", str(config), *flags])
    raise UserError(
        f"{first}: a run keeps its settings, so cai-base resume takes none; to start another run with this one: "
        f"{command}"
    )


def _refuse_repeating(repeats: Path | None, command: str) -> None:
    if repeats is not None:
        raise UserError(
            f"--from {repeats}: applies only to cai-base run; for cai-base {command} give --config "
            f"{repeats / 'config.json'}"
        )


def _check_inputs(settings: "RunSettings", out: Path | None = None) -> None:
    """Check the input files, and numbers against the model's limits, before importing torch, which takes seconds.

    The files are read again later.
    """
    from cai_base.inputs import gather
    from cai_base.run.spending.limits import check_limits
    from cai_base.store import refuse_existing

    if out is not None:
        refuse_existing(out)
    gather(settings)
    check_limits(settings.base_model, settings.seeds)


def _check_trackers(names: Sequence[str]) -> None:
    """Raise UserError for an unknown tracker, or one whose package or key is missing, before the run begins."""
    if names:
        from cai_base.integrations.tracking.sinks import check_trackers

        check_trackers(names)


def _finish(
    open_run: Callable[[Progress], "Experiment"], directory: Path, as_json: bool, trackers: Sequence[str] = ()
) -> int:
    """Finish a run and show its results. Stored values are sent to the run's trackers during the run.

    Raises:
        Stopped: the run was stopped; the message has the command that continues it.
    """
    try:
        from cai_base.integrations.tracking.follow import following
        from cai_base.integrations.tracking.send import begin as begin_tracking
        from cai_base.run.results.run import refuse_lost_arms

        progress = Progress()
        experiment = open_run(progress)
        if trackers:
            begin_tracking(directory, trackers)
        with following(directory, progress):
            experiment.finish()
            show(directory, as_json=as_json, at_end=True)
        refuse_lost_arms(directory)
    except KeyboardInterrupt:
        if not _is_run(directory):
            raise Stopped("stopped; nothing was started: give the same command again") from None
        raise Stopped(f"stopped; continue with: {resume_command(directory)}") from None
    except Stopped as error:
        if not _is_run(directory):
            raise
        raise Stopped(f"{error}; continue with: {resume_command(directory)}") from error
    except Exception as error:
        reason = exhausted(error)
        if reason is None or not _is_run(directory):
            raise
        raise Stopped(f"{reason}; then continue with: {resume_command(directory)}") from error
    return 0


def _is_run(directory: Path) -> bool:
    from cai_base.store import MANIFEST

    return (directory / MANIFEST).exists()


def _unused(directory: Path) -> Path:
    """The directory if it does not exist, else the first free name with the suffix -2, -3 and so on."""
    candidate, number = directory, 2
    while candidate.exists():
        candidate, number = directory.with_name(f"{directory.name}-{number}"), number + 1
    return candidate
