"""Log-probabilities of tokens in the two formats of OpenAI's API."""

from collections.abc import Sequence
from typing import Any, Protocol

from cai_base.engines import Adapter, Tokenizer, TokenLogprobs
from cai_base.integrations.server.forms import WrongRequest
from cai_base.run.talk import Speaker

Places = Sequence[TokenLogprobs | None]
"""For each token of a text, its log-probabilities; None for the first token."""


class _Reads(Protocol):
    """An engine that gives the log-probability of every token."""

    def token_logprobs(self, adapter: Adapter | None, tokens: Sequence[int], most: int) -> list[TokenLogprobs | None]:
        """See `engines.local.LocalEngine`."""
        ...


def read_logprobs(speaker: Speaker, tokens: Sequence[int], most: int) -> Places:
    """The log-probability of every token of a text under a model.

    Raises:
        WrongRequest: its engine does not provide them.
    """
    engine: Any = speaker.engine
    if not hasattr(engine, "token_logprobs"):
        raise WrongRequest("logprobs: not available on a Tinker service; leave it out", "logprobs")
    reads: _Reads = engine
    return reads.token_logprobs(speaker.adapter, tokens, most)


def completion_logprobs(
    tokenizer: Tokenizer, tokens: Sequence[int], places: Places, start: int, most: int
) -> dict[str, Any]:
    """The log-probabilities from the token `start` on, in the format of completions."""
    texts = [tokenizer.decode([token]) for token in tokens]
    offsets = [sum(map(len, texts[start:n])) for n in range(start, len(tokens))]
    return {
        "tokens": texts[start:],
        "token_logprobs": [None if place is None else place.logprob for place in places[start:]],
        "top_logprobs": [None if place is None else _top(tokenizer, place, most) for place in places[start:]],
        "text_offset": offsets,
    }


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[int], places: Places, start: int, most: int) -> dict[str, Any]:
    """The log-probabilities from the token `start` on, in the format of chat."""
    content = []
    for token, place in zip(tokens[start:], places[start:], strict=True):
        if place is not None:
            top = [_one(tokenizer, other, logprob) for other, logprob in place.top[:most]]
            content.append({**_one(tokenizer, token, place.logprob), "top_logprobs": top})
    return {"content": content, "refusal": None}


def _one(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    text = tokenizer.decode([token])
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _top(tokenizer: Tokenizer, place: TokenLogprobs, most: int) -> dict[str, float]:
    """The most probable tokens, by their texts; of tokens with equal texts (incomplete characters), the likeliest."""
    top: dict[str, float] = {}
    for token, logprob in place.top[: max(most, 1)]:
        top.setdefault(tokenizer.decode([token]), logprob)
    return top
