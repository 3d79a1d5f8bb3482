"""The connection to a Tinker service: requests, waiting for replies, and errors in words for the user."""

import atexit
import logging
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent import futures
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from cai_base.engines import EngineError
from cai_base.engines.tokenizer import one_line
from cai_base.errors import Stopped, install
from cai_base.reading.keys import stored_keys

KEY = "TINKER_API_KEY"
NOTICE = 10.0
"""Seconds without any reply after which the user is told about the wait."""
PROBE = 10.0
"""Seconds that a service has to answer a health check."""
SILENT_PROBES = 3
"""A service that fails this many health checks in a row counts as down."""

Value = TypeVar("Value")


class Answer(Protocol[Value]):
    """The SDK's handle of a pending request."""

    def future(self) -> "futures.Future[Value]":
        """The future of the reply."""
        ...


def sdk() -> Any:
    """The Tinker SDK.

    Raises:
        EngineError: it is not installed.
    """
    try:
        import tinker
    except ImportError as error:
        reason = f"the Tinker SDK is not installed ({error})"
        raise EngineError("engine", "tinker", reason, f"install it: {install('tinker')}") from error
    return tinker


def api_key() -> str:
    """The API key, from the environment or from `.env` in the working directory. It is never stored or shown.

    Raises:
        EngineError: neither has one.
    """
    key = os.environ.get(KEY) or stored_keys().get(KEY)
    if not key:
        remedy = f"set {KEY}, or write it to .env (see .env.example)"
        raise EngineError("engine", "tinker", "there is no key", remedy)
    return key


class Service:
    """A connection to one Tinker service.

    Args:
        url: the address of a server; None is TINKER_BASE_URL if it is set, else the hosted service.
        timeout: seconds without any reply after which a wait ends with `Stopped`; the run can then be resumed.
        say: shows a line of text to the user.

    Raises:
        EngineError: the SDK is not installed, the key is missing or wrong, or nothing answers at the address.
        Stopped: the account is out of credit.
    """

    def __init__(self, url: str | None, timeout: float, say: Callable[[str], None]) -> None:
        tinker = sdk()
        from tinker.lib.base_url import resolve_base_url

        self.url: str = resolve_base_url(url)
        self._timeout, self._say = timeout, say
        self._warnings = _Warnings()
        logger = logging.getLogger("tinker")
        logger.handlers, logger.propagate = [self._warnings], False  # they are shown during a wait
        key = api_key()
        silence = self._probe()
        if silence is not None:
            reason = f"no Tinker service answers there ({silence})"
            raise EngineError("url", self.url, reason, "start it, or correct the URL")
        try:
            rest = self.call("the list of models", lambda: tinker.RestClient(base_url=self.url, api_key=key))
            (capabilities,) = self.wait("the list of models", [rest.get_server_capabilities()])
            self.models: dict[str, Any] = {m.model_name: m for m in capabilities.supported_models if m.model_name}
            self.client: Any = self.call(
                "a session", lambda: _session(tinker.ServiceClient(base_url=self.url, api_key=key))
            )
        except tinker.APIError:
            raise  # a reply of the service that is not the user's fault
        except tinker.TinkerError as error:  # the SDK refuses the key before it is sent
            raise EngineError(KEY, None, f"is not a key of a Tinker service ({_line(error)})", "correct it") from None
        self._key = key
        atexit.register(self._close)

    def wait(self, what: str, answers: Iterable[Answer[Value]]) -> list[Value]:
        """Wait for pending requests, and return their results in order.

        Args:
            what: the requests in words, for messages.
            answers: the requests.

        Raises:
            Stopped: the service is down, does not reply or refused a request, or the account is out of credit. What the
                run has stored remains, and the run can be resumed.
            EngineError: the key was refused.
        """
        requests = [answer.future() for answer in answers]
        left = set(requests)
        start = last_answer = last_notice = time.monotonic()
        silent = 0
        while left:
            done, left = futures.wait(left, timeout=1.0)
            now = time.monotonic()
            if done:
                last_answer = now
            for one in requests if done else ():
                if one in done and (error := one.exception()) is not None:
                    for other in left:
                        other.cancel()
                    self._refuse(what, error)
            if not left or now - max(last_answer, last_notice) < NOTICE:
                continue
            last_notice = now
            if self._warnings.billing is not None:
                raise Stopped(_no_credit(self._warnings.billing))
            silence = self._probe()
            silent = silent + 1 if silence is not None else 0
            waiting = f"waiting for the Tinker service: {what}, {len(requests) - len(left)} of {len(requests)} answered"
            self._say(f"{waiting}, {now - start:.0f} s{self._warnings.last()}")
            if silent >= SILENT_PROBES:
                raise Stopped(f"the Tinker service at {self.url} is down ({silence}); {_again(what)}")
            if now - last_answer > self._timeout:
                raise Stopped(
                    f"the Tinker service at {self.url} gave no answer for {self._timeout:.0f} s; {_again(what)}"
                )
        return [one.result() for one in requests]

    def call(self, what: str, function: Callable[[], Value]) -> Value:
        """The result of a blocking function of the SDK, with the time-out and the errors of `wait`."""
        running: futures.Future[Value] = futures.Future()

        def run() -> None:
            try:
                running.set_result(function())
            except BaseException as error:
                running.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        (result,) = self.wait(what, [_Running(running)])
        return result

    def download(self, path: str) -> bytes:
        """Download from a path of the service, following a redirect to its file store.

        Raises:
            OSError: the download failed.
        """
        import httpx

        with httpx.Client(timeout=self._timeout) as client:
            answer = client.get(f"{self.url}{path}", headers={"X-API-Key": self._key})
            if answer.is_redirect:
                place = answer.next_request
                assert place is not None
                # The key must not reach another host; a file store's address carries a signature of its own.
                key = {"X-API-Key": self._key} if place.url.host == answer.url.host else {}
                answer = client.get(place.url, headers=key, follow_redirects=True)
        if answer.status_code != 200:
            raise OSError(f"status {answer.status_code}: {answer.text[:200]}")
        content: bytes = answer.content
        return content

    def _probe(self) -> str | None:
        """None if the service answers a health check, else the reason why not."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/healthz", timeout=PROBE):
                return None
        except urllib.error.HTTPError as error:
            return f"status {error.code}" if error.code >= 500 else None
        except (OSError, ValueError) as error:
            return _line(getattr(error, "reason", error))

    def _refuse(self, what: str, error: BaseException) -> None:
        """Raise the error that explains a failed request to the user."""
        tinker = sdk()
        status = getattr(error, "status_code", None) or getattr(error.__cause__, "status_code", None)
        if status in (401, 403):
            raise EngineError(KEY, None, f"{self.url} refuses this key (status {status})", "correct it") from error
        if status == 402:
            raise Stopped(_no_credit(_line(error))) from error
        if isinstance(error, tinker.APIConnectionError):
            raise Stopped(f"the Tinker service at {self.url} is down ({_line(error)}); {_again(what)}") from error
        if isinstance(error, tinker.APIError | tinker.RequestFailedError) or status is not None:
            raise Refused(f"the Tinker service at {self.url} refused {what} ({_line(error)})") from error
        raise error

    def _close(self) -> None:
        """End the session at exit, so that the service can free its adapters; a failure is ignored."""
        closing = self.client.close("success").future()
        futures.wait([closing], timeout=5.0)


class Refused(Stopped):
    """The service refused a request."""


@dataclass(frozen=True, slots=True)
class _Running(Generic[Value]):
    """A future with the interface of the SDK's requests."""

    running: "futures.Future[Value]"

    def future(self) -> "futures.Future[Value]":
        return self.running


class _Warnings(logging.Handler):
    """Collects the SDK's warnings, such as a lack of capacity or an unpaid bill."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.billing: str | None = None
        self._last: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        text = _line(record.getMessage())
        if "billing" in text:
            self.billing = text
        if "try_again" not in text:
            self._last = text

    def last(self) -> str:
        """The last warning, as the end of a line; each warning is returned once."""
        text, self._last = self._last, None
        return f"; it says: {text}" if text else ""


def _session(client: Any) -> Any:
    """The client, once its session has started; otherwise it would start, and block, at the first use."""
    client.holder  # noqa: B018
    return client


def _again(what: str) -> str:
    return f"{what} did not arrive, and will be requested again when the run is resumed"


def _no_credit(reason: str) -> str:
    return f"the Tinker account is out of credit, or billing is not set up ({reason}); correct that"


def _line(error: object) -> str:
    return one_line(error) or type(error).__name__
