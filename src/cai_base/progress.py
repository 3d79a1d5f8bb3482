"""Progress of a command: messages, and bars with elapsed time and time left.

In a terminal a bar is updated in place; in a pipe it prints a line every ten seconds.
"""

import shutil
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from cai_base.text import for_terminal

PIPE_INTERVAL = 10.0
"""Seconds between two lines for the same bar if the output is not a terminal."""
WINDOW = 60.0
"""The shortest time, in seconds, over which speed is measured; later it is the last half of the elapsed time."""
SMOOTHING = 0.3
"""The weight of a new estimate of the end in the moving average, so that the time left does not jump."""
WARM_UP = 3
"""The first update is ignored after this many updates, because a model is slower until it has warmed up."""
PRIOR = 20.0
"""The weight of the first estimate of the whole, in seconds of measured time."""
NAME = 16
"""Columns of a bar's name; a longer name takes more."""
EVALUATION = "evaluation"
"""The part of a run that works in between the others."""
BETWEEN_NOTES = 5.0
"""Seconds between two notes for other processes."""
BETWEEN_TEXTS = 30.0
"""Seconds between two sample texts in the terminal."""


Advance = Callable[[int], object]
"""Called with the amount of work finished since the last call, such as `Bar.advance` or the `update` of a tqdm bar."""


class Bar(Protocol):
    """The progress bar of one piece of work."""

    def advance(self, amount: int, values: str = "") -> None:
        """Add `amount` to the finished work; `values` are the newest values, such as `loss 0.693`."""
        ...


def time_left(forecast: Mapping[str, float], shares: Mapping[str, float], seconds: Mapping[str, float]) -> float | None:
    """The time left of a run: a part that has begun at its own pace, one that has not at that of the others.

    Parts work one after another, evaluations in between: without a share, a part before one that has begun is done, and
    of a later one only the time tells how much is done.

    Args:
        forecast: the expected seconds by part, in the order of the parts, the evaluations last; without one there is
            no estimate.
        shares: how much of each part is done, where that is known.
        seconds: those spent so far, by part.
    """
    if not forecast:
        return None
    begun = {name: share for name, share in shares.items() if share and name in forecast}
    expected = sum(forecast[name] * share for name, share in begun.items())
    pace = (sum(seconds.get(name, 0.0) for name in begun) + PRIOR) / (expected + PRIOR)
    order = list(forecast)
    last = max((order.index(name) for name in begun if name != EVALUATION), default=-1)
    left = 0.0
    for place, name in enumerate(order):
        spent, share, whole = seconds.get(name, 0.0), begun.get(name), pace * forecast[name]
        if share is not None:  # its own pace, of which the first seconds say little
            left += (1 - share) * (spent + PRIOR) / (share + (PRIOR / whole if whole else 1.0))
        elif name in shares or place > last:
            left += max(0.0, whole - spent)
    return left


class Outlook:
    """How much of each part of a run is done, and the time left of the run.

    Args:
        forecast: the expected seconds of each part; empty if there is no estimate.
        seconds: returns the seconds spent so far in each part, by earlier processes too.
        tell: is given the shares and the seconds at most every `BETWEEN_NOTES` seconds, for other processes.
    """

    def __init__(
        self,
        forecast: Mapping[str, float],
        seconds: Callable[[], Mapping[str, float]],
        tell: Callable[[Mapping[str, float], Mapping[str, float]], object] | None = None,
    ) -> None:
        self.forecast, self.seconds, self._tell = dict(forecast), seconds, tell
        self._shares: dict[str, float] = {}
        self._last = time.monotonic()

    def note(self, part: str, share: float) -> None:
        """Set the finished share of a part."""
        self._shares[part] = min(1.0, max(share, self._shares.get(part, 0.0)))
        now = time.monotonic()
        if self._tell is not None and now - self._last >= BETWEEN_NOTES:
            self._last = now
            self._tell(dict(self._shares), self.seconds())

    def left(self) -> float | None:
        """Seconds until all parts are done; None without a forecast."""
        return time_left(self.forecast, dict(self._shares), self.seconds())


class Progress:
    """Shows messages and bars: in a terminal a bar is updated in place, elsewhere it prints a line every ten seconds.

    Args:
        stream: where they are shown; by default standard error, so that standard output has only results.

    Attributes:
        standing: the newest result of a run, such as `attack success rate 70.8 % (sft)`, which its bars show.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._console = Console(file=self._stream, highlight=False, soft_wrap=True)
        self._last_text = float("-inf")
        self.outlook: Outlook | None = None
        self.tokens: Callable[[], int] | None = None
        self.standing = ""

    def follow(self, outlook: Outlook | None, tokens: Callable[[], int]) -> None:
        """From now on, bars show the time left for the run and the tokens per second.

        Args:
            outlook: its parts have the names of the bars.
            tokens: returns the number of tokens processed so far.
        """
        self.outlook, self.tokens = outlook, tokens

    @property
    def in_terminal(self) -> bool:
        """Whether the output is a terminal."""
        return self._console.is_terminal

    def show(self, text: str) -> None:
        """Show a sample text, only in a terminal and at most every half minute."""
        now = time.monotonic()
        if self._console.is_terminal and now - self._last_text >= BETWEEN_TEXTS:
            self._last_text = now
            self.say(text)

    @staticmethod
    def quiet() -> "Progress":
        """A `Progress` that shows nothing, for use from Python."""
        return _Quiet()

    def say(self, text: str) -> None:
        """Show a line of text to the user."""
        self._console.print(wrapped(for_terminal(text), self._stream), markup=False)

    @contextmanager
    def bar(self, name: str, total: int, done: int = 0, unit: str = "") -> Iterator[Bar]:
        """A bar from `done` to `total`, in the unit of `Bar.advance`. In a pipe it prints a line every ten seconds.

        Args:
            unit: such as `texts`; empty if the name says it.
        """
        pace = Pace(total, done, name, self.outlook, self.tokens, lambda: self.standing)
        if not self._console.is_terminal:
            yield _Lines(self, name, total, done, unit, pace)
            return
        before = max(NAME, len(name)) + 2 * len(str(total)) + 15 + len(unit and f" {unit}")
        times = _Times(pace, lambda: self._console.width - before)
        head = (TextColumn(f"{{task.description:<{NAME}}}"), BarColumn(10), MofNCompleteColumn())
        units = (TextColumn(unit),) if unit else ()
        with RichProgress(*head, *units, times, console=self._console) as rich:
            yield _RichBar(rich, rich.add_task(name, total=total, completed=done), pace)


class _Quiet(Progress):
    def __init__(self) -> None:
        """Open no stream."""
        self.outlook, self.tokens, self.standing = None, None, ""

    @property
    def in_terminal(self) -> bool:
        """False."""
        return False

    def show(self, text: str) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    @contextmanager
    def bar(self, name: str, total: int, done: int = 0, unit: str = "") -> Iterator[Bar]:
        """A bar that shows nothing."""
        yield _NoBar()


class _NoBar:
    def advance(self, amount: int, values: str = "") -> None:
        """Do nothing."""


class Pace:
    """The elapsed time of a piece of work, and an estimate of the time left.

    The speed is measured over the last half of the elapsed time, but at least over a minute. There is an estimate from
    the first update on. It is smoothed, because work often comes in batches of unequal size.

    Args:
        total: the amount of work.
        done: the amount done by an earlier process, which does not affect the speed.
        name: the name of this part of the run.
        outlook: the estimate for the run.
        tokens: returns the number of tokens processed so far.
        standing: returns the newest result of the run.
    """

    def __init__(
        self,
        total: float,
        done: float = 0,
        name: str = "",
        outlook: Outlook | None = None,
        tokens: Callable[[], int] | None = None,
        standing: Callable[[], str] = str,
    ) -> None:
        self._total, self._done, self._before = total, done, done
        self._name, self._outlook, self._tokens, self._standing = name, outlook, tokens, standing
        self._tokens_before = tokens() if tokens else 0
        self._values = ""
        # A part of the run has a clock of its own, which stands still during the evaluations within it.
        self._own = outlook is not None and name in outlook.seconds()
        if outlook is not None and total:
            outlook.note(name, done / total)
        self._begun = time.monotonic()
        self._start = self._seconds()
        self._zero = 0.0 if self._own else self._start
        self._whole: float | None = None
        self._marks = deque([(self._start, done)])
        self._end: float | None = None

    def _seconds(self) -> float:
        return self._outlook.seconds()[self._name] if self._outlook is not None and self._own else time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether all work is done."""
        return self._done >= self._total

    def advance(self, amount: float, values: str = "") -> None:
        """Add `amount` to the finished work, with its newest values."""
        now = self._seconds()
        self._done += amount
        self._values = values or self._values
        if self.finished and self._whole is None:
            self._whole = now - self._zero
        if self._outlook is not None and self._total:
            self._outlook.note(self._name, self._done / self._total)
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
        """Seconds that the work took; of a part of the run, by its own clock and with earlier processes."""
        return self._seconds() - self._zero if self._whole is None else self._whole

    def left(self) -> float | None:
        """Estimated seconds left; None before the first update.

        It counts down between two updates. An update that is late, after the longest time between two others, is taken
        to need as much time again as it is late.
        """
        if self._end is None:
            return None
        now, times = self._seconds(), [mark for mark, _ in self._marks]
        late = now - times[-1] - max(after - before for before, after in pairwise(times))
        return max(self._end - now, late, 0.0)

    def in_words(self) -> str:
        """Such as `elapsed 0:12, about 1:30 left; whole run: about 12:30 left; loss 0.693, margin 0.012; attack success
        rate 70.8 % (sft); 5,210 tokens/s`."""
        left = self.left()
        if self.finished:
            how = f"done in {duration(self.elapsed())}" if self._done > self._before else "done before"
            return "; ".join(filter(None, (how, self._values)))
        text = f"elapsed {duration(self.elapsed())}"
        if left is not None:
            text += f", about {duration(max(left, 1.0))} left"
            run = None if self._outlook is None else self._outlook.left()
            if run is not None:
                text += f"; whole run: about {duration(max(run, 1.0))} left"
        return "; ".join(filter(None, (text, self._values, self._standing(), self._speed())))

    def _speed(self) -> str:
        """Tokens per second since the work began; empty if they are not counted, or the newest values have them."""
        if self._values.endswith("tokens/s"):
            return ""
        tokens = self._tokens() - self._tokens_before if self._tokens else 0
        seconds = time.monotonic() - self._begun
        return f"{tokens / seconds:,.0f} tokens/s" if tokens and seconds else ""


class _Times(ProgressColumn):
    """What a pace says, in as many lines as the space takes; a line ends between two statements.

    Args:
        space: returns the columns that are left for it.
    """

    def __init__(self, pace: Pace, space: Callable[[], int]) -> None:
        super().__init__()
        self._pace, self._space = pace, space

    def render(self, task: Task) -> Text:
        first, *rest = self._pace.in_words().split("; ")
        lines = [first]
        for part in rest:
            if len(lines[-1]) + len(part) + 2 <= self._space():
                lines[-1] += f"; {part}"
            else:
                lines.append(part)
        return Text("\n".join(lines))


class _RichBar:
    def __init__(self, rich: RichProgress, task: TaskID, pace: Pace) -> None:
        self._rich, self._task, self._pace = rich, task, pace

    def advance(self, amount: int, values: str = "") -> None:
        self._pace.advance(amount, values)
        self._rich.advance(self._task, amount)


class _Lines:
    """A bar for a pipe."""

    def __init__(self, progress: Progress, name: str, total: int, done: int, unit: str, pace: Pace) -> None:
        self._progress, self._name, self._done = progress, name, done
        self._whole = f"{total:.0f} {unit}".rstrip()
        self._pace = pace
        self._last_line = time.monotonic()

    def advance(self, amount: int, values: str = "") -> None:
        self._done += amount
        self._pace.advance(amount, values)
        now = time.monotonic()
        if now - self._last_line < PIPE_INTERVAL and not self._pace.finished:
            return
        self._last_line = now
        self._progress.say(f"{self._name}: {self._done:.0f} of {self._whole}, {self._pace.in_words()}")


def duration(seconds: float) -> str:
    """Minutes and seconds, `1:30`, or hours, minutes and seconds, `1:02:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def in_minutes(seconds: float) -> str:
    """An estimate of a time, `35 min` or `1 h 5 min`: without seconds, it cannot be read as another unit."""
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def wrapped(text: str, stream: TextIO) -> str:
    """`text` wrapped between words to the width of a terminal; unchanged for a pipe.

    A word longer than a line, such as a path, is not broken, so that it can be copied.
    """
    if not stream.isatty():
        return text
    width = max(40, shutil.get_terminal_size().columns)
    lines = (textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in text.split("\n"))
    return "\n".join("\n".join(line) for line in lines)
