"""Phase 3: direct preference optimisation of the revisions over the originals (Rafailov et al., arXiv 2305.18290).

The policy starts from the SFT adapter. The reference is the policy before its first update: its log-probabilities are
computed once a pair, by the same forward passes over the same batches as the first epoch of training, so the margin
before the first update is exactly 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from cai_base.dialogue import Dialogue
from cai_base.engines import Batch, Datum, Loss, LossValue, Tokenizer
from cai_base.method.training import positions, trained_sequence
from cai_base.store import Record


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference pair, tokenised behind its prompt."""

    id: str
    chosen: Datum
    rejected: Datum


@dataclass(frozen=True, slots=True)
class Reference:
    """The reference's log-probability of both responses of a pair."""

    chosen: float
    rejected: float


def tokenised(tokenizer: Tokenizer, dialogue: Dialogue, records: Sequence[Record]) -> list[Pair]:
    """Pairs from the records of `pairs.jsonl`; the end of the response is part of both sides."""
    return [
        Pair(
            r["id"],
            trained_sequence(tokenizer, dialogue, r["prompt"], r["chosen"]),
            trained_sequence(tokenizer, dialogue, r["prompt"], r["rejected"]),
        )
        for r in records
    ]


def sequences(pairs: Sequence[Pair]) -> list[Datum]:
    """Chosen and rejected of every pair, side by side: the order in which `dpo_loss` takes their log-probabilities."""
    return [sequence for pair in pairs for sequence in (pair.chosen, pair.rejected)]


def dpo_loss(pairs: Sequence[Pair], references: Sequence[Reference], beta: float, nll_weight: float = 0.0) -> Loss:
    """The DPO loss of a batch (their equation 7), plus `nll_weight` times the NLL a token of the chosen responses.

    With rewards `beta * (log p - log p_ref)` the loss is the mean of `-log sigmoid(chosen reward - rejected reward)`.
    The metrics are means over the batch: margin (of rewards), accuracy (share of pairs with a positive margin), and
    both rewards.
    """
    reference = torch.tensor([(r.chosen, r.rejected) for r in references])
    tokens = sum(weight for pair in pairs for weight in pair.chosen.weights)

    def loss(logprobs: Tensor) -> LossValue:
        logprobs = logprobs.view(-1, 2)
        rewards = beta * (logprobs - reference.to(logprobs.device))
        margin = rewards[:, 0] - rewards[:, 1]
        value = -logsigmoid(margin).mean()
        if nll_weight:
            value = value - nll_weight * logprobs[:, 0].sum() / tokens
        seen, margins = rewards.detach().mean(dim=0), margin.detach()
        metrics = {
            "margin": float(margins.mean()),
            "accuracy": float((margins > 0).float().mean()),
            "chosen_reward": float(seen[0]),
            "rejected_reward": float(seen[1]),
        }
        return LossValue(value, metrics)

    return loss


def batch_pairs(pairs: Sequence[Pair], seed: int, step: int, size: int) -> list[Pair]:
    """The pairs of a step."""
    return [pairs[i] for i in positions(len(pairs), seed, "dpo", step, size)]


def batch(
    pairs: Sequence[Pair],
    references: dict[str, Reference],
    seed: int,
    step: int,
    size: int,
    beta: float,
    nll_weight: float,
) -> Batch:
    """The batch of a step."""
    drawn = batch_pairs(pairs, seed, step, size)
    return Batch(sequences(drawn), dpo_loss(drawn, [references[pair.id] for pair in drawn], beta, nll_weight))


def reference_batches(pairs: Sequence[Pair], seed: int, size: int) -> list[list[Pair]]:
    """The batches of the first epoch of training, which hold every pair at least once."""
    return [batch_pairs(pairs, seed, step, size) for step in range(-(-len(pairs) // size))]


def references(pairs: Sequence[Pair], logprobs: Sequence[float]) -> dict[str, Reference]:
    """The references of these pairs from the log-probabilities of `sequences(pairs)`."""
    return {pair.id: Reference(*logprobs[2 * i : 2 * i + 2]) for i, pair in enumerate(pairs)}


def accuracy(pairs: Sequence[Pair], logprobs: Sequence[float], known: Mapping[str, Reference]) -> float:
    """The share of pairs whose margin is positive, from the policy's log-probabilities of `sequences(pairs)`."""
    right = 0
    for name, policy in references(pairs, logprobs).items():
        reference = known[name]
        right += policy.chosen - reference.chosen > policy.rejected - reference.rejected
    return right / len(pairs)
