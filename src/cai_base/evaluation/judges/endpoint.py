"""Sends questions to an OpenAI-compatible endpoint, several at a time, with back-off. The key is never stored."""

import asyncio
import math
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

from cai_base.engines import Meter
from cai_base.errors import Stopped, UserError, install
from cai_base.evaluation.judges.question import EMPTY_ANSWER, Unreadable, whole
from cai_base.evaluation.judges.replies import Keep, Question, Reply
from cai_base.reading import quote
from cai_base.reading.keys import stored_keys
from cai_base.settings.schema import Judging

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

KEY = "OPENAI_API_KEY"
NO_KEY = "none"
"""The key that is sent if there is none: a local server needs none, but the SDK must send one."""
GIVE_UP = 8
"""The judge counts as gone after this many questions in a row have failed with all their retries."""
QUOTED = 160
"""The most characters of a server's message that are shown to the user."""
WORDS_STORED = 2000
"""The most characters of a server's message that are stored with an unscored answer."""
LARGEST = 2**22
"""Bytes of a response that are read. The longest answer of a judge has a few thousand tokens."""
PLAIN = "identity"
"""The encoding of a response that is not compressed, as a header names it."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds before the first retry, doubled for each further one, and their maximum."""
LONGEST_WAIT = 60.0
"""The longest `Retry-After` that is followed, in seconds."""
PASSING = (408, 409, 425, 429)
"""Statuses below 500 for which a retry may succeed."""
CUT = "the judge's answer is cut off: give a greater --judging.max-tokens"


def api_key() -> str | None:
    """The key from the environment or from `.env` in the working directory, without surrounding space; None without
    one.

    Raises:
        UserError: it contains characters that an HTTP header cannot.
    """
    key = (os.environ.get(KEY) or stored_keys().get(KEY) or "").strip()
    if not key.isascii() or not key.isprintable():  # what it is instead is not shown: most of it may be the key
        raise UserError(f"{KEY}: no key has such characters in it; put the key alone there, on one line, unquoted")
    return key or None


def check_sdk() -> None:
    """Raises UserError if the `openai` SDK is not installed, or the key is not valid in a header."""
    api_key()
    try:
        import openai  # noqa: F401  # where it is used, since it comes with an extra
    except ImportError as error:
        raise UserError(f"--judge openai:MODEL needs the openai SDK: {install('judge')}") from error


SchemaFor = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Form:
    """The parameters of a request. A server that rejects one of them is asked again without it."""

    schema: bool = True
    temperature: bool = True
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    def plainer(self, error: "APIStatusError") -> "_Form | None":
        """The form without the parameter that the server rejected; None if there is none left to remove."""
        complaint = f"{error.param} {_words(error)}"
        if self.limit == "max_tokens" and "max_tokens" in complaint:
            return replace(self, limit="max_completion_tokens")
        if self.temperature and "temperature" in complaint:
            return replace(self, temperature=False)
        return replace(self, schema=False) if self.schema else None


@dataclass(frozen=True, slots=True)
class Own:
    """A server that this program has started. No proxy is asked for it, and the user's key is not read.

    Attributes:
        key: what it requires.
        serves: whether it is alive: no retry may succeed at one that is not.
    """

    key: str
    serves: Callable[[], bool]


class Endpoint:
    """A model behind an OpenAI-compatible endpoint (`/chat/completions`).

    Args:
        model: the name of the model at the endpoint.
        url: the base URL, such as `http://localhost:8000/v1`.
        settings: temperature, lengths, concurrency and time-outs.
        schema_for: turns a reply's JSON Schema into the one that is sent.
        own: a server of this program's; None for one that the user named.

    Raises:
        UserError: the SDK is not installed.
    """

    def __init__(
        self, model: str, url: str, settings: Judging, schema_for: SchemaFor | None = None, own: Own | None = None
    ) -> None:
        if own is None:
            check_sdk()
        self._model, self._url, self._settings, self._schema_for = model, url, settings, schema_for
        self._own, self._key = own, api_key() if own is None else own.key
        self._form = _Form()
        self.meter = Meter()  # an endpoint has its own account
        self._failed_in_a_row = 0

    def ask(self, questions: Sequence[Question], keep: Keep) -> None:
        asyncio.run(self._ask(list(reversed(questions)), keep))

    async def _ask(self, left: list[Question], keep: Keep) -> None:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        settings = self._settings

        async def work(client: "AsyncOpenAI") -> None:
            while left:
                question = left.pop()
                reply = await self._reply(client, question)
                keep(question, replace(reply, text=whole(self._without_key(reply.text))))

        # A redirect would take the question, and within a host the key, to a place that nobody named.
        http = DefaultAsyncHttpxClient(
            follow_redirects=False, event_hooks={"response": [_bound]}, trust_env=self._own is None
        )
        async with AsyncOpenAI(
            api_key=self._key or NO_KEY,
            base_url=self._url,
            max_retries=0,  # the SDK's own retries know no error in a body, and no bound for all of a response
            timeout=settings.timeout,
            default_headers={"Accept-Encoding": PLAIN},
            http_client=http,
        ) as client:
            workers = [asyncio.create_task(work(client)) for _ in range(min(settings.concurrency, len(left)))]
            try:
                await asyncio.gather(*workers)
            finally:  # the first to find that nothing will come ends them all
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _reply(self, client: "AsyncOpenAI", question: Question) -> Reply:
        """The reply, or the failure after all retries. The only exception it raises is `Stopped`."""
        attempt = 0
        while True:
            outcome = await self._try(client, question)
            if isinstance(outcome, Reply):
                self._failed_in_a_row = 0
                return outcome
            gone = self._own is not None and not self._own.serves()
            if gone or not outcome.passing or attempt >= self._settings.retries:
                return self._failure(outcome.reason, outcome.message)
            await asyncio.sleep(pause(outcome.headers, attempt))
            attempt += 1

    async def _try(self, client: "AsyncOpenAI", question: Question) -> "Reply | _Error":
        """The answer to one request, repeated without the parameters that the server rejects."""
        import openai

        form = self._form
        while True:
            try:
                raw = await asyncio.wait_for(
                    client.chat.completions.with_raw_response.create(
                        model=self._model,
                        messages=cast(list["ChatCompletionMessageParam"], list(question.messages)),
                        **self._arguments(form, question),
                    ),
                    self._settings.timeout,  # of all of it: a server may send a byte now and then, for ever
                )
                completion = raw.parse()
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if error.code == "content_filter":
                    return Reply(error.message, "judge refused")
                plainer = form.plainer(error)
                if plainer is None:
                    return _Error(f"request declined: HTTP {error.status_code}", _words(error))
                form = plainer
                continue
            except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                raise Stopped(self._not_there(error)) from None
            except (openai.APITimeoutError, TimeoutError):
                return _Error("transport error: timed out", "", passing=True)
            except openai.APIStatusError as error:
                status, headers = error.status_code, error.response.headers
                if 300 <= status < 400:
                    raise Stopped(self._redirected(headers.get("location", ""))) from None
                return _Error(
                    f"transport error: HTTP {status}", _words(error), status in PASSING or status >= 500, headers
                )
            # What the SDK passes on when a server sends no UTF-8, no JSON, or too much of it.
            except (_NotRead, openai.APIError, ValueError, RecursionError) as error:
                cause = error if isinstance(error, _NotRead) else error.__cause__
                not_read = isinstance(cause, _NotRead)
                passing = isinstance(error, openai.APIConnectionError) and not not_read
                return _Error("transport error: no usable response", str(cause if not_read else error), passing)
            inside = _error_inside(completion)
            if inside is not None:
                return _Error("transport error: an error in place of a completion", inside, True, raw.headers)
            reply = _content(completion, question)
            if reply is None:
                return _Error("transport error: no chat completion", str(completion))
            self._form = form
            return reply

    def _arguments(self, form: _Form, question: Question) -> dict[str, Any]:
        arguments: dict[str, Any] = {form.limit: self._settings.max_tokens}
        if form.temperature:
            arguments["temperature"] = self._settings.temperature
        if form.schema and question.grading.answer_schema is not None:
            answer = question.grading.answer_schema
            answer = self._schema_for(answer) if self._schema_for is not None else answer
            schema = {"name": "grade", "strict": True, "schema": answer}
            arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
        return arguments

    def _failure(self, reason: str, message: str) -> Reply:
        """The reply that records a failure.

        Raises:
            Stopped: too many questions in a row have failed.
        """
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= GIVE_UP:
            raise Stopped(
                f"the judge at {self._url} failed {GIVE_UP} times in a row, the last time with: {reason}"
                f"{self._quoted(message)}; see to it: no reply so far is lost"
            ) from None
        return Reply(message[:WORDS_STORED], reason, final=False)

    def _quoted(self, message: str) -> str:
        """A server's message, short and on one line, to be shown after this project's own message."""
        return f" ({quote(self._without_key(' '.join(message.split())), QUOTED)})" if message.strip() else ""

    def _not_there(self, error: "APIStatusError") -> str:
        status = error.status_code
        if status == 404:
            return (
                f"the judge's endpoint {self._url} does not know the model {self._model}: HTTP 404"
                f"{self._quoted(_words(error))}; serve it there, see that the URL is the endpoint's base (most end in "
                "/v1), or start a new run with another --judge"
            )
        complaint = "declined the key" if self._key else "asks for a key"
        return f"the judge's endpoint {self._url} {complaint} (HTTP {status}); put a valid one into {KEY} or .env"

    def _redirected(self, place: str) -> str:
        return (
            f"the judge's endpoint {self._url} redirects to {quote(self._without_key(place), QUOTED)}, which is not "
            "followed, since it would take the key along; give the place where the judge is as --judge-url"
        )

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _words(error: "APIStatusError") -> str:
    """The server's message. The SDK contains it only if the error has OpenAI's format."""
    body = error.response.text.strip()
    return (
        f"{error.message} - {body}" if body and error.message == f"Error code: {error.status_code}" else error.message
    )


@dataclass(frozen=True, slots=True)
class _Error:
    """Why a request brought no reply.

    Attributes:
        reason: in this project's words.
        message: in the server's words.
        passing: whether a retry may succeed.
        headers: of the response; None if there was none.
    """

    reason: str
    message: str
    passing: bool = False
    headers: Mapping[str, str] | None = None


def pause(headers: Mapping[str, str] | None, attempt: int) -> float:
    """Seconds to wait before a retry: what the server asks for, up to a maximum, else exponential back-off.

    Args:
        headers: of the failed response; None if there was none.
        attempt: the number of earlier retries.
    """
    seconds = _retry_after(headers or {})
    if math.isfinite(seconds) and seconds > 0:
        return min(seconds, LONGEST_WAIT)
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt, 10))
    return longest * random.uniform(0.75, 1.0)  # several questions meet the same limit; they come back one by one


def _retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that a server asks to wait; NaN if it does not say, or not in a known format."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
    try:
        return parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
    except (KeyError, ValueError, TypeError, OverflowError, OSError):
        return math.nan


class _NotRead(Exception):
    """A response is one of which no more is read. Its text says why."""


async def _bound(response: Any) -> None:
    """Have a response end with `_NotRead` once it is larger than `LARGEST` bytes, or at once if it is compressed.

    A compressed one was not asked for, and a few of its bytes may become gigabytes.
    """
    stream = response.stream
    library = import_module(type(response).__module__.partition(".")[0])  # httpx, or httpx2 with later SDKs

    class Bounded(library.AsyncByteStream):  # type: ignore[misc, name-defined]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            if response.headers.get("content-encoding", PLAIN).strip().lower() != PLAIN:
                raise _NotRead("the response is compressed, which was not asked for")
            size = 0
            async for part in stream:
                size += len(part)
                if size > LARGEST:
                    raise _NotRead(f"the response is larger than {LARGEST} bytes")
                yield part

        async def aclose(self) -> None:
            await stream.aclose()

    response.stream = Bounded()


def _error_inside(completion: object) -> str | None:
    """The message of an error that a server sends with status 200, instead of a completion or inside one."""
    choices = getattr(completion, "choices", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    for holder in (completion, first):
        error = getattr(holder, "error", None)
        if error:
            message = error.get("message") if isinstance(error, dict) else None
            return str(message or error)
    return None


def _content(completion: object, question: Question) -> Reply | None:
    """The text of the judge's answer; None if this is no completion. The SDK does not check what a server sends.

    If the whole text is marked as reasoning, it counts only if it is exactly an answer; otherwise it is stored as is.
    """
    from openai.types.chat import ChatCompletion

    choices: object = completion.choices if isinstance(completion, ChatCompletion) else None
    if not choices or not isinstance(choices, list | str):
        return None
    choice: object = choices[0]
    message = getattr(choice, "message", None)
    text, refusal = _text(getattr(message, "content", None)), getattr(message, "refusal", None)
    why = getattr(choice, "finish_reason", None)
    if refusal or why == "content_filter":
        return Reply(whole(str(refusal or text)), "judge refused")
    reasoning = _text(getattr(message, "reasoning_content", None)) or _text(getattr(message, "reasoning", None))
    words = whole(text if text.strip() else reasoning)
    unreadable = isinstance(question.grading.read(words, question.response.text), Unreadable)
    if unreadable and why == "length":  # a whole answer may be followed by empty lines up to the greatest length
        return Reply(words, CUT)
    if unreadable and words and not text.strip():
        return Reply(words, f"{EMPTY_ANSWER}: all its words are reasoning" if reasoning else EMPTY_ANSWER)
    return Reply(words)


def _text(content: object) -> str:
    """The text of a message: its content, or the parts of it that are text and not reasoning."""
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if part.get("type", "text") in ("text", "output_text")]
    return "".join(text for text in texts if isinstance(text, str))
