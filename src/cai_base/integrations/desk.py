"""A bounded queue of requests to a run's models, and the only thread that uses the engines.

Waiting requests are sampled in one batch. The sample of a request does not depend on the others (see `engines`).
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from cai_base.engines import Engine, Sample, SampleRequest

WAITING = 64
"""The most waiting requests; further ones are refused."""
TOGETHER = 16
"""The most requests in one batch."""


class Busy(Exception):
    """There are too many waiting requests."""


@dataclass(slots=True)
class _Draw:
    """A response to sample."""

    engine: Engine
    request: SampleRequest
    listener: Callable[[tuple[int, ...]], None] | None
    outcome: "Future[Sample]" = field(default_factory=Future)


@dataclass(slots=True)
class _Work:
    """Other work for an engine, such as computing log-probabilities."""

    work: Callable[[], Any]
    outcome: "Future[Any]" = field(default_factory=Future)


class Desk:
    """Accepts requests and processes them in order, in one thread.

    Args:
        waiting: the most waiting requests.
    """

    def __init__(self, waiting: int = WAITING) -> None:
        self._queue: queue.Queue[_Draw | _Work | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._run, name="engines", daemon=True)
        self._thread.start()

    def draw(
        self, engine: Engine, request: SampleRequest, listener: Callable[[tuple[int, ...]], None] | None = None
    ) -> "Future[Sample]":
        """Queue the sampling of a response.

        Args:
            listener: called with the tokens sampled so far, in the engines' thread.

        Raises:
            Busy: there are too many waiting requests.
        """
        job = _Draw(engine, request, listener)
        self._put(job)
        return job.outcome

    def do(self, work: Callable[[], Any]) -> "Future[Any]":
        """Queue other work with an engine.

        Raises:
            Busy: there are too many waiting requests.
        """
        job = _Work(work)
        self._put(job)
        return job.outcome

    def close(self) -> None:
        """End the thread after the waiting requests."""
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
    except Exception as error:  # passed to all that wait for this batch
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
    except Exception as error:  # passed to the caller that waits for it
        outcome.set_exception(error)
