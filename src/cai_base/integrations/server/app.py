"""The server's routes, in the formats of OpenAI's API: the list of models, completions and chat."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cai_base.engines import Sample, SampleRequest
from cai_base.errors import UserError
from cai_base.integrations.desk import Busy, Desk
from cai_base.integrations.server.forms import ChatForm, CompletionForm, WrongRequest, read_form
from cai_base.integrations.server.logprobs import Places, chat_logprobs, completion_logprobs, read_logprobs
from cai_base.integrations.server.models import Models
from cai_base.integrations.server.requests import Readers, chat_request, completion_request
from cai_base.run.talk import Speaker, certain_text

LARGEST_BODY = 4 << 20
"""The most bytes of a request."""
HOSTS = ["127.0.0.1", "localhost"]
"""Host names that the server accepts. Other names are refused, against DNS rebinding by other sites."""
KEY_NEEDED = "this server needs the API key that it has shown at its start; OpenAI's client takes it as OPENAI_API_KEY"
CLIENT_GONE = 499
"""The status of a response that nobody reads, as nginx logs it."""


def make_app(models: Models, desk: Desk, key: str | None = None) -> Starlette:
    """The server application for these models.

    Args:
        key: what every request must have as its API key; None if none is needed.
    """
    guarded = partial(_guarded, key)
    began, readers = int(time.time()), Readers(desk.places)

    async def listed(_: Request) -> Response:
        data = [{"id": name, "object": "model", "created": began, "owned_by": "cai-base"} for name in models.by_name]
        return JSONResponse({"object": "list", "data": data})

    async def one_model(call: Request) -> Response:
        name = call.path_params["name"]
        models.named(name)
        return JSONResponse({"id": name, "object": "model", "created": began, "owned_by": "cai-base"})

    async def completions(call: Request) -> Response:
        form: CompletionForm = read_form(CompletionForm, await _body(call))
        return await _while_there(call, _complete(form, models, desk, readers))

    async def chat(call: Request) -> Response:
        form: ChatForm = read_form(ChatForm, await _body(call))
        return await _while_there(call, _chat(form, models, desk, readers))

    return Starlette(
        routes=[
            Route("/v1/models", guarded(listed)),
            Route("/v1/models/{name}", guarded(one_model)),
            Route("/v1/completions", guarded(completions), methods=["POST"]),
            Route("/v1/chat/completions", guarded(chat), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
        exception_handlers={404: _no_such_path, 405: _no_such_path},
    )


def _guarded(
    key: str | None, handle: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a route: errors have OpenAI's format; requests of other sites' pages or without the key are refused."""
    expected = f"Bearer {key}".encode()

    async def guarded(call: Request) -> Response:
        origin = call.headers.get("origin")
        try:
            if origin is not None and _host(origin) not in HOSTS:
                raise WrongRequest("pages of other sites may not use this server", status=403)
            header = call.headers.get("authorization", "")
            if key is not None and not secrets.compare_digest(header.encode(), expected):
                raise WrongRequest(KEY_NEEDED, status=401, code="invalid_api_key")
            return await handle(call)
        except WrongRequest as error:
            return _error(str(error), error.status, error.param, error.code)
        except UserError as error:
            return _error(str(error), 400, None, "context_length_exceeded" if "context" in str(error) else None)
        except Busy:
            text = "too many requests are waiting; try again in a moment"
            return _error(text, 429, None, "rate_limit_exceeded", {"Retry-After": "1"})
        except ClientDisconnect:
            return Response(status_code=CLIENT_GONE)

    return guarded


def _host(origin: str) -> str | None:
    """The host of an `Origin` header; None if it has none."""
    try:
        return urlsplit(origin).hostname
    except ValueError:  # such as `http://[`
        return None


async def _while_there(call: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response that `work` makes. It is cancelled, and with it what it has queued, when the client is gone.

    Raises:
        ClientDisconnect: the client is gone.
    """

    async def gone() -> None:
        while (await call.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _no_such_path(call: Request, _: Exception) -> Response:
    paths = "GET /v1/models, POST /v1/completions, POST /v1/chat/completions"
    return _error(f"{call.method} {call.url.path[:80]}: no such path; the paths are {paths}", 404)


def _error(
    text: str, status: int, param: str | None = None, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    kind = "invalid_request_error" if status < 429 else "server_error"
    content = {"error": {"message": text, "type": kind, "param": param, "code": code}}
    return JSONResponse(content, status, dict(headers or {}))


async def _body(call: Request) -> bytes:
    kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        header = "Content-Type: application/json"
        raise WrongRequest(f"the body must be JSON, sent with the header {header}; in curl: -H '{header}'", status=415)
    body = bytearray()
    async for part in call.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise WrongRequest(f"the body has more than {LARGEST_BODY:,} bytes; send less per request", status=413)
    return bytes(body)


async def _complete(form: CompletionForm, models: Models, desk: Desk, readers: Readers) -> Response:
    draws = await readers.do(lambda: completion_request(form, models, desk.places))
    speaker, requests, tokenizer = draws.speaker, draws.requests, draws.speaker.engine.tokenizer
    frame = _Frame("text_completion", "cmpl", form.model)
    if form.stream:
        return _streamed(frame, speaker, requests, desk, form.usage_at_end, chat=False)
    samples = await _samples(desk, speaker, requests) if form.max_tokens != 0 else []

    def choice(number: int, places: Places | None) -> dict[str, Any]:
        prompt, sample = requests[number].prompt, samples[number] if samples else Sample("", (), "length")
        text = (tokenizer.decode(prompt) if form.echo else "") + sample.text
        details = None
        if places is not None:
            start = 0 if form.echo else len(prompt)
            details = completion_logprobs(tokenizer, (*prompt, *sample.tokens), places, start, form.logprobs or 0)
        return {"index": number, "text": text, "finish_reason": sample.stop_reason, "logprobs": details}

    choices = []
    for number, one in enumerate(requests):
        places = None
        if form.logprobs is not None:
            whole = (*one.prompt, *(samples[number].tokens if samples else ()))
            places = await asyncio.wrap_future(desk.do(_reading(speaker, whole, max(form.logprobs, 1))))
        choices.append(await readers.do(partial(choice, number, places)))
    return JSONResponse(frame.whole(choices, _usage(requests, samples)))


async def _chat(form: ChatForm, models: Models, desk: Desk, readers: Readers) -> Response:
    draws = await readers.do(lambda: chat_request(form, models))
    speaker, requests = draws.speaker, draws.requests
    frame = _Frame("chat.completion", "chatcmpl", form.model)
    if form.stream:
        return _streamed(frame, speaker, requests, desk, form.usage_at_end, chat=True)
    samples = await _samples(desk, speaker, requests)
    choices = []
    for number, sample in enumerate(samples):
        details = None
        if form.logprobs:
            whole, start = (*requests[number].prompt, *sample.tokens), len(requests[number].prompt)
            places = await asyncio.wrap_future(desk.do(_reading(speaker, whole, max(form.top_logprobs or 0, 1))))
            details = chat_logprobs(speaker.engine.tokenizer, whole, places, start, form.top_logprobs or 0)
        message = {"role": "assistant", "content": sample.text.strip(), "refusal": None}
        finish = {"finish_reason": sample.stop_reason, "logprobs": details}
        choices.append({"index": number, "message": message, **finish})
    return JSONResponse(frame.whole(choices, _usage(requests, samples)))


async def _samples(desk: Desk, speaker: Speaker, requests: Sequence[SampleRequest]) -> list[Sample]:
    futures = desk.draw_all(speaker.engine, requests)
    try:
        return await asyncio.gather(*map(asyncio.wrap_future, futures))
    finally:  # drops those that still wait if one has failed or the client is gone
        for one in futures:
            one.cancel()


def _reading(speaker: Speaker, tokens: Sequence[int], most: int) -> Callable[[], Any]:
    return lambda: read_logprobs(speaker, tokens, most)


def _usage(requests: Sequence[SampleRequest], samples: Sequence[Sample]) -> dict[str, int]:
    prompt, completion = sum(len(one.prompt) for one in requests), sum(len(one.tokens) for one in samples)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class _Frame:
    """The fields common to all responses."""

    def __init__(self, kind: str, prefix: str, model: str) -> None:
        self.kind = kind
        self.head = {"id": f"{prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, choices: Sequence[Any], usage: Mapping[str, int]) -> dict[str, Any]:
        """A complete response."""
        return {**self.head, "object": self.kind, "choices": list(choices), "usage": dict(usage)}

    def part(self, choices: Sequence[Any], usage: Mapping[str, int] | None = None) -> bytes:
        """One event of a streamed response."""
        kind = f"{self.kind}.chunk" if self.kind.startswith("chat") else self.kind
        content = {**self.head, "object": kind, "choices": list(choices), "usage": usage}
        return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


def _streamed(
    frame: _Frame, speaker: Speaker, requests: Sequence[SampleRequest], desk: Desk, usage_at_end: bool, *, chat: bool
) -> Response:
    """A response streamed while its tokens are sampled. In chat, whitespace around an answer is removed."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[tuple[int, str | None]] = asyncio.Queue()

    def listener(number: int) -> Callable[[tuple[int, ...]], None]:
        def hear(tokens: tuple[int, ...]) -> None:
            text = certain_text(speaker.engine, requests[number].stop, tokens)
            loop.call_soon_threadsafe(events.put_nowait, (number, text.strip() if chat else text))

        return hear

    futures = desk.draw_all(speaker.engine, requests, [listener(number) for number in range(len(requests))])
    for number, job in enumerate(futures):
        job.add_done_callback(lambda _, n=number: loop.call_soon_threadsafe(events.put_nowait, (n, None)))  # type: ignore[misc]

    def choice(number: int, text: str, finish: str | None = None) -> dict[str, Any]:
        content = {"delta": {"content": text} if text or not finish else {}} if chat else {"text": text}
        return {"index": number, **content, "finish_reason": finish, "logprobs": None}

    async def parts() -> AsyncIterator[bytes]:
        sent = [""] * len(requests)
        for number in range(len(requests) if chat else 0):
            role = {"index": number, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            yield frame.part([role])
        open_ones = len(requests)
        while open_ones:
            number, text = await events.get()
            finish = None
            if text is None:
                open_ones -= 1
                sample = futures[number].result()
                text, finish = sample.text.strip() if chat else sample.text, sample.stop_reason
            if text.startswith(sent[number]) and (len(text) > len(sent[number]) or finish):
                more, sent[number] = text[len(sent[number]) :], text
                yield frame.part([choice(number, more, finish)])
        if usage_at_end:
            yield frame.part([], _usage(requests, [one.result() for one in futures]))
        yield b"data: [DONE]\n\n"

    return _Stream(parts(), futures)


class _Stream(StreamingResponse):  # type: ignore[misc]  # Starlette may not be installed where types are checked
    """A streamed response; the draws that still wait when it ends, as when its client is gone, are dropped."""

    def __init__(self, parts: AsyncIterator[bytes], futures: "Sequence[Future[Sample]]") -> None:
        super().__init__(parts, media_type="text/event-stream")
        self._futures = futures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            for one in self._futures:
                one.cancel()
