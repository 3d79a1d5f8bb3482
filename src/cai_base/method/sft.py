"""Phase 1: SFT on a handful of human-written answers, each behind a few-shot prefix (Bai et al. 2022, section 3.1).

The helpful-only assistant that this makes is where every other arm starts. SFT on revisions (`sl-cai`, the paper's
supervised stage) is the same loss on other answers, so it stands here too.
"""

from collections.abc import Sequence

from cai_base.engines import Batch, Datum, LinearLoss, Loss
from cai_base.method.training import positions


def nll_loss(sequences: Sequence[Datum]) -> Loss:
    """Negative log-likelihood a trained token, averaged over all trained tokens of the batch."""
    return LinearLoss(sum(weight for sequence in sequences for weight in sequence.weights))


def batch(examples: Sequence[Datum], seed: int, phase: str, step: int, size: int) -> Batch:
    """The batch of a step: epochs of all examples, each in its own order, laid end to end and cut into batches."""
    sequences = [examples[i] for i in positions(len(examples), seed, phase, step, size)]
    return Batch(sequences, nll_loss(sequences))
