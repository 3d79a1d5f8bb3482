"""What a command shows while it works: sentences, and bars with the time that has passed and the time left.

In a terminal a bar stays in its place; in a pipe it becomes a line every ten seconds.
"""

import shutil
import sys
import textwrap
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

PIPE_INTERVAL = 10.0
"""Seconds between two lines about the same bar when the output is not a terminal."""
WINDOW = 60.0
"""Seconds over which the speed of work is measured at least; later, the last half of the time counts."""
SMOOTHING = 0.3
"""How far one update moves the expected end towards its own estimate, so that the time left does not jump."""
WARM_UP = 3
"""Updates after which the first one no longer counts: a model is slower before it has warmed up."""


class Bar(Protocol):
    """One piece of work."""

    def advance(self, amount: int) -> None:
        """Note that `amount` more of it is done."""
        ...


class Progress:
    """Shows sentences and bars on standard error, so that standard output holds only results."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._console = Console(file=self._stream, highlight=False, soft_wrap=True)

    @staticmethod
    def quiet() -> "Progress":
        """A progress that shows nothing, for use from Python."""
        return _Quiet()

    def say(self, text: str) -> None:
        """Show a line of text to the user."""
        self._console.print(wrapped(text, self._stream), markup=False)

    @contextmanager
    def bar(self, name: str, total: int, done: int = 0) -> Iterator[Bar]:
        """A bar from `done` to `total`, in the unit of `Bar.advance`. In a pipe it is a line every ten seconds."""
        if not self._console.is_terminal:
            yield _Lines(self, name, total, done)
            return
        pace = Pace(total, done)
        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), _Times(pace))
        with RichProgress(*columns, console=self._console) as rich:
            yield _RichBar(rich, rich.add_task(name, total=total, completed=done), pace)


class _Quiet(Progress):
    def __init__(self) -> None:
        """Nothing is opened."""

    def say(self, text: str) -> None:
        """Say nothing."""

    @contextmanager
    def bar(self, name: str, total: int, done: int = 0) -> Iterator[Bar]:
        """A bar that shows nothing."""
        yield _NoBar()


class _NoBar:
    def advance(self, amount: int) -> None:
        """Show nothing."""


class Pace:
    """The time that a piece of work has taken, and an estimate of the time that it still needs.

    The speed is measured over the last half of the time, and over a minute at least. There is an estimate from the
    first update on; it is smoothed, because work often comes in batches of unequal size.

    Args:
        total: the amount of work.
        done: the amount that an earlier process did, which says nothing about the speed.
    """

    def __init__(self, total: float, done: float = 0) -> None:
        self._total, self._done = total, done
        self._start = time.monotonic()
        self._marks = deque([(self._start, done)])
        self._end: float | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing is left."""
        return self._done >= self._total

    def advance(self, amount: float) -> None:
        """Note that `amount` more is done."""
        now = time.monotonic()
        self._done += amount
        self._marks.append((now, self._done))
        if len(self._marks) > WARM_UP and self._marks[0][0] == self._start:
            self._marks.popleft()
        while len(self._marks) > 2 and self._marks[1][0] <= now - max(WINDOW, (now - self._start) / 2):
            self._marks.popleft()
        (first, before), (last, done) = self._marks[0], self._marks[-1]
        if done > before and last > first:
            end = now + (self._total - done) * (last - first) / (done - before)
            self._end = end if self._end is None else self._end + SMOOTHING * (end - self._end)

    def elapsed(self) -> float:
        """Seconds since this process began the work."""
        return time.monotonic() - self._start

    def left(self) -> float | None:
        """Seconds that the rest will take; None before the first update. Between two updates it counts down."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def in_words(self) -> str:
        """`elapsed 0:12, about 1:30 left`."""
        left = self.left()
        if self.finished:
            return f"done in {duration(self.elapsed())}"
        return f"elapsed {duration(self.elapsed())}" + ("" if left is None else f", about {duration(left)} left")


class _Times(ProgressColumn):
    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        return Text(self._pace.in_words())


class _RichBar:
    def __init__(self, rich: RichProgress, task: TaskID, pace: Pace) -> None:
        self._rich, self._task, self._pace = rich, task, pace

    def advance(self, amount: int) -> None:
        self._pace.advance(amount)
        self._rich.advance(self._task, amount)


class _Lines:
    """The bar of a pipe."""

    def __init__(self, progress: Progress, name: str, total: int, done: int) -> None:
        self._progress, self._name, self._total, self._done = progress, name, total, done
        self._pace = Pace(total, done)
        self._last_line = time.monotonic()

    def advance(self, amount: int) -> None:
        self._done += amount
        self._pace.advance(amount)
        now = time.monotonic()
        if now - self._last_line < PIPE_INTERVAL and not self._pace.finished:
            return
        self._last_line = now
        self._progress.say(f"{self._name}: {self._done:.0f} of {self._total:.0f}, {self._pace.in_words()}")


def duration(seconds: float) -> str:
    """Minutes and seconds, `1:30`, from an hour on with hours, `1:02:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def wrapped(text: str, stream: TextIO) -> str:
    """`text` with line breaks between words where a terminal would break them inside; for a pipe as it is.

    A word longer than a line, such as a path, stays whole, so that it can be copied.
    """
    if not stream.isatty():
        return text
    width = max(40, shutil.get_terminal_size().columns)
    lines = (textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in text.split("\n"))
    return "\n".join("\n".join(line) for line in lines)
