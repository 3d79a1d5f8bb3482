"""From a request's body to what the engines sample. Texts are tokenised here, in threads of their own."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from cai_base import randomness
from cai_base.dialogue import prompt_tokens
from cai_base.engines import SampleRequest
from cai_base.integrations.desk import Busy
from cai_base.integrations.server.forms import ChatForm, ChatMessage, CompletionForm, WrongRequest, turns_of
from cai_base.integrations.server.models import Models
from cai_base.run.talk import Sampling, Speaker, check_room, request

COMPLETION_TOKENS = 16
"""The default length of a completion in tokens, as in OpenAI's API."""
READERS = 4
"""How many requests are tokenised at a time."""

Value = TypeVar("Value")


class Readers:
    """Threads that tokenise, so that a long text does not hold up the answers to other requests.

    Args:
        places: the most requests that are tokenised or wait for it.
    """

    def __init__(self, places: int) -> None:
        self._places, self._taken = places, 0
        self._threads = ThreadPoolExecutor(READERS, "tokenizers")

    async def do(self, work: Callable[[], Value]) -> Value:
        """The value of `work`, from one of the threads. Work that nobody waits for any more is not begun.

        Raises:
            Busy: too many wait.
        """
        if self._taken >= self._places:
            raise Busy
        self._taken += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._taken -= 1


@dataclass(frozen=True, slots=True)
class Draws:
    """A model, and one request for each answer that it is to give."""

    speaker: Speaker
    requests: Sequence[SampleRequest]


def completion_request(form: CompletionForm, models: Models, places: int) -> Draws:
    """The answers that a request to continue texts asks for.

    Args:
        places: the most answers that can be asked for at a time.

    Raises:
        WrongRequest: a field is wrong, or cannot be honoured.
        UserError: a prompt does not fit the model's context.
    """
    speaker = models.named(form.model)
    temperature = models.sampling.temperature if form.temperature is None else form.temperature
    most = COMPLETION_TOKENS if form.max_tokens is None else form.max_tokens
    if most == 0 and not form.echo:
        raise WrongRequest("max_tokens: 0 needs echo, which this request does not have", "max_tokens")
    if form.stream and (form.logprobs is not None or form.echo):
        raise WrongRequest("stream: cannot be combined with logprobs or echo here; leave one out", "stream")
    each = form.n or 1
    count = len(form.prompts) * each
    if most and count > places:
        raise WrongRequest(
            f"prompt: {len(form.prompts)} prompts with n {each} are {count} answers, and at most {places} fit in "
            f"the queue; give at most {places // each} prompts in a request",
            "prompt",
        )
    requests: list[SampleRequest] = []
    for number, prompt in enumerate(form.prompts):
        if isinstance(prompt, str):
            _check_length(speaker, len(prompt))
            tokens = prompt_tokens(speaker.engine.tokenizer, prompt)
        else:
            tokens = _given_tokens(speaker, prompt)
        check_room(speaker.engine, len(tokens), most)
        for choice in range(each):
            seed = _seed(form.seed, number, choice)
            requests.append(SampleRequest(speaker.adapter, tokens, max(most, 1), temperature, form.stops, seed))
    return Draws(speaker, requests)


def chat_request(form: ChatForm, models: Models) -> Draws:
    """The answers that a request to answer in a conversation asks for.

    Raises:
        WrongRequest: a field is wrong, or cannot be honoured.
        UserError: the conversation does not fit the model's context.
    """
    speaker = models.named(form.model)
    _check_length(speaker, _characters(form.messages))
    before, question = turns_of(form.messages)
    temperature = models.sampling.temperature if form.temperature is None else form.temperature
    most = form.longest or models.sampling.max_tokens
    if form.stream and form.logprobs:
        raise WrongRequest("stream: cannot be combined with logprobs here; leave one out", "stream")
    requests = []
    for choice in range(form.n or 1):
        one = request(speaker, question, before, Sampling(temperature, most, _seed(form.seed, 0, choice)))
        stops = (*one.stop, *form.stops)
        requests.append(SampleRequest(one.adapter, one.prompt, one.max_tokens, one.temperature, stops, one.seed))
    return Draws(speaker, requests)


def _seed(number: int | None, *place: int) -> int:
    """The seed of one response: derived from the request's seed and the response's index; random without a seed."""
    return secrets.randbits(60) if number is None else randomness.seed(number, "served", *place)


def _characters(messages: Sequence[ChatMessage]) -> int:
    """How many characters a conversation has at least, with the line breaks between its messages."""
    return sum(len(one.text.strip()) for one in messages) + 2 * (len(messages) - 1)


def _check_length(speaker: Speaker, characters: int) -> None:
    """Check that a text of this many characters can fit the context, before it is tokenised.

    Raises:
        WrongRequest: it cannot, even if all of its tokens are the longest one.
    """
    longest, context = getattr(speaker.engine.tokenizer, "longest", None), speaker.engine.context_length
    if longest is not None and characters > longest * context:
        raise WrongRequest(
            f"the prompt has {characters:,} characters: more than the {context} tokens of the model's context can hold"
            "; give a shorter prompt",
            code="context_length_exceeded",
        )


def _given_tokens(speaker: Speaker, tokens: list[int]) -> tuple[int, ...]:
    size = getattr(speaker.engine.tokenizer, "vocabulary", None)
    if min(tokens) < 0 or (size is not None and max(tokens) >= size):
        raise WrongRequest(f"prompt: a token is not in the model's vocabulary of {size}", "prompt")
    return tuple(tokens)
