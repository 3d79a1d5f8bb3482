"""The interfaces of the trackers: sending points, and the tables and pages of a finished run.

Each is an optional dependency (an extra of the same name), imported when used. None needs an account: TensorBoard and
trackio write to this machine, and so does Weights & Biases with `WANDB_MODE=offline`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cai_base import paths
from cai_base.errors import UserError, install
from cai_base.evaluation.judges import PROMPT_PARTS
from cai_base.integrations.tracking.points import Point
from cai_base.reading import read_records, unknown
from cai_base.records import Answer
from cai_base.text import one_line

PROJECT = "cai-base"
"""The default project of all runs in a tracker; WANDB_PROJECT or TRACKIO_PROJECT in the environment overrides it."""

COLUMNS = ("arm", "kind", "family", "prompt", "response", *PROMPT_PARTS, "unscored")
"""The columns of the table of answers."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """The description of one seed's tracked run.

    Attributes:
        experiment: the group of all seeds of a run.
        config: the run's settings and the seed.
        folder: a folder for the tracker's own files.
    """

    experiment: str
    seed: int
    config: Mapping[str, object]
    folder: Path

    @property
    def name(self) -> str:
        """The tracked run's name."""
        return f"{self.experiment}-seed-{self.seed}"


class Sink(Protocol):
    """One tracked run in one tracker. Its methods may raise anything that the tracker's library raises."""

    def log(self, point: Point, number: int) -> None:
        """Send a point; `number` is its index among this seed's points, from 0."""

    def recover(self) -> int:
        """The number of points that the tracker has, after a process was stopped while sending.

        If it is lower than the number recorded as sent, everything is sent again.
        """

    def flush(self) -> None:
        """Return when the points so far are safe, even if this process is killed."""

    def finish(self, directory: Path) -> None:
        """Send the answers and pages of the finished run in `directory`."""

    def close(self) -> None:
        """End the connection."""


class TensorBoard:
    """Event files in the run's folder, one folder per seed; steps are training steps."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = run.folder / paths.seed_folder(run.seed)
        self._open: Callable[[], Any] = lambda: SummaryWriter(str(self._folder))
        self._writer = self._open()
        self._run = run

    def log(self, point: Point, number: int) -> None:
        for name, value in point.values.items():
            self._writer.add_scalar(name, value, point.step)

    def recover(self) -> int:
        """Delete the files, because a truncated file cannot be distinguished from a complete one. Returns 0."""
        self._writer.close()
        for file in self._folder.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer = self._open()
        return 0

    def flush(self) -> None:
        self._writer.flush()

    def finish(self, directory: Path) -> None:
        self._writer.add_text("config", f"```\n{_lines(self._run.config)}\n```")
        self._writer.add_text("report", (directory / paths.REPORT_MARKDOWN).read_text(encoding="utf-8"))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


LOG_IN = "set WANDB_API_KEY, run `wandb login`, or set WANDB_MODE=offline"
WITHOUT_KEY = ("offline", "disabled", "dryrun")
"""The values of WANDB_MODE with which nothing is sent."""
LOG_IN_ALONE = """
import sys, wandb
try:
    wandb.login(verify=False)
except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
    sys.exit(f"KEY {error}")
"""
"""A program that fails if there is no key, or one that cannot be right. It asks no service and no person."""


def _check_key() -> None:
    """Raise UserError if Weights & Biases would need a key and has none, wherever the library looks for one.

    A process of its own asks the library, which would keep what it has read; without standard input it asks no person.
    """
    if os.environ.get("WANDB_MODE") in WITHOUT_KEY:
        return
    program = [sys.executable, "-c", LOG_IN_ALONE]
    answer = subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    fault = [line for line in answer.stderr.splitlines() if line.startswith("KEY ")]
    if fault:  # a failure of another kind stops no run
        raise UserError(f"Weights & Biases: {one_line(fault[0].removeprefix('KEY '))}; {LOG_IN}")


class WeightsAndBiases:
    """A run in Weights & Biases; each phase's curves have its training steps as their axis."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self._wandb = wandb
        self._name = run.name
        run.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                group=run.experiment,
                id=run.name,
                name=run.name,
                config=dict(run.config),
                dir=str(run.folder),
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(
                    silent=True, console="off", disable_git=True, disable_code=True, x_disable_meta=True
                ),
            )
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
            raise UserError(f"Weights & Biases: {one_line(str(error))}; {LOG_IN}") from error
        self._axes: set[str] = set()

    def log(self, point: Point, number: int) -> None:
        axes = {}
        for name in point.values:
            section = name.rpartition("/")[0]
            axes[f"{section}/step"] = point.step
            if section not in self._axes:
                self._run.define_metric(f"{section}/*", step_metric=f"{section}/step")
                self._axes.add(section)
        self._run.log({**axes, **point.values}, step=number)

    def recover(self) -> int:
        """The next step of the service. An offline run cannot know it: its files that were not synced are deleted, and
        all points are sent again.
        """
        if self._run.offline:
            own = Path(self._run.settings.sync_dir)
            for folder in own.parent.glob(f"offline-run-*-{self._name}"):
                if folder.resolve() != own.resolve() and not any(folder.glob("*.synced")):
                    shutil.rmtree(folder)
            return 0
        return int(self._run.step)

    def flush(self) -> None:
        """Do nothing: every point is already with the library's own process."""

    def finish(self, directory: Path) -> None:
        seed = int(self._name.rpartition("-")[2])
        self._run.log({"answers": self._wandb.Table(columns=[*COLUMNS], data=list(_answer_rows(directory, seed)))})
        artifact = self._wandb.Artifact(f"{self._name}-report", type="report")
        for name in (paths.REPORT_HTML, paths.REPORT_MARKDOWN, paths.RESULTS):
            artifact.add_file(str(directory / name))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run in trackio, whose dashboard reads a database on this machine (`trackio show`)."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self._trackio, self._tracked = trackio, run
        self._project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._run: Any = None

    def log(self, point: Point, number: int) -> None:
        """As `Sink.log`."""
        steps = {f"{name.rpartition('/')[0]}/step": point.step for name in point.values}
        self._opened().log({**steps, **point.values}, step=number)

    def recover(self) -> int:
        from trackio.sqlite_storage import SQLiteStorage

        last = SQLiteStorage.get_max_step_for_run(self._project, self._tracked.name)
        return 0 if last is None else last + 1

    def flush(self) -> None:
        """Finish the library's session of the run: only then is everything in the database."""
        self.close()

    def finish(self, directory: Path) -> None:
        rows = [[str(cell) for cell in row] for row in _answer_rows(directory, self._tracked.seed)]
        self._opened().log({"answers": self._trackio.Table(columns=[*COLUMNS], data=rows)})
        self.close()

    def close(self) -> None:
        if self._run is not None:
            with redirect_stdout(StringIO()):  # the library prints several lines each time, which nobody needs
                self._trackio.finish()  # of a run that is ended by itself, the library prints them at the process's end
            self._run = None

    def _opened(self) -> Any:
        if self._run is None:
            with redirect_stdout(StringIO()):
                self._run = self._trackio.init(
                    self._project,
                    name=self._tracked.name,
                    group=self._tracked.experiment,
                    config=dict(self._tracked.config),
                    resume="allow",
                    embed=False,
                    auto_log_gpu=False,
                    auto_log_cpu=False,
                )
        return self._run


class Kind(NamedTuple):
    """A tracker: the package that it needs, its sink, and a check for what else it needs before a run begins."""

    package: str
    sink: Callable[[TrackedRun], Sink]
    check: Callable[[], None] | None = None


KINDS: Mapping[str, Kind] = {
    "wandb": Kind("wandb", WeightsAndBiases, _check_key),
    "trackio": Kind("trackio", Trackio),
    "tensorboard": Kind("tensorboard", TensorBoard),
}
"""Every tracker by its name, which is also the name of the extra."""


def sink_kind(name: str, flag: str = "--track") -> Callable[[TrackedRun], Sink]:
    """The constructor of a tracker's sink.

    Args:
        flag: the flag that named it.

    Raises:
        UserError: there is no such tracker, or its package is not installed.
    """
    if name not in KINDS:
        raise UserError(f"{flag}: {unknown('tracker', name, KINDS)}")
    if find_spec(KINDS[name].package) is None:
        raise UserError(f"{flag} {name}: its package is not installed; {install(name)}")
    return KINDS[name].sink


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError if a tracker is unknown, its package is not installed, or it needs a key and has none."""
    for name in names:
        sink_kind(name)
    for name in names:
        if check := KINDS[name].check:
            check()


def _answer_rows(directory: Path, seed: int) -> Iterator[list[str | float | bool | None]]:
    """Every final answer of a seed, with its verdict."""
    for file in sorted(directory.glob(paths.answers(seed, "*", "*"))):
        for one in read_records(file, Answer):
            scores = [None if one.verdict is None else getattr(one.verdict, part) for part in PROMPT_PARTS]
            yield [file.parent.name, one.kind, one.family, one.prompt, one.response, *scores, one.unscored]


def _lines(config: Mapping[str, object]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in config.items())
