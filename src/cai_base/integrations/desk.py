"""Requests of many askers to a run's models: a bounded queue, and one thread that alone touches the engines.

Requests that wait together are drawn together. What is drawn for one does not depend on the others (see `engines`).
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from cai_base.engines import Engine, Sample, SampleRequest

WAITING = 64
"""Requests that may wait; one more is refused."""
TOGETHER = 16
"""Requests that are drawn together, at most."""


class Busy(Exception):
    """Too many requests wait already."""


@dataclass(slots=True)
class _Draw:
    """A response to draw."""

    engine: Engine
    request: SampleRequest
    listener: Callable[[tuple[int, ...]], None] | None
    outcome: "Future[Sample]" = field(default_factory=Future)


@dataclass(slots=True)
class _Work:
    """Anything else to be done with an engine, such as a log-probability."""

    work: Callable[[], Any]
    outcome: "Future[Any]" = field(default_factory=Future)


class Desk:
    """Takes requests, and has one thread do them in their order.

    Args:
        waiting: how many may wait.
    """

    def __init__(self, waiting: int = WAITING) -> None:
        self._queue: queue.Queue[_Draw | _Work | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._run, name="engines", daemon=True)
        self._thread.start()

    def draw(
        self, engine: Engine, request: SampleRequest, listener: Callable[[tuple[int, ...]], None] | None = None
    ) -> "Future[Sample]":
        """Have a response drawn.

        Args:
            listener: hears its tokens as they are drawn, in the thread of the engines.

        Raises:
            Busy: too many wait already.
        """
        job = _Draw(engine, request, listener)
        self._put(job)
        return job.outcome

    def do(self, work: Callable[[], Any]) -> "Future[Any]":
        """Have something else done with an engine.

        Raises:
            Busy: too many wait already.
        """
        job = _Work(work)
        self._put(job)
        return job.outcome

    def close(self) -> None:
        """End the thread once what waits is done."""
        self._queue.put(None)
        self._thread.join()

    def _put(self, job: _Draw | _Work) -> None:
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            raise Busy from None

    def _run(self) -> None:
        later: _Draw | _Work | None = None
        while True:
            job = later or self._queue.get()
            later = None
            if job is None:
                return
            if isinstance(job, _Work):
                _settle(job.outcome, job.work)
                continue
            group = [job]
            while len(group) < TOGETHER:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._queue.put(None)
                    break
                if isinstance(more, _Work) or more.engine is not job.engine:
                    later = more
                    break
                group.append(more)
            _draw([one for one in group if not one.outcome.cancelled()])


def _draw(group: Sequence[_Draw]) -> None:
    if not group:
        return

    def hear(number: int, tokens: tuple[int, ...]) -> None:
        listener = group[number].listener
        if listener is not None:
            listener(tokens)

    heard = any(one.listener is not None for one in group)
    try:
        samples = group[0].engine.sample([one.request for one in group], hear if heard else None)
    except Exception as error:  # goes to everyone who waits for it
        for one in group:
            if one.outcome.set_running_or_notify_cancel():
                one.outcome.set_exception(error)
        return
    for one, sample in zip(group, samples, strict=True):
        if one.outcome.set_running_or_notify_cancel():
            one.outcome.set_result(sample)


def _settle(outcome: "Future[Any]", work: Callable[[], Any]) -> None:
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        outcome.set_result(work())
    except Exception as error:  # goes to whoever waits for it
        outcome.set_exception(error)
