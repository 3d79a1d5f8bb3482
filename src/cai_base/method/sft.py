"""SFT on a handful of human-written answers, each after a few-shot prefix (Bai et al. 2022, section 3.1).

Every other arm starts from the helpful-only assistant that this trains. SFT on the final revisions (`sl-cai`, the
paper's supervised stage) is the same loss on other answers, and so is the control `nll-only`.

Needs nothing but the base model. Stores the adapters, their metrics, and the arm's answers at every interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from cai_base import randomness
from cai_base.arms import SFT, Arm
from cai_base.engines import Adapter, Batch, Datum, LinearLoss, Loss, Usage
from cai_base.inputs import Inputs
from cai_base.inputs.prompts import Example
from cai_base.method import pairs as preference
from cai_base.method.phase import Request, Size, Workbench, adapter_name, mean
from cai_base.method.training import TrainingPlan, batch_indices, start_from_sft, train_arm, trained_datum
from cai_base.settings.schema import Sft as SftSettings
from cai_base.settings.schema import Training


def nll_loss(data: Sequence[Datum]) -> Loss:
    """Mean negative log-likelihood (NLL) per trained token, over all trained tokens of the batch.

    Args:
        data: the sequences of the batch.

    Returns:
        A function of their weighted log-probability sums, `[sequences]` in nats, without metrics. A token of a short
        response thus counts as much as one of a long response.
    """
    return LinearLoss(sum(weight for datum in data for weight in datum.weights))


def sft_batch(data: Sequence[Datum], seed: int, phase: str, step: int, size: int) -> Batch:
    """The batch of SFT at a step: `size` sequences, with `nll_loss` as their loss.

    Args:
        data: all sequences, such as `trained_datum` makes them. Each epoch takes them all, in a new order.
        seed: determines the orders.
        phase: the phase's name, so that two phases of a seed have different orders.
        step: the step, from 0.
        size: sequences in the batch.

    Returns:
        A batch for `Engine.forward_backward`.

    Raises:
        UserError: there are no sequences, or size or step is out of range.
    """
    batch = [data[i] for i in batch_indices(len(data), seed, phase, step, size)]
    return Batch(batch, nll_loss(batch))


WRITTEN = 6
"""The written answers of a seed."""


def written_answers(examples: Sequence[Example], seed: int, phase: str = SFT) -> list[Example]:
    """A seed's written answers: all of them, or of more than six as many drawn at the seed's address."""
    if len(examples) <= WRITTEN:
        return list(examples)
    order = randomness.stream(seed, phase, "written answers").permutation(len(examples))
    return [examples[int(place)] for place in order[:WRITTEN]]


def with_refusals(answers: Sequence[Example], refusals: Sequence[Example], number: int, seed: int) -> list[Example]:
    """The answers with `number` of them, drawn by the seed, replaced by refusals that the seed draws."""
    draw = randomness.stream(seed, SFT, "written refusals")
    places, which = draw.permutation(len(answers)), draw.permutation(len(refusals))
    replaced = list(answers)
    for place, one in zip(places[:number], which[:number], strict=True):
        replaced[int(place)] = refusals[int(one)]
    return replaced


@dataclass(frozen=True, slots=True)
class Sft:
    """SFT of the base model into a helpful assistant. The controls `refusals` and `a-a` are trained in the same way.

    Attributes:
        examples: the written answers; each seed has six of them.
        draws: the address of the adapters' initialisation, of the examples and of their order: `refusals` shares those
            of SFT, `a-a` has its own.
        refusals: of which some replace written answers; none in SFT itself.
    """

    arm: Arm
    settings: SftSettings
    examples: Sequence[Example]
    draws: str = SFT
    refusals: Sequence[Example] = ()
    needs: tuple[str, ...] = ()

    @classmethod
    def of_arm(cls, arm: Arm, settings: SftSettings, inputs: Inputs) -> Self:
        """SFT itself, or the control of it that the arm is."""
        refusals = inputs.refusals if arm.replaces else ()
        return cls(arm, settings, inputs.examples, arm.name if arm.null_of else SFT, refusals)

    @property
    def name(self) -> str:
        return self.arm.phase

    def written(self, seed: int) -> list[Example]:
        """The answers that a seed is trained on."""
        answers = written_answers(self.examples, seed, self.draws)
        return with_refusals(answers, self.refusals, self.settings.refusals, seed) if self.refusals else answers

    def run(self, bench: Workbench) -> None:
        adapters = {adapter_name(self.name, seed): seed for seed in bench.seeds}
        if not bench.run.progress(self.name):
            bench.engine.create({a: randomness.seed(seed, self.draws, "adapter") for a, seed in adapters.items()})
        data = {
            seed: [
                trained_datum(bench.engine.tokenizer, bench.dialogue, e.prompt, e.response) for e in self.written(seed)
            ]
            for seed in bench.seeds
        }
        _train(bench, self.arm, self.settings, adapters, data, self.draws)

    def cost(self, size: Size) -> Usage:
        lengths = [
            len(trained_datum(size.tokenizer, size.dialogue, e.prompt, e.response).tokens)
            for e in (*self.examples, *self.refusals)
        ]
        # Each seed draws its own: the longest are the bound where there are more than it takes.
        longest = lengths if len(lengths) <= WRITTEN else sorted(lengths)[-WRITTEN:]
        return Usage(trained=round(size.seeds * self.settings.steps * self.settings.batch_size * mean(longest)))

    @property
    def judged_responses(self) -> int:
        return 0

    def longest_request(self, size: Size) -> Request | None:
        return None


@dataclass(frozen=True, slots=True)
class SftOnPairs:
    """SFT on the chosen responses of the run's pairs, from the SFT adapter: `sl-cai`, and the control `nll-only`.

    Attributes:
        draws: the address of the batches' order; `dpo` takes DPO's own batches.
    """

    arm: Arm
    settings: Training
    sft_steps: int
    pair_limit: int
    draws: str
    needs: tuple[str, ...] = (SFT, "pairs")

    @property
    def name(self) -> str:
        return self.arm.phase

    def run(self, bench: Workbench) -> None:
        data = {
            seed: [trained_datum(bench.engine.tokenizer, bench.dialogue, pair.prompt, pair.chosen) for pair in pairs]
            for seed, pairs in preference.training_pairs(bench, self.name, None, self.pair_limit).items()
        }
        if not data:
            return
        adapters = {adapter_name(self.name, seed): seed for seed in data}
        start_from_sft(bench, self.name, adapters, self.sft_steps)
        _train(bench, self.arm, self.settings, adapters, data, self.draws)

    def cost(self, size: Size) -> Usage:
        examples = size.seeds * self.settings.steps * self.settings.batch_size
        return Usage(trained=round(examples * size.answered_question))

    @property
    def judged_responses(self) -> int:
        return 0

    def longest_request(self, size: Size) -> Request | None:
        return Request(max(size.questions))


def _train(
    bench: Workbench,
    arm: Arm,
    settings: Training,
    adapters: Mapping[Adapter, int],
    data: Mapping[int, Sequence[Datum]],
    draws: str,
) -> None:
    """Train on each seed's own examples, in an order drawn at the address `draws`."""

    def step_batch(adapter: Adapter, step: int) -> Batch:
        seed = adapters[adapter]
        return sft_batch(data[seed], seed, draws, step, settings.batch_size)

    train_arm(bench, TrainingPlan(arm.phase, arm.name, arm.curve, settings, adapters, step_batch))
