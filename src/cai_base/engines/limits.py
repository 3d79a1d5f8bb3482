"""Limits for what a model's folder makes this process do: its chat template is a program, and so is a pattern.

Either can take for ever: loops inside each other, a text that doubles, a pattern that tries every way to match.
"""

import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

SECONDS = 5.0
"""Seconds of CPU. Templates and patterns take milliseconds, for a text of a megabyte too."""
MEMORY = 1 << 29
"""Bytes of memory, beside those that the process has."""


class TimeLimitError(Exception):
    """The limit was reached."""


@contextmanager
def limited(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """A context that may take so many seconds of CPU and so much memory.

    In the main thread alone, which is where models are loaded and checked: a timer's signal reaches no other. The clock
    is that of the process's CPU, so that other programs of the machine make no difference.

    Raises:
        TimeLimitError: it took longer.
        MemoryError: it wanted more memory.
    """
    is_free = threading.current_thread() is threading.main_thread() and signal.getitimer(signal.ITIMER_PROF)[0] == 0
    with _timer(seconds) if is_free else nullcontext(), _memory(memory) if is_free else nullcontext():
        yield


@contextmanager
def _timer(seconds: float) -> Iterator[None]:
    is_over = False

    def stop(number: int, frame: FrameType | None) -> None:
        if not is_over:
            raise TimeLimitError(f"it takes more than {seconds:g} seconds")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(
        signal.ITIMER_PROF, seconds, 1.0
    )  # again after a second: a finaliser swallows what is raised in it
    try:
        yield
    finally:
        is_over = True
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _memory(most: int) -> Iterator[None]:
    """Lower the limit of the address space. Where the system does not say how large it is, there is no limit."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        yield
        return
    used = int(pages.read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bounds = [limit for limit in (used + most, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
