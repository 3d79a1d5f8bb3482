"""What an engine trains on, and what comes of a step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cai_base.engines.errors import EngineError

if TYPE_CHECKING:  # torch takes seconds to load, and most who name these types never train
    from torch import Tensor

Adapter = str
"""The caller's name for one adapter, such as `sft/0`. Where `None` is allowed, it stands for the base model."""


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
    """What a loss returns.

    Attributes:
        loss: the scalar tensor to differentiate.
        metrics: numbers to log with it.
    """

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
    """What one adapter is trained on in one step.

    Attributes:
        sequences: in the order in which the loss takes their sums.
        loss: a function from the weighted log-probability sums of the sequences, `[sequences]` in fp32 and nats, to a
            `LossValue`.
    """

    sequences: Sequence[Datum]
    loss: Loss


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one adapter's forward and backward pass.

    Attributes:
        loss: the value of the batch's loss.
        metrics: those that the loss returned.
        tokens: the number of tokens in the batch, those of weight 0 included.
    """

    loss: float
    metrics: dict[str, float]
    tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """An adapter that can no longer be trained.

    Attributes:
        reason: a sentence: a loss, gradient or weight is not finite.
    """

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

    Raises:
        UserError: (an `EngineError`) the rank is not a whole number of at least 1, or alpha is not finite.
    """

    rank: int
    alpha: float

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or self.rank < 1:
            raise EngineError("rank", self.rank, "is not a whole number of at least 1", "give one, such as 16")
        if not math.isfinite(self.alpha):
            raise EngineError("alpha", self.alpha, "is not a finite number", "give one, such as the rank")


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
