"""Limits for what a model's folder makes this process do: its chat template is a program, and so is a pattern.

Either can take for ever: loops inside each other, a text that doubles, a pattern that tries every way to match.
"""

import ctypes
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType

SECONDS = 5.0
"""Seconds of CPU. Templates and patterns take milliseconds, for a text of a megabyte too."""
GLANCE = 0.1
"""Seconds between two looks at another thread's time."""
TIMES = 5
"""How often a thread is told that its time is over."""
MEMORY = 1 << 29
"""Bytes of memory, beside those that the process has."""


class TimeLimitError(Exception):
    """The limit was reached."""


@contextmanager
def limited(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """A context that may take so many seconds of CPU and so much memory.

    The clock is that of the CPU, so that other programs of the machine make no difference. In a thread that is not the
    main one, as where a server answers, the thread's own time is limited, between two steps of Python alone: a signal
    reaches the main thread only. The memory, which all threads share, is limited in the main thread alone.

    Raises:
        TimeLimitError: it took longer.
        MemoryError: it wanted more memory.
    """
    if threading.current_thread() is not threading.main_thread():
        with _watched(seconds):
            yield
        return
    is_free = signal.getitimer(signal.ITIMER_PROF)[0] == 0
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
def _watched(seconds: float) -> Iterator[None]:
    """Have another thread look at the CPU time of this one, and raise TimeLimitError in it."""
    thread, now = threading.get_ident(), _cpu_clock()
    end, is_over, turn = now() + seconds, threading.Event(), threading.Lock()

    def watch() -> None:
        for _ in range(TIMES):
            while now() <= end:
                if is_over.wait(GLANCE):
                    return
            with turn:
                if is_over.is_set():
                    return
                _raise_in(thread, TimeLimitError)
            is_over.wait(1.0)  # again after a second: a finaliser swallows what is raised in it

    threading.Thread(target=watch, daemon=True, name="limit").start()
    try:
        yield
    except TimeLimitError:
        raise TimeLimitError(f"it takes more than {seconds:g} seconds") from None
    finally:
        with turn:
            is_over.set()
            _raise_in(thread, None)  # one that was raised and has not arrived does not arrive later


def _cpu_clock() -> Callable[[], float]:
    """Reads the CPU seconds of the calling thread from any thread; where the system has no such clock, seconds."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.monotonic
    return partial(time.clock_gettime, time.pthread_getcpuclockid(threading.get_ident()))


def _raise_in(thread: int, error: type[Exception] | None) -> None:
    raised = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


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
