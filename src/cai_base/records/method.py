"""What the training phases store: revision chains, preference pairs, reference log-probabilities, training steps."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from cai_base.records.judging import Verdict
from cai_base.records.stored import Stored


class Round(Stored):
    """One round of a revision chain.

    Attributes:
        principle: the name of the principle that was drawn.
        critique: of the response before.
        revision: the response that answers the critique.
    """

    principle: str
    critique: str
    revision: str


Outcome = Literal["pair", "identical", "empty", "truncated", "off the rails"]
"""The outcome of a revision chain: a preference pair, or the reason why it gives none."""


class Chain(Stored):
    """A complete revision chain (Bai et al. 2022, section 3.1), a line of `revision.jsonl`.

    Attributes:
        id, kind, family, prompt: of the prompt that is answered.
        original: the first answer.
        rounds: one per round, in order; the last revision is the response that a pair prefers.
        refusal_opener: the beginning of a refusal that the original was prefilled with, if any.
        truncated: the number of its responses that reached the length limit.
        sampled_tokens: tokens sampled for all its texts.
        outcome: `pair`, or the reason why it gives no preference pair.
        verdicts: the judge's verdicts on the original and on every revision, in this order; None if unscored.
        unscored: the reason for each missing verdict.
    """

    id: str
    kind: str | None
    family: str | None
    prompt: str
    refusal_opener: str | None
    original: str
    rounds: tuple[Round, ...]
    truncated: int
    sampled_tokens: int
    outcome: Outcome
    verdicts: tuple[Verdict | None, ...] = ()
    unscored: tuple[str | None, ...] = ()

    @property
    def responses(self) -> tuple[str, ...]:
        """The original and the revision of every round."""
        return (self.original, *(one.revision for one in self.rounds))


class Pair(Stored):
    """A preference pair in TRL's columns `prompt`, `chosen`, `rejected`, and its origin.

    Attributes:
        prompt, chosen, rejected: texts without layout; `tokenise` lays them out.
        id, kind: of the prompt.
        principles: the names of the principles of its chain or comparisons, in order.
        chosen_tokens, rejected_tokens: the lengths of the responses, without their ends.
        held_out: whether it is never trained on.
        probability: the probability that chosen is better, at least 1/2, from comparisons. A pair from a revision does
            not store it; it is then 1.
        swapped: whether the control `shuffled` swapped chosen and rejected; None for the pairs of other arms.
    """

    prompt: str
    chosen: str
    rejected: str
    id: str
    kind: str | None
    principles: tuple[str, ...]
    chosen_tokens: int
    rejected_tokens: int
    held_out: bool
    swapped: bool | None = None
    probability: Annotated[float, Field(ge=0.5, le=1)] = 1.0


class Comparison(Stored):
    """The comparison of two responses under one principle, in both orders.

    Attributes:
        first_as_a, first_as_b: the probability that the first is better, where it was shown as (A) and as (B).
        thoughts: the chain of thought before each of the two comparisons, in the same order; empty without one.
    """

    principle: str
    first_as_a: float
    first_as_b: float
    thoughts: tuple[str, ...] = ()


class TwoResponses(Stored):
    """Two responses of one model to a prompt.

    Attributes:
        truncated: how many of them reached the length limit.
        sampled_tokens: tokens sampled for them and for comparing them.
        outcome: `pair`, or the reason why they give no preference pair.
        comparisons: one per principle; empty if they were not compared.
        verdicts: the judge's verdict on each; empty if it was not asked.
    """

    id: str
    kind: str | None
    family: str | None
    prompt: str
    responses: tuple[str, str]
    truncated: int
    sampled_tokens: int
    outcome: Outcome
    comparisons: tuple[Comparison, ...] = ()
    verdicts: tuple[Verdict | None, ...] = ()
    unscored: tuple[str | None, ...] = ()


class Reference(Stored):
    """The reference's log-probabilities of the two responses of a pair.

    Attributes:
        id: of the pair.
        chosen, rejected: sums over the tokens of the response and its end, in nats.
        weights: `Engine.fingerprint` of the adapter that computed them.
    """

    id: str
    chosen: float
    rejected: float
    weights: str


class TrainingStep(Stored):
    """One optimizer step of one adapter: its loss, the loss's own metrics, and the number of trained tokens."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    step: int
    loss: float
    learning_rate: float
    tokens: int


class Failure(Stored):
    """The failure of an adapter in training."""

    adapter: str
    step: int
    reason: str
