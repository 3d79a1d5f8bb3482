"""Forward and backward passes on a Tinker service: the request for one adapter's batch, and its reply."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai_base.engines import Adapter, Batch, Datum, Failed, LinearLoss, LossValue, Outcome, Step, Usage
from cai_base.engines.tinker.service import Answer, Service, sdk


@dataclass(slots=True)
class Trainee:
    """One adapter on the service.

    Attributes:
        client: its training client.
        checkpoint: the service's path of its current state; None if that is not stored.
        sampler: a sampling client for its current weights; None if there is none yet.
        gradient: the pending reply to its latest forward and backward pass.
        failed: why it can no longer be trained; None if it can.
    """

    client: Any
    checkpoint: str | None = None
    sampler: Any = None
    gradient: Answer[Any] | None = None
    failed: str | None = None

    def changed(self) -> None:
        """Forget the checkpoint and the sampling client, because the weights are about to change."""
        self.checkpoint = self.sampler = None


class _GuardedLoss:
    """A phase's loss, as the SDK calls it. A loss that is not finite gives a zero gradient, and fails the adapter."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.value: LossValue | None = None

    def __call__(self, data: list[Any], logprobs: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
        self.value = self._batch.loss(weighted_sums(self._batch.sequences, logprobs))
        if torch.isfinite(self.value.loss):
            return self.value.loss, {}
        return sum((one * 0).sum() for one in logprobs), {}  # type: ignore[return-value]  # an exception would end the client


class Flight:
    """The outcomes of a `forward_backward` call whose requests are pending."""

    def __init__(self, service: Service, batches: Mapping[Adapter, Batch]) -> None:
        self._service, self._batches = service, batches
        self._sent: dict[Adapter, tuple[Trainee, _GuardedLoss | None, Answer[Any]]] = {}
        self._failed: dict[Adapter, Outcome] = {}

    def send(self, name: Adapter, adapter: Trainee) -> None:
        """Send one adapter's forward and backward pass, unless the adapter has failed."""
        if adapter.failed is not None:
            self._failed[name] = Failed(adapter.failed)
            return
        batch = self._batches[name]
        if isinstance(batch.loss, LinearLoss):  # the service's own cross-entropy computes it in one pass
            guarded = None
            adapter.gradient = adapter.client.forward_backward(
                datums(batch.sequences, batch.loss.divisor), "cross_entropy"
            )
        else:
            guarded = _GuardedLoss(batch)
            adapter.gradient = adapter.client.forward_backward_custom(datums(batch.sequences), guarded)
        self._sent[name] = adapter, guarded, adapter.gradient

    def result(self) -> dict[Adapter, Outcome]:
        answers = self._service.wait("gradients", [answer for _, _, answer in self._sent.values()])
        outcomes: dict[Adapter, Outcome] = {}
        for (name, (adapter, guarded, _)), output in zip(self._sent.items(), answers, strict=True):
            batch = self._batches[name]
            value = guarded.value if guarded else batch.loss(weighted_sums(batch.sequences, token_logprobs(output)))
            assert value is not None
            loss = float(value.loss.detach())
            if not math.isfinite(loss):
                adapter.failed = f"the loss is {loss}"
            step = Step(loss, value.metrics, token_count(batch.sequences))
            outcomes[name] = Failed(adapter.failed) if adapter.failed else step
        return {name: outcomes.get(name) or self._failed[name] for name in self._batches}


def datums(sequences: Sequence[Datum], divisor: float = 1.0) -> list[Any]:
    """Sequences in the API's form: for each position its token, the next token as target, and that target's weight."""
    tinker = sdk()
    return [
        tinker.Datum(
            model_input=tinker.ModelInput.from_ints(list(one.tokens[:-1])),
            loss_fn_inputs={
                "target_tokens": list(one.tokens[1:]),
                "weights": [weight / divisor for weight in one.weights[1:]],
            },
        )
        for one in sequences
    ]


def passes(batch: Batch) -> Usage:
    """The usage of one batch; a loss that is computed on this machine needs a forward pass first."""
    tokens = token_count(batch.sequences)
    return Usage(trained=tokens, prefilled=0 if isinstance(batch.loss, LinearLoss) else tokens)


def token_count(sequences: Sequence[Datum]) -> int:
    """The number of tokens of all sequences together."""
    return sum(len(sequence.tokens) for sequence in sequences)


def token_logprobs(output: Any) -> list[Tensor]:
    """The log-probabilities `[length - 1]` of each sequence, from its second token on."""
    return [one["logprobs"].to_torch() for one in output.loss_fn_outputs]


def weighted_sums(sequences: Sequence[Datum], logprobs: Sequence[Tensor]) -> Tensor:
    """Weighted sums `[sequences]`. Tokens of weight 0 are left out, because 0 times infinity would be nan."""
    sums = []
    for sequence, values in zip(sequences, logprobs, strict=True):
        weights = torch.tensor(sequence.weights[1:])
        sums.append((values[weights != 0] * weights[weights != 0]).sum())
    return torch.stack(sums)
