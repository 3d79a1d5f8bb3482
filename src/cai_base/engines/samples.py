"""What an engine samples: requests and responses, and the tokens that they are made of."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cai_base.engines.training import Adapter

Message = Mapping[str, str]
"""One message of a conversation: `role` is `user` or `assistant`, `content` is its text."""


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """A request for one response. The draw depends on `seed` alone, not on what else is sampled in the same call.

    Attributes:
        adapter: the adapter to sample from; `None` is the base model.
        prompt: the tokens to continue, at least one.
        max_tokens: the largest number of tokens to sample, at least one.
        temperature: divides the logits; 0 takes the most probable token.
        stop: strings that end the response; the response is cut before the first of them.
        seed: a whole number.

    Raises:
        ValueError: the prompt or a stop string is empty, `max_tokens` is below 1, or the temperature is negative.
    """

    adapter: Adapter | None
    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float
    stop: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        if not self.prompt or self.max_tokens < 1 or isinstance(self.stop, str) or not all(self.stop):
            raise ValueError("a SampleRequest needs a prompt of at least one token, room for one, and a tuple of stops")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"the temperature of a SampleRequest is {self.temperature}; it must be 0 or more")


@dataclass(frozen=True, slots=True)
class Sample:
    """A sampled response.

    Attributes:
        text: the response, up to the stop string or the end token.
        tokens: all sampled tokens, those of the stop string or the end token included.
        stop_reason: `stop` if a stop string or the model's end token ended it, `length` if `max_tokens` did.
    """

    text: str
    tokens: tuple[int, ...]
    stop_reason: Literal["stop", "length"]


SampleListener = Callable[[int, tuple[int, ...]], None]
"""Hears of every token that is drawn: the number of the request among those of its call, and its tokens so far."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log-probability of one token of a text, and the most probable tokens at its place with theirs."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Tokenizer(Protocol):
    """Text to tokens and back, without special tokens: `engine.tokenizer`.

    A token is its number in the model's vocabulary.

    Attributes:
        bos: the tokens that the tokenizer puts before every text; most put one or none, GLM-4's two.
        eos: the tokens that end a text.
    """

    bos: tuple[int, ...]
    eos: frozenset[int]

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`; no special token is added, and none that `text` spells out is recognised."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, without special tokens."""
        ...

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a conversation in the model's chat template, ready for the assistant's next reply.

        Raises:
            EngineError: there is no chat template, or it does not accept these messages.
        """
        ...

    def chat_answer(self, messages: Sequence[Message], answer: str) -> tuple[list[int], list[int]]:
        """The tokens of `chat` and those of the answer behind them, without its end, from one whole text."""
        ...

    def end_turns(self) -> None:
        """Have the token with which the chat template ends an assistant's turn end a text from now on."""
        ...
