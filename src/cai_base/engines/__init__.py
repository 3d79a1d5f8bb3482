"""The engine interface: Tinker's verbs over adapters.

An engine holds one frozen base model and any number of LoRA adapters. It knows adapters, not seeds, arms, principles or
runs. Every verb takes any subset of adapters in one call, so ten seeds train together; an adapter that fails does not
stop the others.

A `Datum` is a sequence of tokens with one weight per token. An engine computes one number for it, the **weighted sum of
log-probabilities** `sum_i weights[i] * log p(tokens[i] | tokens[:i])`, in nats. It does not normalise: a phase does so
in its loss, a plain function from the sums of a batch to a scalar and metrics, which is called once per adapter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from cai_base.engines.errors import EngineError as EngineError
from cai_base.engines.samples import Message as Message
from cai_base.engines.samples import Sample as Sample
from cai_base.engines.samples import SampleListener as SampleListener
from cai_base.engines.samples import SampleRequest as SampleRequest
from cai_base.engines.samples import Tokenizer as Tokenizer
from cai_base.engines.samples import TokenLogprobs as TokenLogprobs
from cai_base.engines.training import Adam as Adam
from cai_base.engines.training import Adapter as Adapter
from cai_base.engines.training import Batch as Batch
from cai_base.engines.training import Datum as Datum
from cai_base.engines.training import Failed as Failed
from cai_base.engines.training import LinearLoss as LinearLoss
from cai_base.engines.training import Lora as Lora
from cai_base.engines.training import Loss as Loss
from cai_base.engines.training import LossValue as LossValue
from cai_base.engines.training import Outcome as Outcome
from cai_base.engines.training import Pending as Pending
from cai_base.engines.training import Step as Step
from cai_base.engines.usage import Meter as Meter
from cai_base.engines.usage import Usage as Usage
from cai_base.engines.usage import sampling_usage as sampling_usage

AUTO = "auto"
"""The `EngineSpec.dtype` that leaves the choice to the engine."""


class Findings(BaseModel):
    """What an engine knows about its model, which a run stores; an engine may add fields of its own.

    Attributes:
        model: a hash of the base model.
        notes: the sentences of `Engine.notes`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    model: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an engine is constructed from. An engine reads the fields that concern it.

    Attributes:
        model: folder or hub id of the model's files, or its name on a service.
        name: the model's name, as the user gave it.
        longest: tokens of the longest sequence that it will process.
        lora: rank and alpha of the adapters to train; None if the model is not trained.
        adapters: how many adapters are trained together.
        adapter: folder of a PEFT adapter that will be loaded, with its shape; None for no such adapter.
        tokenizer: folder of the tokenizer; None for the model's own.
        findings: the stored findings of a resumed run's engine about the model.
        thinking: False switches its thinking off, if its chat template has a switch.
        threads: CPU threads of an engine in this process; 0 leaves the choice to PyTorch.
        dtype: in which it computes in this process: `float32`, `bfloat16`, or `auto`, which is bfloat16 on CUDA and
            float32 on a CPU.
        url: the address of the service; None for its default.
        timeout: seconds without any reply from a service after which a wait ends with `Stopped`.
        say: shows a line of text to the user.
    """

    model: str
    name: str
    longest: int
    lora: Lora | None = None
    adapter: Path | None = None
    tokenizer: Path | None = None
    findings: Findings | None = None
    thinking: bool = True
    threads: int = 0
    url: str | None = None
    timeout: float = 1800.0
    say: Callable[[str], None] = print
    adapters: int = 1
    dtype: str = AUTO


class Engine(Protocol):
    """One frozen base model and any number of LoRA adapters on it, each with its own Adam state.

    The verbs are Tinker's. Each takes any subset of the adapters in one call, so that several seeds train together; N
    adapters in one call give what each gives alone. For every sequence (`Datum`) the engine computes the weighted sum
    of log-probabilities `sum_i weights[i] * log p(tokens[i] | tokens[:i])`, in nats, and never normalises it.

    Every verb raises `UserError` (as an `EngineError`) if the model, an adapter or an address cannot be used, and
    `Stopped` if a service fails while it works (the run can then be resumed). An adapter whose loss, gradient or
    weights are no longer finite is reported as `Failed`; the others go on.
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
            For each adapter one sum per sequence, in order: `sum_i weights[i] * log p(tokens[i] | tokens[:i])` in nats,
            which is the log-probability of the response for a `trained_datum`.
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
            UserError: (an `EngineError`) a state no longer exists, or belongs to another model or to adapters of
                another shape.
        """
        ...

    def export(self, directories: Mapping[Adapter, Path]) -> None:
        """Write each adapter in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

        Args:
            directories: for each adapter the directory to write; it is created if it does not exist.
        """
        ...

    def fingerprint(self, adapter: Adapter) -> str:
        """A SHA-256 hash, in hexadecimal, that identifies the base model and the adapter's current weights."""
        ...

    def remove(self, adapters: Sequence[Adapter]) -> None:
        """Delete adapters from memory. What `save` and `export` wrote stays."""
        ...
