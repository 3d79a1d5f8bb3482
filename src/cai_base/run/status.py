"""The progress of a run, read from its folder only, while another process works on it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from cai_base import paths
from cai_base.arms import ARMS, SFT, Arm
from cai_base.evaluation.metrics import means
from cai_base.inputs import Inputs
from cai_base.progress import EVALUATION, time_left
from cai_base.reading import RESTORE, Model, read_record, read_records, typed
from cai_base.records import MAIN_METRICS, Answer, Chain, TrainingStep
from cai_base.records.spending import Live, Spending
from cai_base.run.spending.forecast import RECORD as FORECAST
from cai_base.run.stored import answer_files, evaluation_work, is_locked
from cai_base.settings.choices import Scope
from cai_base.settings.schema import Revision
from cai_base.settings.validation import stored_settings
from cai_base.store import Run

TRAINING = ("loss", "margin", "accuracy", "held_out_accuracy")
"""The fields of a training step that are shown, if its loss has them."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a run.

    Attributes:
        done, total: in its unit, training steps or texts of revision.
        seconds: its duration so far.
        latest: the newest values of its training, means over seeds.
    """

    name: str
    label: str
    done: int
    total: int
    seconds: float
    latest: Mapping[str, float]
    unit: str = "steps"

    @property
    def left(self) -> float | None:
        """Seconds left at the same speed; None before anything is done."""
        return (self.total - self.done) * self.seconds / self.done if self.done else None


@dataclass(frozen=True, slots=True)
class Status:
    """The progress of a run.

    Attributes:
        directory: the run's folder, as it was given.
        working: whether a process is working on it.
        rates: for each arm, means over seeds of its newest answers; there are no intervals before the run's end.
        chain: the newest revision chain.
        left: seconds left of the whole run; None if it is finished, or has no forecast, as a short run.
        dollars: spent so far; None without a paid service.
    """

    directory: Path
    name: str
    model: str
    finished: bool
    working: bool
    stages: list[Stage]
    rates: dict[str, dict[str, float]]
    chain: Chain | None
    seconds: float
    left: float | None
    dollars: float | None


def read_status(directory: Path) -> Status:
    """Read the progress of the run in this folder. Writes nothing, and verifies only the files that it reads.

    Raises:
        UserError: it is not a run.
    """
    run = Run.watch(directory)
    settings = stored_settings(run)
    scope = settings.scope
    spent, finished, working = run.recorded("spent"), bool(run.progress("results")), is_locked(directory)
    live = _live(directory) if working else Live(shares={}, seconds={})
    seconds = {**run.usage.get("seconds", {}), **live.seconds}
    stages = [_at(one, live) for one in _stages(run, scope, settings.revision, seconds)]
    shares = {one.name: one.done / one.total for one in stages if one.total} | {
        name: share for name, share in live.shares.items() if name not in {one.name for one in stages}
    }
    shares[EVALUATION] = max(shares.get(EVALUATION, 0.0), _evaluations(run, scope) / scope.evaluations)
    return Status(
        directory=directory,
        name=directory.resolve().name,
        model=settings.model,
        finished=finished,
        working=working,
        stages=stages,
        rates=_rates(run, scope),
        chain=_newest_chain(run, scope.seeds),
        seconds=sum(seconds.values()),
        left=None if finished else time_left(run.usage.get(FORECAST, {}), shares, seconds),
        dollars=None if spent is None else Spending.model_validate(spent).dollars,
    )


def _live(directory: Path) -> Live:
    """What the working process noted since it stored its last unit; it deletes the file at the end."""
    path = directory / paths.LIVE
    return read_record(path, Live, "what a run does now", RESTORE) if path.exists() else Live(shares={}, seconds={})


def _at(stage: Stage, live: Live) -> Stage:
    """The stage with what is done of it but not stored yet."""
    return replace(stage, done=max(stage.done, round(live.shares.get(stage.name, 0.0) * stage.total)))


def _evaluations(run: Run, scope: Scope) -> int:
    """How many evaluations of arms are stored."""
    return sum(
        bool(run.progress(evaluation_work(name, step)))
        for name in scope.arms
        for step in (None, *_interim(scope, ARMS[name]))
    )


def _interim(scope: Scope, arm: Arm) -> range:
    """The steps of training after which an arm is evaluated, but for the last."""
    return range(scope.every, scope.steps.get(arm.name, 0), scope.every) if arm.curve else range(0)


def _stages(run: Run, scope: Scope, revision: Revision, seconds: Mapping[str, float]) -> Iterator[Stage]:
    """SFT, the revision of the run's own chains, and the training of every other arm."""
    for name, steps in scope.steps.items():
        arm = ARMS[name]
        if arm.folder is None:
            continue
        latest = _latest(run, scope.seeds, arm.folder)
        yield Stage(arm.folder, arm.label, run.progress(arm.folder), steps, seconds.get(arm.folder, 0.0), latest)
        if name == SFT and any(ARMS[one].on_run_pairs for one in scope.arms):
            prompts = len(Inputs.read(run.directory / paths.INPUTS).prompts)
            texts = len(scope.seeds) * (1 + 2 * revision.rounds)
            done = min(run.progress("revision") * revision.unit, prompts) * texts
            so_far = seconds.get("revision", 0.0)
            yield Stage("revision", "Critique and revision", done, prompts * texts, so_far, {}, "texts")


def _latest(run: Run, seeds: Sequence[int], phase: str) -> dict[str, float]:
    last: list[TrainingStep] = []
    for seed in seeds:
        last += _last(run, paths.metrics(seed, phase), TrainingStep)
    values = {
        name: [value for step in last if isinstance(value := getattr(step, name, None), float)] for name in TRAINING
    }
    return {name: sum(of_seeds) / len(of_seeds) for name, of_seeds in values.items() if of_seeds}


def _rates(run: Run, scope: Scope) -> dict[str, dict[str, float]]:
    rates = {}
    for name in scope.arms:
        arm = ARMS[name]
        files = tuple(file for seed in scope.seeds for file in _newest(run, scope, arm, seed))
        figures = {metric: value for metric, value in _means(run.directory, files).items() if metric in MAIN_METRICS}
        if figures:
            rates[name] = figures
    return rates


def _newest(run: Run, scope: Scope, arm: Arm, seed: int) -> tuple[tuple[str, int, str], ...]:
    """The files of an arm's newest answers: those at the end of its training, or at the last evaluated step."""
    for step in (None, *reversed(_interim(scope, arm))):
        if files := run.stored(answer_files(seed, arm.name, step)):
            return files
    return ()


@lru_cache(maxsize=64)
def _means(directory: Path, files: tuple[tuple[str, int, str], ...]) -> dict[str, float]:
    """The means of the answers in these files. Remembered, since `watch` asks every second and files are large."""
    return means(one for name, size, _ in files for one in read_records(directory / name, Answer, size))


def _newest_chain(run: Run, seeds: Sequence[int]) -> Chain | None:
    for seed in seeds:
        if chains := _last(run, paths.chains(seed), Chain):
            return chains[0]
    return None


def _last(run: Run, name: str, kind: type[Model]) -> list[Model]:
    """The last record of a file, as a list; none if there is none."""
    line = run.last_line(name)
    return [] if line is None else list(typed(kind, [line], f"{run.directory / name}"))
