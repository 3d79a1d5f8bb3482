"""A bounded queue of requests to a run's models, and the only thread that uses the engines.

Waiting requests are sampled in one batch. The sample of a request does not depend on the others (see `engines`).
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from cai_base.engines import Engine, Sample, SampleRequest
from cai_base.errors import UserError
from cai_base.text import one_line

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

    A waiting request whose future is cancelled is dropped, and its place is free at once.

    Args:
        places: the most waiting requests.
    """

    def __init__(self, places: int = WAITING) -> None:
        self.places = places
        self._waiting: deque[_Draw | _Work] = deque()
        self._changed = threading.Condition()
        self._closed = False
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
        return self.draw_all(engine, [request], [listener])[0]

    def draw_all(
        self,
        engine: Engine,
        requests: Sequence[SampleRequest],
        listeners: Sequence[Callable[[tuple[int, ...]], None] | None] | None = None,
    ) -> "list[Future[Sample]]":
        """Queue the sampling of several responses, all of them or none; see `draw`.

        Raises:
            Busy: there is no place for all of them.
        """
        heard_by = listeners or [None] * len(requests)
        jobs = [_Draw(engine, one, hear) for one, hear in zip(requests, heard_by, strict=True)]
        self._put(jobs)
        return [job.outcome for job in jobs]

    def do(self, work: Callable[[], Any]) -> "Future[Any]":
        """Queue other work with an engine.

        Raises:
            Busy: there are too many waiting requests.
        """
        job = _Work(work)
        self._put([job])
        return job.outcome

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        with self._changed:
            self._drop_cancelled()
            return len(self._waiting)

    def close(self) -> None:
        """End the thread after the waiting requests."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _put(self, jobs: Sequence[_Draw | _Work]) -> None:
        with self._changed:
            self._drop_cancelled()
            if len(self._waiting) + len(jobs) > self.places:
                raise Busy
            self._waiting.extend(jobs)
            self._changed.notify()

    def _drop_cancelled(self) -> None:
        self._waiting = deque(one for one in self._waiting if not one.outcome.cancelled())

    def _run(self) -> None:
        while (job := self._next()) is not None:
            if isinstance(job, _Work):
                _settle(job.outcome, job.work)
            else:
                _draw(job)

    def _next(self) -> _Work | list[_Draw] | None:
        """The next work, or the draws of the next batch, once there are any; None at the end."""
        with self._changed:
            self._drop_cancelled()
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
                self._drop_cancelled()
            first = self._waiting.popleft()
            if isinstance(first, _Work):
                return first
            group = [first]
            while self._waiting and len(group) < TOGETHER:
                more = self._waiting[0]
                if isinstance(more, _Work) or more.engine is not first.engine:
                    break
                self._waiting.popleft()
                group.append(more)
            return group


def _draw(group: Sequence[_Draw]) -> None:
    def hear(number: int, tokens: tuple[int, ...]) -> None:
        listener = group[number].listener
        if listener is not None:
            listener(tokens)

    heard = any(one.listener is not None for one in group)
    try:
        samples = group[0].engine.sample([one.request for one in group], hear if heard else None)
    except BaseException as error:  # passed to all that wait for this batch
        for one in group:
            if one.outcome.set_running_or_notify_cancel():
                one.outcome.set_exception(_for_a_waiter(error))
        return
    for one, sample in zip(group, samples, strict=True):
        if one.outcome.set_running_or_notify_cancel():
            one.outcome.set_result(sample)


def _settle(outcome: "Future[Any]", work: Callable[[], Any]) -> None:
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        outcome.set_result(work())
    except BaseException as error:  # passed to the caller that waits for it
        outcome.set_exception(_for_a_waiter(error))


def _for_a_waiter(error: BaseException) -> Exception:
    """The error as the caller that waits gets it. A panic of a library in Rust is no `Exception`, and would end the
    engines' only thread, or the caller's loop."""
    if isinstance(error, Exception):
        return error
    return UserError(f"a library gave up on this request ({type(error).__name__}: {one_line(str(error))}); change it")
