"""Executes a study's runs, several at a time, each in a separate process.

A run waits while another run is making a stage that both need, and copies it afterwards. A study can be stopped at any
time; every run resumes after its last stored unit.
"""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cai_base.errors import Stopped, UserError
from cai_base.progress import Pace, Progress
from cai_base.store import open_to_append, refuse_links
from cai_base.studies import folder
from cai_base.studies.shared_stages import Stages, finished
from cai_base.text import counted

PAUSE = 0.5
"""Seconds between two checks of the processes."""


@dataclass(frozen=True, slots=True)
class Work:
    """A run to execute.

    Attributes:
        stages: its stages.
        tokens: the tokens of the stages that it makes itself, for the estimate of the time left.
    """

    name: str
    stages: Stages
    tokens: int


ROOM = 1 << 20
"""Bytes; on a disk with less a run's log could not say why it stopped."""

Start = Callable[[Path, str], "subprocess.Popen[bytes]"]


def start_worker(study: Path, name: str) -> "subprocess.Popen[bytes]":
    """Start a process that executes one run, with its output in the run's log."""
    log = folder.log_file(study, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    refuse_links(log.parent)
    with open_to_append(log) as file:
        return subprocess.Popen(
            [sys.executable, "-m", "cai_base.studies.worker", str(study), name],
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )


def conduct(study: Path, works: Sequence[Work], progress: Progress, *, processes: int, most: int | None = None) -> int:
    """Finish the runs, `processes` at a time. Returns the number of unfinished runs.

    Args:
        most: finish at most this many runs; None for all.

    Raises:
        UserError: a run raised it, or its folder has another run.
        Stopped: a run stopped.
    """
    waiting = [work for work in works if not _done(study, work.name)]
    if len(waiting) < len(works):
        progress.say(f"finished already: {len(works) - len(waiting)} of {counted(len(works), 'run')}")
    later = len(waiting) if most is None else most
    waiting, left_out = waiting[:later], len(waiting[later:])
    pace = Pace(sum(work.tokens for work in waiting))
    running: dict[str, subprocess.Popen[bytes]] = {}
    by_name = {work.name: work for work in works}
    with _ended_together(running):
        while waiting or running:
            for name, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                if process.returncode != 0:
                    raise _failure(study, name, process.returncode)
                pace.advance(by_name[name].tokens)
                progress.say(f"{name}: done; {len(waiting) + len(running)} left, {pace.in_words()}")
            if waiting and len(running) < processes:
                ready = _ready(study, waiting, [by_name[name] for name in running])
                if ready is not None:
                    waiting.remove(ready)
                    progress.say(f"{ready.name}: begins")
                    running[ready.name] = start_worker(study, ready.name)
                    continue
            time.sleep(PAUSE)
    return left_out


def _done(study: Path, name: str) -> bool:
    run = folder.watch(study, name)
    if run is None:
        return False
    folder.check_planned(folder.read_plan(study), name, run)
    return bool(run.progress("results"))


def _ready(study: Path, waiting: Sequence[Work], running: Sequence[Work]) -> Work | None:
    """The first waiting run that could not copy anything from the running ones later; None if there is none."""
    making: list[tuple[Work, set[str]]] = []
    for work in running:
        done = finished(folder.watch(study, work.name), work.stages)
        making.append((work, set(work.stages.phases) - set(done)))
    for work in waiting:
        if not any(unfinished & set(work.stages.equal(other.stages)) for other, unfinished in making):
            return work
    return None


@contextmanager
def _ended_together(running: Mapping[str, "subprocess.Popen[bytes]"]) -> Iterator[None]:
    """End the study's processes when the block ends for any reason; each run can be resumed after its last unit."""
    try:
        yield
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _failure(study: Path, name: str, code: int) -> UserError | Stopped | RuntimeError:
    """The error that ended a run early, from the last line of its log."""
    log = folder.log_file(study, name)
    text = log.read_text(encoding="utf-8", errors="replace")
    kinds: dict[str, type[UserError] | type[Stopped]] = {folder.REFUSED: UserError, folder.STOPPED: Stopped}
    for mark, kind in kinds.items():
        _, separator, reason = text.rpartition(mark)
        if separator and code == kind.exit_code:
            return kind(f"{name}: {reason.strip()}")
    if code in (Stopped.exit_code, -signal.SIGTERM, -signal.SIGINT):  # a signal may come before it can be handled
        full = shutil.disk_usage(study).free < ROOM
        return Stopped(f"{name}: was stopped" + ("; no space is left on the disk: make room" if full else ""))
    last = text.strip().splitlines()[-1:] or ["no output"]
    return RuntimeError(f"{name}: ended with code {code}: {last[0]}; see {log}")
