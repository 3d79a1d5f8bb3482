"""The settings of what is trained: adapters, optimizer steps, and the preference losses."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import CliImplicitFlag

from cai_base.settings import numbers
from cai_base.settings.section import Section
from cai_base.settings.values import OneOf
from cai_base.text import either


class LoraSettings(Section):
    """LoRA rank and alpha of the adapters."""

    rank: numbers.Rank = Field(description="rank of the LoRA matrices")
    alpha: numbers.Alpha = Field(description="LoRA alpha; updates are scaled by alpha / rank")


class Training(Section):
    """The settings common to SFT, DPO and SFT on revisions: steps, batches, and learning rate."""

    steps: numbers.Steps = Field(description="optimizer steps")
    batch_size: numbers.BatchSize = Field(description="examples per step")
    learning_rate: numbers.LearningRate = Field(description="peak learning rate")
    warmup: numbers.Share = Field(description="share of the steps for linear warm-up")
    schedule: Literal["constant", "linear", "cosine"] = Field(description="learning rate after warm-up")
    clip_norm: numbers.Norm = Field(description="maximal gradient norm of an adapter; larger gradients are clipped")


class Sft(Training):
    """SFT on human-written answers."""

    examples: Path | None = Field(
        None, description="written answers that replace the packaged six: JSONL; of more than six, each seed draws six"
    )
    refusals: numbers.Refusals = Field(
        1, description="for the control refusals: how many of the written answers are refusals"
    )


class SlCai(Training):
    """SFT on revisions."""

    batch_size: numbers.BatchSize = Field(description="revisions per step")
    as_dpo: CliImplicitFlag[bool] = Field(
        False,
        description="use the steps, batch size and learning rate of DPO, so that the arms differ only in the loss",
    )


@dataclass(frozen=True, slots=True)
class PreferenceLoss:
    """A preference loss; its formula is the function of the same name in `method.losses`.

    Attributes:
        about: its description in `--help` and in the glossary; empty if the name suffices.
        reference: whether scores are relative to the reference, the policy before its first update.
        per_token: whether scores are means per token of the response, not sums.
        settings: the fields of `Dpo` that it uses in addition to `beta` and `nll_weight`.
        beta: its default, if not the preset's, which suits DPO's own loss (docs/method.md says why).
    """

    about: str = ""
    reference: bool = True
    per_token: bool = False
    settings: tuple[str, ...] = ()
    beta: float | None = None


LOSSES: Mapping[str, PreferenceLoss] = {
    "sigmoid": PreferenceLoss("DPO"),
    "ipo": PreferenceLoss("per token", per_token=True, beta=1.0),
    "simpo": PreferenceLoss(
        "per token, without a reference", False, per_token=True, settings=("simpo_gamma",), beta=2.0
    ),
}
"""Every preference loss by its name; DPO's own, the default, is first."""


class Dpo(Training):
    """The settings of training on preference pairs: a `Training`, the loss and its settings, and which pairs."""

    batch_size: numbers.BatchSize = Field(description="preference pairs per step")
    loss: Annotated[str, OneOf(LOSSES)] = Field(
        next(iter(LOSSES)),
        description="preference loss: "
        + either([f"{name} ({loss.about})" if loss.about else name for name, loss in LOSSES.items()]),
    )
    pairs: numbers.Pairs = Field(
        description="number of preference pairs per seed to train on, evenly over kinds; 0 for all"
    )
    beta: numbers.Beta = Field(
        description="scale of the rewards: strength of the regularisation towards the reference; "
        + ", ".join(f"{name} has {loss.beta:g}" for name, loss in LOSSES.items() if loss.beta is not None)
    )
    simpo_gamma: numbers.Weight = Field(0.5, description="for simpo: its target reward margin")
    nll_weight: numbers.Weight = Field(
        description="weight of the chosen response's mean NLL per token, added to the loss"
    )
    held_out: Annotated[float, Field(ge=0, lt=1)] = Field(description="share of pairs held out to measure accuracy")
