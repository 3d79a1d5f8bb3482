"""The engine seam: Tinker's own verbs over adapters.

An engine holds one frozen base model and any number of LoRA adapters. It knows adapters, not seeds, arms, principles or
runs. Every verb takes any subset of adapters in one call, so ten seeds train together and one that fails holds nobody.

What crosses the seam is flat: a `Datum` is tokens and one weight a token, and the one number an engine computes for
it is the **weighted sum of log-probabilities** `sum_i weights[i] * log p(tokens[i] | tokens[:i])`. Normalising is the
phase's business, inside its loss: a plain function from those sums to a scalar and metrics, called once an adapter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from cai_base.engines.errors import EngineError as EngineError

Adapter = str
"""A phase's own name for one adapter, such as `sft/0`. `None` in its place is the base model itself."""

Message = Mapping[str, str]
"""One message of a conversation: `role` is `user` or `assistant`, `content` its text."""


@dataclass(frozen=True, slots=True)
class Datum:
    """Tokens and, for each, the weight of its log-probability. The first token has nothing before it: its weight is 0.

    Raises:
        ValueError: the lengths differ, there are no tokens, or the first weight is not 0.
    """

    tokens: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.weights) or not self.tokens or self.weights[0] != 0:
            raise ValueError("a Datum needs one weight a token, at least one token, and weight 0 on the first")


@dataclass(frozen=True, slots=True)
class LossValue:
    """A scalar to differentiate, and numbers to log beside it."""

    loss: Tensor
    metrics: dict[str, float] = field(default_factory=dict)


Loss = Callable[[Tensor], LossValue]
"""From the weighted log-probability sums of one adapter's batch, shape `[sequences]`, to its loss."""


@dataclass(frozen=True, slots=True)
class LinearLoss:
    """The loss `-sum / divisor` in a form that an engine recognises: its gradient is known before any forward pass.

    A service that computes the sum of cross-entropies needs one pass for it, and two for a loss that it does not know.
    """

    divisor: float

    def __call__(self, logprobs: Tensor) -> LossValue:
        return LossValue(-logprobs.sum() / self.divisor)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one adapter learns from in one step."""

    sequences: Sequence[Datum]
    loss: Loss


@dataclass(frozen=True, slots=True)
class Step:
    """One adapter's forward and backward: its loss, the loss's metrics, and how many tokens its sequences have."""

    loss: float
    metrics: dict[str, float]
    tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """One adapter that cannot go on, and why. The others do."""

    reason: str


Outcome = Step | Failed


class Pending(Protocol):
    """The outcomes of a `forward_backward` that may still be under way."""

    def result(self) -> dict[Adapter, Outcome]:
        """Wait for, and return, every adapter's outcome."""
        ...


@dataclass(frozen=True, slots=True)
class Lora:
    """Shape of every adapter: rank, and alpha of the scale `alpha / rank`. All linear layers but the head have one."""

    rank: int
    alpha: float


@dataclass(frozen=True, slots=True)
class Adam:
    """One optimizer step, after clipping the adapter's gradient to `clip_norm` (Kingma and Ba, arXiv 1412.6980)."""

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 1.0


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One response to draw. `seed` alone decides the draw, whatever else is in the batch.

    Attributes:
        adapter: whose model answers; `None` is the base model.
        prompt: tokens to continue.
        max_tokens: at most this many are drawn.
        temperature: 0 takes the most probable token.
        stop: texts that end the response; neither they nor anything after them reaches it.
        seed: a non-negative integer.

    Raises:
        ValueError: there is nothing to continue or to draw, or a stop is empty.
    """

    adapter: Adapter | None
    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float
    stop: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        if not self.prompt or self.max_tokens < 1 or not all(self.stop):
            raise ValueError("a SampleRequest needs a prompt of at least one token, room for one, and no empty stop")


@dataclass(frozen=True, slots=True)
class Sample:
    """A response: its text up to the stop, the tokens as drawn (the stop's included), and what ended it."""

    text: str
    tokens: tuple[int, ...]
    stop_reason: Literal["stop", "length"]


@dataclass(slots=True)
class Usage:
    """Tokens that were worked on, as a service would count them: shared prefixes as often as they stand there.

    Attributes:
        trained: tokens that went forward and backward.
        prefilled: tokens read: prompts before sampling, and forward passes alone.
        sampled: tokens drawn.
    """

    trained: int = 0
    prefilled: int = 0
    sampled: int = 0

    def add(self, other: "Usage") -> None:
        """Count what `other` counted, too."""
        self.trained += other.trained
        self.prefilled += other.prefilled
        self.sampled += other.sampled


class Meter:
    """What an engine has worked on so far, by adapter (None is the base model).

    A request to a paid service counts when it is sent, with the most that it can take; its answer corrects the count.
    """

    def __init__(self) -> None:
        self.used: dict[Adapter | None, Usage] = {}
        self._listener: Callable[[], None] | None = None

    def tell(self, listener: Callable[[], None]) -> None:
        """From now on call `listener` whenever something is counted."""
        self._listener = listener

    def count(self, used: Mapping[Adapter | None, Usage]) -> None:
        """Add to the count; negative numbers correct what was counted too high."""
        for adapter, usage in used.items():
            self.used.setdefault(adapter, Usage()).add(usage)
        if self._listener is not None:
            self._listener()


def sampling_usage(requests: Sequence[SampleRequest], sampled: Sequence[int]) -> dict[Adapter | None, Usage]:
    """The usage of these requests, by adapter, when the i-th of them draws `sampled[i]` tokens."""
    usage: dict[Adapter | None, Usage] = {request.adapter: Usage() for request in requests}
    for request, tokens in zip(requests, sampled, strict=True):
        usage[request.adapter].add(Usage(prefilled=len(request.prompt), sampled=tokens))
    return usage


class Tokenizer(Protocol):
    """Text to tokens and back, special tokens apart."""

    bos: int | None
    """The token the model expects at the start of a text, where it expects one."""
    eos: frozenset[int]
    """Tokens that end a text."""

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`, no special token added."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, special tokens left out."""
        ...

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """A conversation in the model's own chat template, open for the assistant's reply.

        Raises:
            EngineError: there is no chat template, or it does not take these messages.
        """
        ...


class Engine(Protocol):
    """One frozen base model and its adapters. See the module's docstring for what crosses this seam.

    An engine raises `EngineError` where it cannot use the model, an adapter or an address, and `Stopped` where a
    service fails on the way.
    """

    meter: Meter
    """What this engine has worked on; the caller may replace it before the first call."""

    @property
    def model(self) -> str:
        """The base model's name, as the user gave it."""
        ...

    @property
    def context_length(self) -> int:
        """The longest sequence, in tokens."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The base model's tokenizer."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results should know about how this engine runs this model, one sentence each."""
        ...

    def findings(self) -> dict[str, Any]:
        """How this engine runs this model, as JSON. A resumed run restores it, or is refused.

        `model` is a hash of the base model, `notes` are the sentences of `notes`; the rest is the engine's own. An
        engine made with these findings runs the model in the same way from its first batch.
        """
        ...

    def create(self, adapters: Mapping[Adapter, int]) -> None:
        """Make fresh adapters, each initialised from its seed alone; B is zero, so each begins as the base model."""
        ...

    def copy(self, sources: Mapping[Adapter, Adapter]) -> None:
        """Make new adapters, each with the weights of an existing one and a fresh optimizer.

        It is what `save` and `load` without `optimizer` do, without a directory: the copy trains apart from its source.

        Args:
            sources: for each new adapter the existing one, such as `{"dpo/0": "sft/0"}`.
        """
        ...

    def forward_backward(self, batches: Mapping[Adapter, Batch]) -> Pending:
        """Begin one forward and backward for each adapter; gradients add up until `optim_step`."""
        ...

    def optim_step(self, adapters: Sequence[Adapter], adam: Adam) -> dict[Adapter, Failed]:
        """Clip and apply the accumulated gradients. An adapter that failed before is left as it is.

        Returns:
            The adapters that failed in this step. Weights that are no longer finite are never stored as trained.
        """
        ...

    def compute_logprobs(
        self, sequences: Mapping[Adapter | None, Sequence[Datum]]
    ) -> dict[Adapter | None, list[float]]:
        """The weighted log-probability sum of every sequence, under each adapter."""
        ...

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        """One response a request, in order."""
        ...

    def save(self, directories: Mapping[Adapter, Path]) -> None:
        """Store each adapter's training state (weights and optimizer) so that `load` restores it exactly."""
        ...

    def load(self, directories: Mapping[Adapter, Path], *, optimizer: bool) -> None:
        """Make adapters from stored states; without `optimizer`, only the weights, with a fresh optimizer.

        Raises:
            EngineError: a state is no longer there, or is not one of this model and shape.
        """
        ...

    def export(self, directories: Mapping[Adapter, Path]) -> None:
        """Write each adapter as a PEFT adapter."""
        ...

    def fingerprint(self, adapter: Adapter) -> str:
        """A hash of the base model and the adapter's present weights."""
        ...

    def remove(self, adapters: Sequence[Adapter]) -> None:
        """Drop adapters that are no longer needed."""
        ...
