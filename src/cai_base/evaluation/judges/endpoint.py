"""Questions to any OpenAI-compatible endpoint: several at a time, with back-off; the key stands in no stored text."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from dotenv import dotenv_values

from cai_base.engines import Meter
from cai_base.errors import Stopped, UserError
from cai_base.evaluation.judges.question import Unreadable
from cai_base.evaluation.judges.replies import Keep, Question, Reply
from cai_base.reading import shown
from cai_base.settings.schema import Judging

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

KEY = "OPENAI_API_KEY"
NO_KEY = "none"
"""Sent where there is no key: a server on one's own machine asks for none, and the SDK must send one."""
GIVE_UP = 8
"""The judge counts as gone after so many questions in a row that failed after all their retries."""
QUOTED = 160
"""Characters of a server's message that a message of ours repeats."""
CUT = "the judge's answer is cut off: give a greater --judging.max-tokens"


def api_key() -> str | None:
    """The key in the environment, else in `.env` here, without space around it; None if there is none.

    Raises:
        UserError: it cannot stand in a header.
    """
    key = (os.environ.get(KEY) or dotenv_values(Path(".env")).get(KEY) or "").strip()
    if not key.isascii() or not key.isprintable():  # what it is instead is not shown: most of it may be the key
        raise UserError(f"{KEY}: no key has such characters in it; put the key alone there, on one line, unquoted")
    return key or None


def check_sdk() -> None:
    """Raises UserError if the `openai` SDK is not installed, or the key can be none."""
    api_key()
    try:
        import openai  # noqa: F401  # where it is used, since it comes with an extra
    except ImportError as error:
        raise UserError(
            "--judge openai:MODEL needs the openai SDK: pip install 'cai-base[judge]', or '.[judge]' in a clone"
        ) from error


@dataclass(frozen=True, slots=True)
class _Form:
    """The form of a request. Servers differ in what they accept: one that declines a form is asked in a plainer one."""

    schema: bool = True
    temperature: bool = True
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    def plainer(self, error: "APIStatusError") -> "_Form | None":
        """The form without what the server declined; None if there is nothing left to leave out."""
        complaint = f"{error.param} {_words(error)}"
        if self.limit == "max_tokens" and "max_tokens" in complaint:
            return replace(self, limit="max_completion_tokens")
        if self.temperature and "temperature" in complaint:
            return replace(self, temperature=False)
        return replace(self, schema=False) if self.schema else None


class Endpoint:
    """A model behind an OpenAI-compatible endpoint (`/chat/completions`).

    Args:
        model: its name there.
        url: the endpoint's base, such as `http://localhost:8000/v1`.
        settings: how to ask.

    Raises:
        UserError: the SDK is not installed.
    """

    def __init__(self, model: str, url: str, settings: Judging) -> None:
        check_sdk()
        self._model, self._url, self._settings = model, url, settings
        self._key = api_key()
        self._form = _Form()
        self.meter = Meter()  # an endpoint has its own account
        self._failed_in_a_row = 0

    def ask(self, questions: Sequence[Question], keep: Keep) -> None:
        asyncio.run(self._ask(list(reversed(questions)), keep))

    async def _ask(self, left: list[Question], keep: Keep) -> None:
        from openai import AsyncOpenAI

        settings = self._settings

        async def work(client: "AsyncOpenAI") -> None:
            while left:
                question = left.pop()
                reply = await self._reply(client, question)
                keep(question, replace(reply, text=self._without_key(reply.text)))

        async with AsyncOpenAI(
            api_key=self._key or NO_KEY, base_url=self._url, max_retries=settings.retries, timeout=settings.timeout
        ) as client:
            workers = [asyncio.create_task(work(client)) for _ in range(min(settings.concurrency, len(left)))]
            try:
                await asyncio.gather(*workers)
            finally:  # the first to find that nothing will come ends them all
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _reply(self, client: "AsyncOpenAI", question: Question) -> Reply:
        """The reply, or what failed; never an exception but `Stopped`."""
        import openai

        form = self._form
        while True:
            try:
                completion = await client.chat.completions.create(
                    model=self._model,
                    messages=cast(list["ChatCompletionMessageParam"], list(question.messages)),
                    **self._arguments(form, question),
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if error.code == "content_filter":
                    return Reply(error.message, "judge refused")
                plainer = form.plainer(error)
                if plainer is None:
                    return self._failure(f"request declined: HTTP {error.status_code}", _words(error))
                form = plainer
                continue
            except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                raise Stopped(self._not_there(error)) from None
            except openai.APITimeoutError:
                return self._failure("transport error: timed out", "")
            except openai.APIStatusError as error:
                return self._failure(f"transport error: HTTP {error.status_code}", _words(error))
            # What the SDK passes on when a server sends no UTF-8, no JSON, or too much of it.
            except (openai.APIError, ValueError, RecursionError) as error:
                return self._failure("transport error: no usable response", str(error))
            reply = _content(completion, question)
            if reply is None:
                return self._failure("transport error: no chat completion", str(completion))
            self._failed_in_a_row = 0
            self._form = form
            return reply

    def _arguments(self, form: _Form, question: Question) -> dict[str, Any]:
        arguments: dict[str, Any] = {form.limit: self._settings.max_tokens}
        if form.temperature:
            arguments["temperature"] = self._settings.temperature
        if form.schema and question.grading.answer_schema is not None:
            schema = {"name": "grade", "strict": True, "schema": question.grading.answer_schema}
            arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
        return arguments

    def _failure(self, reason: str, message: str) -> Reply:
        """A reply that is none.

        Raises:
            Stopped: nothing but failures has come for a while.
        """
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= GIVE_UP:
            raise Stopped(
                f"the judge at {self._url} failed {GIVE_UP} times in a row, the last time with: {reason}"
                f"{self._quoted(message)}; see to it: no reply so far is lost"
            ) from None
        return Reply(message, reason, final=False)

    def _quoted(self, message: str) -> str:
        """What a server said, short and on one line, to stand behind our own words; it may know what is wrong."""
        return f" ({shown(self._without_key(' '.join(message.split())), QUOTED)})" if message.strip() else ""

    def _not_there(self, error: "APIStatusError") -> str:
        status = error.status_code
        if status == 404:
            return (
                f"the judge's endpoint {self._url} does not know the model {self._model}: HTTP 404"
                f"{self._quoted(_words(error))}; serve it there, see that the URL is the endpoint's base (most end in "
                "/v1), or begin a new run with another --judge"
            )
        complaint = "declined the key" if self._key else "asks for a key"
        return f"the judge's endpoint {self._url} {complaint} (HTTP {status}); put a valid one into {KEY} or .env"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _words(error: "APIStatusError") -> str:
    """The server's message. The SDK repeats it only if it is in OpenAI's form of an error."""
    body = error.response.text.strip()
    return (
        f"{error.message} - {body}" if body and error.message == f"Error code: {error.status_code}" else error.message
    )


def _content(completion: object, question: Question) -> Reply | None:
    """The judge's words; None if this is no completion. The SDK passes on whatever a server sends, unchecked."""
    from openai.types.chat import ChatCompletion

    choices: object = completion.choices if isinstance(completion, ChatCompletion) else None
    if not choices or not isinstance(choices, list | str):
        return None
    choice: object = choices[0]
    message = getattr(choice, "message", None)
    text, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
    why = getattr(choice, "finish_reason", None)
    if refusal or why == "content_filter":
        return Reply(_whole(str(refusal or text or "")), "judge refused")
    words = _whole(text) if isinstance(text, str) else ""
    # A whole answer may be followed by empty lines up to the greatest length.
    cut = why == "length" and isinstance(question.grading.read(words, question.response.text), Unreadable)
    return Reply(words, CUT if cut else None)


def _whole(text: str) -> str:
    """The text with a mark in place of halves of characters, which JSON can spell and no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
