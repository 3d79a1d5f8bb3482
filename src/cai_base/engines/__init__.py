"""The engine interface: Tinker's verbs over adapters.

An engine holds one frozen base model and any number of LoRA adapters. It knows adapters, not seeds, arms, principles or
runs. Every verb takes any subset of adapters in one call, so ten seeds train together; an adapter that fails does not
stop the others.

A `Datum` is a sequence of tokens with one weight per token. An engine computes one number for it, the **weighted sum of
log-probabilities** `sum_i weights[i] * log p(tokens[i] | tokens[:i])`, in nats. It does not normalise: a phase does so
in its loss, a plain function from the sums of a batch to a scalar and metrics, which is called once per adapter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from cai_base.engines.errors import EngineError as EngineError

if TYPE_CHECKING:  # torch takes seconds, and what only reads a run needs none of it
    from torch import Tensor

Adapter = str
"""The caller's name for one adapter, such as `sft/0`. Where `None` is allowed, it stands for the base model."""

Message = Mapping[str, str]
"""One message of a conversation: `role` is `user` or `assistant`, `content` is its text."""


@dataclass(frozen=True, slots=True)
class Datum:
    """One training sequence: tokens, and the weight of each token's log-probability. Tinker's word for it.

    Attributes:
        tokens: `[length]`, at least one.
        weights: `[length]`, of any sign. The first token is predicted by nothing, so its weight must be 0.

    Raises:
        ValueError: the lengths differ, there are no tokens, or the first weight is not 0.
    """

    tokens: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.weights) or not self.tokens or self.weights[0] != 0:
            raise ValueError("a Datum needs one weight per token, at least one token, and weight 0 on the first")


@dataclass(frozen=True, slots=True)
class LossValue:
    """What a loss returns: a scalar tensor to differentiate, and metrics to log with it."""

    loss: "Tensor"
    metrics: dict[str, float] = field(default_factory=dict)


Loss = Callable[["Tensor"], LossValue]
"""A function from the weighted log-probability sums of one adapter's batch, `[sequences]` in fp32, to its loss."""


@dataclass(frozen=True, slots=True)
class LinearLoss:
    """The loss `-logprobs.sum() / divisor`, in a form that an engine can recognise.

    Its gradient with respect to the sums is constant. A Tinker service therefore computes it in one pass, as a
    cross-entropy; any other loss takes a forward pass first.
    """

    divisor: float

    def __call__(self, logprobs: "Tensor") -> LossValue:
        return LossValue(-logprobs.sum() / self.divisor)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one adapter is trained on in one step: its sequences, and the loss that takes their sums in this order."""

    sequences: Sequence[Datum]
    loss: Loss


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one adapter's forward and backward pass: loss, metrics, and the number of tokens in its batch."""

    loss: float
    metrics: dict[str, float]
    tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """An adapter that can no longer be trained, and why: a loss, gradient or weight is not finite."""

    reason: str


Outcome = Step | Failed


class Pending(Protocol):
    """The outcomes of a `forward_backward` call that may still be running."""

    def result(self) -> dict[Adapter, Outcome]:
        """Wait for every adapter's outcome.

        Returns:
            `Step` or `Failed` for each adapter of the call.

        Raises:
            Stopped: the service failed; the run can be resumed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Lora:
    """The shape of an engine's adapters (Hu et al., arXiv 2106.09685). All linear layers except the head are adapted.

    Attributes:
        rank: of every layer's matrices A `[in, rank]` and B `[rank, out]`.
        alpha: an adapted layer adds `alpha / rank * (x @ A @ B)` to its output.
    """

    rank: int
    alpha: float


@dataclass(frozen=True, slots=True)
class Adam:
    """Settings of one Adam step (Kingma and Ba, arXiv 1412.6980).

    Attributes:
        learning_rate: of this step; schedules are the caller's.
        beta1, beta2, eps: as in the paper.
        clip_norm: the largest L2 norm of an adapter's whole gradient; a larger gradient is scaled down to it first.
    """

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 1.0


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """A request for one response. The draw depends on `seed` alone, not on what else is sampled in the same call.

    Attributes:
        adapter: the adapter to sample from; `None` is the base model.
        prompt: the tokens to continue, at least one.
        max_tokens: the largest number of tokens to sample, at least one.
        temperature: divides the logits; 0 takes the most probable token.
        stop: strings that end the response; the response is cut before the first of them.
        seed: a non-negative integer.

    Raises:
        ValueError: the prompt is empty, `max_tokens` is below 1, or a stop string is empty.
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


@dataclass(slots=True)
class Usage:
    """Numbers of tokens processed, counted as a service bills them: a shared prefix counts once per sequence.

    Attributes:
        trained: tokens of forward and backward passes.
        prefilled: tokens of prompts, and of forward passes without a backward pass.
        sampled: tokens generated.
    """

    trained: int = 0
    prefilled: int = 0
    sampled: int = 0

    def add(self, other: "Usage") -> None:
        """Add the counts of `other` to this one."""
        self.trained += other.trained
        self.prefilled += other.prefilled
        self.sampled += other.sampled


class Meter:
    """Counts what an engine has processed so far, by adapter (None is the base model).

    A request to a service is counted when it is sent, at the most that it can use; the reply corrects the count.
    """

    def __init__(self) -> None:
        self.used: dict[Adapter | None, Usage] = {}
        self._listener: Callable[[], None] | None = None

    def tell(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every later change of the count."""
        self._listener = listener

    def count(self, used: Mapping[Adapter | None, Usage]) -> None:
        """Add to the count; a negative number corrects a count that was too high."""
        for adapter, usage in used.items():
            self.used.setdefault(adapter, Usage()).add(usage)
        if self._listener is not None:
            self._listener()


def sampling_usage(requests: Sequence[SampleRequest], sampled: Sequence[int]) -> dict[Adapter | None, Usage]:
    """The usage of these requests by adapter, if request `i` generates `sampled[i]` tokens."""
    usage: dict[Adapter | None, Usage] = {request.adapter: Usage() for request in requests}
    for request, tokens in zip(requests, sampled, strict=True):
        usage[request.adapter].add(Usage(prefilled=len(request.prompt), sampled=tokens))
    return usage


class Tokenizer(Protocol):
    """Text to tokens and back, without special tokens."""

    bos: int | None
    """The token that the tokenizer puts before every text; None if it puts none."""
    eos: frozenset[int]
    """The tokens that end a text."""

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


class Findings(BaseModel):
    """What an engine knows about its model, which a run stores; an engine may add fields of its own.

    Attributes:
        model: a hash of the base model.
        notes: the sentences of `Engine.notes`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    model: str
    notes: tuple[str, ...] = ()


class Engine(Protocol):
    """One frozen base model and any number of LoRA adapters on it, each with its own Adam state.

    The verbs are Tinker's. Each takes any subset of the adapters in one call, so that several seeds train together; N
    adapters in one call give what each gives alone. For every sequence (`Datum`) the engine computes the weighted sum
    of log-probabilities `sum_i weights[i] * log p(tokens[i] | tokens[:i])`, in nats, and never normalises it.

    Every verb raises `EngineError` if the model, an adapter or an address cannot be used, and `Stopped` if a service
    fails while it works (the run can then be resumed). An adapter whose loss, gradient or weights are no longer finite
    is reported as `Failed`; the others go on.
    """

    meter: Meter
    """Counts the tokens this engine has processed. The caller may replace it before the first call."""

    @property
    def model(self) -> str:
        """The name of the base model, as the user gave it."""
        ...

    @property
    def context_length(self) -> int:
        """The length of the longest sequence that the model takes, in tokens."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the base model."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about how this engine runs the model that a reader of the results should know."""
        ...

    @property
    def device(self) -> str:
        """Where this engine computes, for readers: the name of the processor, or of the service."""
        ...

    def findings(self) -> Findings:
        """What the engine determined about this model, such as whether packing is valid.

        An engine that is constructed with these findings runs the model in the same way from its first batch. A resumed
        run stores and restores them, or is refused if the model has changed.
        """
        ...

    def create(self, adapters: Mapping[Adapter, int]) -> None:
        """Create new adapters, each with a fresh optimizer. B is zero, so each one starts as the base model.

        Args:
            adapters: for each new adapter the seed from which its A is initialised; nothing else affects it.
        """
        ...

    def copy(self, sources: Mapping[Adapter, Adapter]) -> None:
        """Create new adapters with the weights of existing ones, and fresh optimizers.

        The same as `save` followed by `load` without `optimizer`, without files. Source and copy share no state.

        Args:
            sources: for each new adapter the existing one, such as `{"dpo/0": "sft/0"}`.
        """
        ...

    def forward_backward(self, batches: Mapping[Adapter, Batch]) -> Pending:
        """Start one forward and backward pass for each adapter, and add the gradients to those since `optim_step`.

        Args:
            batches: for each adapter its sequences, of any number and lengths, and its loss. The loss receives the
                weighted log-probability sums of the sequences as a tensor `[sequences]` in fp32.

        Returns:
            A handle; its `result()` waits, and gives each adapter's `Step` (loss, metrics, tokens) or `Failed`.
        """
        ...

    def optim_step(self, adapters: Sequence[Adapter], adam: Adam) -> dict[Adapter, Failed]:
        """Clip each adapter's accumulated gradient to `adam.clip_norm`, apply one Adam step, and clear the gradient.

        An adapter that failed earlier is skipped.

        Returns:
            The adapters that failed in this step, because a gradient or the new weights are not finite.
        """
        ...

    def compute_logprobs(
        self, sequences: Mapping[Adapter | None, Sequence[Datum]]
    ) -> dict[Adapter | None, list[float]]:
        """The weighted log-probability sums of sequences, without gradients.

        Args:
            sequences: for each adapter (None is the base model) the sequences to score.

        Returns:
            For each adapter one sum per sequence, in order: `sum_i weights[i] * log p(tokens[i] | tokens[:i])` in nats.
        """
        ...

    def sample(self, requests: Sequence[SampleRequest], listener: SampleListener | None = None) -> list[Sample]:
        """Sample one response per request.

        Args:
            requests: for any adapters, in any order; they are sampled together.
            listener: called after each token; a service that returns whole responses calls it once per response.

        Returns:
            The responses, in the order of the requests. The text ends before the stop string or end token; the tokens
            include it.
        """
        ...

    def save(self, directories: Mapping[Adapter, Path]) -> None:
        """Store each adapter's training state (weights and optimizer), from which `load` restores it exactly.

        Args:
            directories: for each adapter the directory to write; it is created if it does not exist. A service stores
                the state itself, and the directory then holds a reference to it.
        """
        ...

    def load(self, directories: Mapping[Adapter, Path], *, optimizer: bool) -> None:
        """Create adapters from states that `save` stored.

        Args:
            directories: for each adapter the directory to read.
            optimizer: True restores the optimizer too; False restores the weights alone, with a fresh optimizer.

        Raises:
            EngineError: a state no longer exists, or belongs to another model or to adapters of another shape.
        """
        ...

    def export(self, directories: Mapping[Adapter, Path]) -> None:
        """Write each adapter in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`."""
        ...

    def fingerprint(self, adapter: Adapter) -> str:
        """A SHA-256 hash, in hexadecimal, that identifies the base model and the adapter's current weights."""
        ...

    def remove(self, adapters: Sequence[Adapter]) -> None:
        """Delete adapters from memory. What `save` and `export` wrote stays."""
        ...
