"""The preference losses, one function each.

With scores `s = log p - log p_ref` (`log p` alone where a loss has no reference; per token where it is normalised by
length), the reward of a response is `beta * s`, and the margin of a pair is the reward of the chosen response minus
that of the rejected one. A loss is a function of the margins. A test compares its value and gradient with TRL's.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from cai_base.arms import Arm
from cai_base.engines import Datum, Loss, LossValue
from cai_base.records import LossUsed, Reference
from cai_base.settings.schema import LOSSES, Dpo


def sigmoid(margins: Tensor, settings: Dpo) -> Tensor:
    """DPO: `-log sigmoid(margin)` (Rafailov et al., arXiv 2305.18290, equation 7)."""
    return -logsigmoid(margins)


def ipo(margins: Tensor, settings: Dpo) -> Tensor:
    """IPO: `(margin / beta - 1 / (2 beta))^2` (Azar et al., arXiv 2310.12036, equation 17), per token as in TRL."""
    return (margins / settings.beta - 1 / (2 * settings.beta)) ** 2


def simpo(margins: Tensor, settings: Dpo) -> Tensor:
    """SimPO: `-log sigmoid(margin - gamma)`, per token, no reference (Meng et al., arXiv 2405.14734, equation 6)."""
    return -logsigmoid(margins - settings.simpo_gamma)


FORMULAS: Mapping[str, Callable[[Tensor, Dpo], Tensor]] = {one.__name__: one for one in (sigmoid, ipo, simpo)}
"""The formula of every loss of `settings.schema.LOSSES`: from margins [pairs] and settings to losses [pairs]."""


def preference_loss(
    pairs: Sequence[tuple[Datum, Datum]],
    references: Sequence[Reference] | None,
    settings: Dpo,
    probabilities: Sequence[float] | None = None,
) -> Loss:
    """The loss of a batch of pairs, plus `nll_weight` times the mean NLL per token of the chosen responses.

    The margin of a pair is `beta` times the difference of its scores, chosen minus rejected. A score is the response's
    log-probability minus the reference's (DPO), both per token (IPO), or the log-probability alone per token (SimPO).
    Of a margin `m` the losses are `sigmoid`: `-log sigmoid(m)` (DPO; Rafailov et al., arXiv 2305.18290, equation 7);
    `ipo`: `(m / beta - 1 / (2 beta))^2` (Azar et al., arXiv 2310.12036, equation 17); `simpo`:
    `-log sigmoid(m - simpo_gamma)` (Meng et al., arXiv 2405.14734, equation 6).

    Args:
        pairs: chosen and rejected of every pair.
        references: the reference's log-probabilities of every pair; None for a loss that has no reference.
        settings: which loss, `beta`, `nll_weight` and the loss's own settings.
        probabilities: for each pair that the chosen response is better; None is 1 for all. A pair's loss is its mean
            over which of the two is better, `p * l(margin) + (1 - p) * l(-margin)`, for DPO that of cDPO (Mitchell
            2023, "A note on DPO with noisy preferences"). The NLL term stays on the chosen response.

    Returns:
        A function of the weighted log-probability sums of chosen and rejected, pair by pair, `[2 * pairs]` in nats. Its
        value is the mean over pairs; its metrics are means over the batch: `margin`, `accuracy` (share of pairs with a
        positive margin), `chosen_reward` and `rejected_reward`.
    """
    loss = LOSSES[settings.loss]
    lengths = torch.tensor([[float(sum(datum.weights)) for datum in pair] for pair in pairs])
    reference = torch.tensor([(one.chosen, one.rejected) for one in references or ()])

    certain = probabilities is None or all(one == 1 for one in probabilities)
    soft = None if certain else torch.tensor(probabilities)

    def value(logprobs: Tensor) -> LossValue:
        logprobs = logprobs.view(-1, 2)
        scores = logprobs - reference.to(logprobs.device) if references is not None else logprobs
        if loss.per_token:
            scores = scores / lengths.to(logprobs.device)
        rewards = settings.beta * scores
        margins = rewards[:, 0] - rewards[:, 1]
        of_pairs = FORMULAS[settings.loss](margins, settings)
        if soft is not None:
            better = soft.to(margins.device)
            of_pairs = better * of_pairs + (1 - better) * FORMULAS[settings.loss](-margins, settings)
        total = of_pairs.mean()
        if settings.nll_weight:
            total = total - settings.nll_weight * logprobs[:, 0].sum() / float(lengths[:, 0].sum())
        mean_rewards, detached = rewards.detach().mean(dim=0), margins.detach()
        metrics = {
            "margin": float(detached.mean()),
            "accuracy": float((detached > 0).float().mean()),
            "chosen_reward": float(mean_rewards[0]),
            "rejected_reward": float(mean_rewards[1]),
        }
        return LossValue(total, metrics)

    return value


def arm_loss(settings: Dpo, arm: Arm) -> LossUsed | None:
    """The loss that an arm is trained with, and its settings; None for an arm that is not trained here."""
    if arm.section is None:
        return None
    if arm.section != "dpo" or arm.chosen_only:
        return LossUsed(name="nll", settings={})
    names = ("beta", "nll_weight", *LOSSES[settings.loss].settings)
    return LossUsed(name=settings.loss, settings={name: float(getattr(settings, name)) for name in names})
