"""Sends the points that a tracker does not have yet, and records what was sent.

For each tracker, a run's folder has `trackers/NAME.json` with the number of sent points of each seed and curve. It is
not an artifact of the run. Before a batch is sent, the file records the counts after the batch: if the process dies
during the batch, the next one asks the tracker what it has, so that no step is sent twice.
"""

import fcntl
import hashlib
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated
from uuid import uuid4

from pydantic import Field

from cai_base.errors import UserError
from cai_base.integrations.tracking.points import Point, stored_points
from cai_base.integrations.tracking.sinks import Sink, TrackedRun, sink_kind
from cai_base.reading import quote, read_record
from cai_base.records.stored import Stored
from cai_base.settings.validation import stored_settings
from cai_base.store import TRACKERS, Run, open_to_append, refuse_links, to_json, write_atomic
from cai_base.text import command_on

REMEDY = "delete it to send everything again, to new tracked runs"

Counts = dict[str, Annotated[int, Field(ge=0)]]
"""A number of points for each curve."""


class AnotherSender(UserError):
    """Another process is sending the same run to the same tracker."""


class Sent(Stored):
    """What a tracker has of one seed.

    Attributes:
        points: the points that it has, by curve.
        sending: the points that it will have after the batch being sent; None if no batch is being sent.
        files: whether it has the tables and pages of the finished run.
    """

    points: Counts = Field(default_factory=dict)
    sending: Counts | None = None
    files: bool = False


class Tracking(Stored):
    """What one tracker has of a run.

    Attributes:
        experiment: the name that groups the run's seeds in the tracker; renaming the folder does not change it.
        by: `this_user` of who named the tracker for this run; None in files of earlier versions.
        seeds: what was sent, by the seed's number.
    """

    experiment: str
    by: str | None = None
    seeds: dict[str, Sent] = Field(default_factory=dict)


def begin(directory: Path, trackers: Iterable[str], flag: str = "--track") -> None:
    """Add trackers to those of a run.

    Args:
        flag: the flag that named them.

    Raises:
        UserError: a tracker is unknown, or its package is not installed.
    """
    trackers = list(trackers)
    for name in trackers:
        sink_kind(name, flag)
    for name in {*trackers, *trackers_of(directory)}:
        check_places(directory, name)
    known = [_read(directory, name).experiment for name in trackers_of(directory)]
    experiment = known[0] if known else f"{directory.resolve().name}-{uuid4().hex[:6]}"
    for name in trackers:
        exists = _file(directory, name).exists()
        tracking = _read(directory, name) if exists else Tracking(experiment=experiment)
        if tracking.by != this_user():
            _write(directory, name, tracking.model_copy(update={"by": this_user()}))


def this_user() -> str:
    """The user and the machine, as a digest: a run's folder may be given away, and says neither's name."""
    machine = Path("/etc/machine-id")
    number = machine.read_text(encoding="utf-8", errors="replace") if machine.is_file() else ""
    return hashlib.sha256(f"{platform.node()}\n{number}\n{os.getuid()}".encode()).hexdigest()


def is_ours(directory: Path, tracker: str) -> bool:
    """Whether this user, on this machine, named the tracker for this run."""
    return _read(directory, tracker).by == this_user()


def check_places(directory: Path, tracker: str) -> None:
    """Check that what is written for a tracker lies in the run's folder.

    Raises:
        UserError: a folder or a file there is a link.
    """
    folder = directory / TRACKERS
    own = folder / tracker
    inside = sorted(own.iterdir()) if own.is_dir() and not own.is_symlink() else []
    file = _file(directory, tracker)
    refuse_links(folder, file, file.with_suffix(".lock"), file.with_suffix(".log"), own, *inside)


def trackers_of(directory: Path) -> list[str]:
    """The trackers to which a run is sent."""
    return sorted(file.stem for file in (directory / TRACKERS).glob("*.json"))


class Sender:
    """Sends a run's new points to one tracker, as one tracked run per seed.

    Args:
        directory: the run's.
        tracker: its name, one of `trackers_of`.

    Raises:
        AnotherSender: another process is sending it, such as that of a run that was killed, which sends the rest.
        UserError: a place of its files is a link.
    """

    def __init__(self, directory: Path, tracker: str) -> None:
        self._directory, self._tracker = directory, tracker
        check_places(directory, tracker)
        _file(directory, tracker).parent.mkdir(exist_ok=True)
        self._lock = open_to_append(_file(directory, tracker).with_suffix(".lock"))  # held until it is closed
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise AnotherSender(
                f"{directory}: another process is sending this run to {tracker}; wait until it has ended"
            ) from None
        self._settings = stored_settings(Run.watch(directory))
        self._tracking = _read(directory, tracker)
        for seed in self._tracking.seeds:
            if seed not in map(str, self._settings.seed_numbers):
                raise UserError(f"{_file(directory, tracker)}: seeds: {quote(seed)} is no seed of this run; {REMEDY}")
        self._sinks: dict[int, Sink] = {}

    def send(self, *, files: bool) -> int:
        """Send everything that is stored and was not sent yet. Returns the number of points sent.

        Args:
            files: also send the answers and pages of a finished run, which must exist.

        Raises:
            Exception: anything that the tracker's library raises. The next call continues where this one stopped.
        """
        run, settings, total = Run.watch(self._directory), self._settings, 0
        for seed in settings.seed_numbers:
            curves = stored_points(run, settings.evaluated_arms, settings.training_steps, settings.evaluate_every, seed)
            total += self._send_points(seed, curves)
            if files and run.progress("results"):
                self._send_files(seed)
        return total

    def close(self) -> None:
        """Flush and close the connections to the tracker."""
        try:
            for sink in self._sinks.values():
                sink.close()
        finally:
            self._sinks = {}
            self.release()

    def release(self) -> None:
        """Let another process send the rest."""
        self._lock.close()

    def _send_points(self, seed: int, curves: Mapping[str, list[Point]]) -> int:
        sent = self._sent(seed)
        reach = {name: len(points) for name, points in curves.items()}
        if sent.sending is None and reach == sent.points:
            return 0
        sink, before = self._sink(seed), sent.points
        known = number = sum(before.values())
        if sent.sending is None:
            self._note(seed, sent.model_copy(update={"sending": reach}))
        else:  # an earlier process died while sending: the first points of its batch may have arrived
            reach, known = sent.sending, sink.recover()
            if known < number:  # the tracker has lost points
                before, number = {}, 0
        for name, count in reach.items():
            for point in curves[name][before.get(name, 0) : count]:
                if number >= known:
                    sink.log(point, number)
                number += 1
        sink.flush()
        self._note(seed, sent.model_copy(update={"points": reach, "sending": None}))
        return max(0, number - known)

    def _send_files(self, seed: int) -> None:
        sent = self._sent(seed)
        if not sent.files:
            self._sink(seed).finish(self._directory)
            self._note(seed, sent.model_copy(update={"files": True}))

    def _sink(self, seed: int) -> Sink:
        if seed not in self._sinks:
            config = {**self._settings.model_dump(mode="json", by_alias=True), "seed": seed}
            folder = self._directory / TRACKERS / self._tracker
            tracked = TrackedRun(self._tracking.experiment, seed, config, folder)
            self._sinks[seed] = sink_kind(self._tracker)(tracked)
        return self._sinks[seed]

    def _sent(self, seed: int) -> Sent:
        return self._tracking.seeds.get(str(seed), Sent())

    def _note(self, seed: int, sent: Sent) -> None:
        self._tracking = self._tracking.model_copy(update={"seeds": {**self._tracking.seeds, str(seed): sent}})
        _write(self._directory, self._tracker, self._tracking)


def _file(directory: Path, tracker: str) -> Path:
    return directory / TRACKERS / f"{tracker}.json"


def _read(directory: Path, tracker: str) -> Tracking:
    file = _file(directory, tracker)
    if not file.exists():
        raise UserError(
            f"{directory}: has no tracker {tracker}; add it: {command_on('track', directory, '--to', tracker)}"
        )
    return read_record(file, Tracking, "what a tracker has of a run", REMEDY)


def _write(directory: Path, tracker: str, tracking: Tracking) -> None:
    write_atomic(_file(directory, tracker), to_json(tracking.model_dump(mode="json")))
