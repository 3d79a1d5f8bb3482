"""Forward and backward through a Tinker service: what is sent for one adapter's batch, and what comes back of it."""

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
    """One adapter on the service: its client, where its present weights are kept and sampled from, why it failed."""

    client: Any
    kept: str | None = None
    sampler: Any = None
    sent: Answer[Any] | None = None
    failed: str | None = None

    def changed(self) -> None:
        """Its weights are about to change."""
        self.kept = self.sampler = None


class _Guarded:
    """A phase's loss as the SDK calls it. A loss that is not finite becomes a zero gradient and a reason."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.value: LossValue | None = None

    def __call__(self, data: list[Any], logprobs: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
        self.value = self._batch.loss(weighted_sums(self._batch.sequences, logprobs))
        if torch.isfinite(self.value.loss):
            return self.value.loss, {}
        return sum((one * 0).sum() for one in logprobs), {}  # type: ignore[return-value]  # a raise would end the client


class Flight:
    """The outcomes of requests that are on their way."""

    def __init__(self, service: Service, batches: Mapping[Adapter, Batch]) -> None:
        self._service, self._batches = service, batches
        self._sent: dict[Adapter, tuple[Trainee, _Guarded | None, Answer[Any]]] = {}
        self._failed: dict[Adapter, Outcome] = {}

    def send(self, name: Adapter, adapter: Trainee) -> None:
        """Begin one adapter's forward and backward, unless it has failed."""
        if adapter.failed is not None:
            self._failed[name] = Failed(adapter.failed)
            return
        batch = self._batches[name]
        if isinstance(batch.loss, LinearLoss):  # the service's cross-entropy is this sum, in one pass instead of two
            guarded = None
            adapter.sent = adapter.client.forward_backward(datums(batch.sequences, batch.loss.divisor), "cross_entropy")
        else:
            guarded = _Guarded(batch)
            adapter.sent = adapter.client.forward_backward_custom(datums(batch.sequences), guarded)
        self._sent[name] = adapter, guarded, adapter.sent

    def result(self) -> dict[Adapter, Outcome]:
        answers = self._service.wait("gradients", [answer for _, _, answer in self._sent.values()])
        outcomes: dict[Adapter, Outcome] = {}
        for (name, (adapter, guarded, _)), output in zip(self._sent.items(), answers, strict=True):
            batch = self._batches[name]
            value = guarded.value if guarded else batch.loss(weighted_sums(batch.sequences, each_logprob(output)))
            assert value is not None
            loss = float(value.loss.detach())
            if not math.isfinite(loss):
                adapter.failed = f"the loss is {loss}"
            step = Step(loss, value.metrics, token_count(batch.sequences))
            outcomes[name] = Failed(adapter.failed) if adapter.failed else step
        return {name: outcomes.get(name) or self._failed[name] for name in self._batches}


def datums(sequences: Sequence[Datum], divisor: float = 1.0) -> list[Any]:
    """Sequences as the API takes them: each position's token, the next one as its target, and that one's weight."""
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
    """What a batch's forward and backward take; a loss that is computed here takes a forward pass of its own before."""
    tokens = token_count(batch.sequences)
    return Usage(trained=tokens, prefilled=0 if isinstance(batch.loss, LinearLoss) else tokens)


def token_count(sequences: Sequence[Datum]) -> int:
    """Tokens of all sequences together."""
    return sum(len(sequence.tokens) for sequence in sequences)


def each_logprob(output: Any) -> list[Tensor]:
    """Each sequence's log-probabilities, from its second token on."""
    return [one["logprobs"].to_torch() for one in output.loss_fn_outputs]


def weighted_sums(sequences: Sequence[Datum], logprobs: Sequence[Tensor]) -> Tensor:
    """Weighted sums `[sequences]`. What has no weight is left out, so that an infinity there is not a nan here."""
    sums = []
    for sequence, values in zip(sequences, logprobs, strict=True):
        weights = torch.tensor(sequence.weights[1:])
        sums.append((values[weights != 0] * weights[weights != 0]).sum())
    return torch.stack(sums)
