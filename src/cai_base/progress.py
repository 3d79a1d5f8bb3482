"""Progress of a run: bars with time left in a terminal, one line an interval in a pipe."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

PIPE_INTERVAL = 10.0
"""Seconds between two lines about the same bar when the output is no terminal."""


class Bar(Protocol):
    """One piece of work under way."""

    def advance(self, amount: int) -> None:
        """Note that `amount` more of it is done."""
        ...


class Progress:
    """Where bars and lines go: standard error, so that standard output holds results alone."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._console = Console(file=self._stream, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line for the reader."""
        self._console.print(text, markup=False)

    @contextmanager
    def bar(self, name: str, total: int, done: int = 0) -> Iterator[Bar]:
        """A bar from `done` to `total`."""
        if not self._console.is_terminal:
            yield _Lines(self, name, total, done)
            return
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self._console) as rich:
            task = rich.add_task(name, total=total, completed=done)
            yield _Rich(rich, task)


class _Rich:
    def __init__(self, rich: RichProgress, task: TaskID) -> None:
        self._rich, self._task = rich, task

    def advance(self, amount: int) -> None:
        self._rich.advance(self._task, amount)


class _Lines:
    def __init__(self, progress: Progress, name: str, total: int, done: int) -> None:
        self._progress, self._name, self._total = progress, name, total
        self._begun_at, self._begun = time.monotonic(), done
        self._done, self._said = done, time.monotonic()

    def advance(self, amount: int) -> None:
        self._done += amount
        now = time.monotonic()
        finished = self._done >= self._total
        if now - self._said < PIPE_INTERVAL and not finished:
            return
        self._said = now
        passed = now - self._begun_at
        left = passed / (self._done - self._begun) * (self._total - self._done)
        rest = f"done in {_duration(passed)}" if finished else f"about {_duration(left)} left"
        self._progress.say(f"{self._name}: {self._done:.0f} of {self._total:.0f}, {rest}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
