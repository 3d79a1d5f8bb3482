"""Direct preference optimisation of the revisions over the originals (Rafailov et al., arXiv 2305.18290).

The policy starts from the SFT adapter. The reference is the policy before its first update. Its log-probabilities are
computed once per pair, by the same forward passes over the same batches as the first epoch of training, so the margin
before the first update is exactly 0. A loss without a reference (`--dpo.loss simpo`) has none of this.

Needs SFT's adapters and preference pairs. Stores the reference where the loss has one, the adapters, their metrics, and
the arm's answers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cai_base import paths
from cai_base.arms import Arm, intervals
from cai_base.dialogue import Dialogue
from cai_base.engines import Adapter, Batch, Datum, Engine, Tokenizer, Usage
from cai_base.errors import UserError
from cai_base.method import pairs as preference
from cai_base.method.losses import preference_loss
from cai_base.method.phase import Request, Size, Workbench, adapter_name
from cai_base.method.training import Start, TrainingPlan, batch_indices, start_from, train_arm, trained_datum
from cai_base.progress import Bar
from cai_base.records import Pair, Reference
from cai_base.settings.schema import LOSSES, Dpo
from cai_base.store import to_lines


@dataclass(frozen=True, slots=True)
class TokenPair:
    """One preference pair, tokenised: each response with its prompt before it.

    Attributes:
        id: of the pair.
        chosen, rejected: weight 1 on the response and its end, 0 on the prompt; see `trained_datum`.
        probability: that chosen is better.
    """

    id: str
    chosen: Datum
    rejected: Datum
    probability: float = 1.0


def tokenise(tokenizer: Tokenizer, dialogue: Dialogue, pairs: Sequence[Pair]) -> list[TokenPair]:
    """The pairs, tokenised by `trained_datum`: both responses include their end, which is trained on.

    Args:
        tokenizer: the engine's.
        dialogue: the layout of the prompts.
        pairs: all are tokenised, held-out ones too.

    Returns:
        One `TokenPair` per pair, in order.
    """
    return [
        TokenPair(
            pair.id,
            trained_datum(tokenizer, dialogue, pair.prompt, pair.chosen),
            trained_datum(tokenizer, dialogue, pair.prompt, pair.rejected),
            pair.probability,
        )
        for pair in pairs
    ]


def data(pairs: Sequence[TokenPair]) -> list[Datum]:
    """Chosen and rejected of every pair, alternating: the order in which the loss takes their log-probabilities."""
    return [datum for pair in pairs for datum in (pair.chosen, pair.rejected)]


def batch_pairs(pairs: Sequence[TokenPair], seed: int, step: int, size: int) -> list[TokenPair]:
    """The pairs in the batch of a step."""
    return [pairs[i] for i in batch_indices(len(pairs), seed, "dpo", step, size)]


def dpo_batch(
    pairs: Sequence[TokenPair], references: Mapping[str, Reference], seed: int, step: int, settings: Dpo
) -> Batch:
    """The batch of DPO at a step: `settings.batch_size` pairs, with the preference loss that `settings.loss` names.

    Args:
        pairs: all pairs. Each epoch takes them all, in a new order.
        references: by pair id, from `reference_logprobs`; not read by a loss that has no reference.
        seed: determines the orders.
        step: the step, from 0.
        settings: the loss, its settings, and the batch size.

    Returns:
        A batch of the sequences chosen, rejected, chosen, rejected, and so on; see `preference_loss` for its metrics.

    Raises:
        UserError: there are no pairs, a pair has no reference, or size or step is out of range.
    """
    batch = batch_pairs(pairs, seed, step, settings.batch_size)
    sides = [(pair.chosen, pair.rejected) for pair in batch]
    of_batch = [_reference_of(pair, references) for pair in batch] if LOSSES[settings.loss].reference else None
    return Batch(data(batch), preference_loss(sides, of_batch, settings, [pair.probability for pair in batch]))


def _reference_of(pair: TokenPair, references: Mapping[str, Reference]) -> Reference:
    if pair.id not in references:
        raise UserError(f"the pair {pair.id!r} has no reference; compute those of all pairs with reference_logprobs")
    return references[pair.id]


def by_pair(pairs: Sequence[TokenPair], logprobs: Sequence[float]) -> dict[str, tuple[float, float]]:
    """The log-probabilities of chosen and rejected by pair id, from those of `data(pairs)`."""
    return {pair.id: (logprobs[2 * i], logprobs[2 * i + 1]) for i, pair in enumerate(pairs)}


def accuracy(
    pairs: Sequence[TokenPair], logprobs: Sequence[float], references: Mapping[str, Reference], settings: Dpo
) -> float:
    """The share of pairs whose margin is positive, from the policy's log-probabilities of `data(pairs)`."""
    of_pairs = [references[pair.id] for pair in pairs] if LOSSES[settings.loss].reference else None
    policy = by_pair(pairs, logprobs)
    positive = 0
    for i, pair in enumerate(pairs):
        chosen, rejected = policy[pair.id]
        if of_pairs is not None:
            chosen, rejected = chosen - of_pairs[i].chosen, rejected - of_pairs[i].rejected
        if LOSSES[settings.loss].per_token:
            chosen, rejected = chosen / sum(pair.chosen.weights), rejected / sum(pair.rejected.weights)
        positive += chosen > rejected
    return positive / len(pairs)


@dataclass(frozen=True, slots=True)
class DpoPhase:
    """From the SFT adapter and preference pairs to an arm: full CAI, or a control of it."""

    arm: Arm
    settings: Dpo
    start: Start

    @property
    def name(self) -> str:
        return self.arm.phase

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.start.phase, "pairs" if self.arm.owner is None else f"pairs of {self.arm.owner}")

    def run(self, bench: Workbench) -> None:
        tokenizer, dialogue, owner = bench.engine.tokenizer, bench.dialogue, self.arm.owner
        by_seed = preference.training_pairs(bench, self.name, owner, self.settings.pairs, self.start.phase)
        pairs = {seed: tokenise(tokenizer, dialogue, records) for seed, records in by_seed.items()}
        if not pairs:
            return
        held_out = {
            seed: tokenise(tokenizer, dialogue, preference.held_out_pairs(bench, seed, owner)) for seed in pairs
        }
        references = self._references(bench, pairs, held_out)
        adapters = {adapter_name(self.name, seed): seed for seed in pairs}
        start_from(bench, self.name, adapters, self.start)

        def step_batch(adapter: Adapter, step: int) -> Batch:
            seed = adapters[adapter]
            return dpo_batch(pairs[seed], references[seed], seed, step, self.settings)

        def held_out_accuracy(live: list[Adapter]) -> dict[Adapter, dict[str, float | None]]:
            requests: dict[Adapter | None, list[Datum]] = {
                a: data(held_out[adapters[a]]) for a in live if held_out[adapters[a]]
            }
            logprobs = bench.engine.compute_logprobs(requests)
            values = {
                a: accuracy(held_out[adapters[a]], logprobs[a], references[adapters[a]], self.settings)
                for a in live
                if a in requests
            }
            return {a: {"held_out_accuracy": values.get(a)} for a in live}

        plan = TrainingPlan(
            self.name, self.arm.name, self.arm.curve, self.settings, adapters, step_batch, held_out_accuracy
        )
        train_arm(bench, plan)

    def cost(self, size: Size) -> Usage:
        pair = 2 * size.answered_question
        in_batches = size.seeds * self.settings.steps * self.settings.batch_size
        all_pairs = size.seeds * len(size.prompts)  # as if no chain were filtered
        held_out = all_pairs * self.settings.held_out * intervals(self.settings.steps, size.evaluate_every)
        reference = all_pairs if LOSSES[self.settings.loss].reference else 0
        # The loss is not linear in the log-probabilities: a forward pass comes before the one that is differentiated.
        return Usage(trained=round(in_batches * pair), prefilled=round((in_batches + reference + held_out) * pair))

    @property
    def judged_responses(self) -> int:
        return 0

    def longest_request(self, size: Size) -> Request | None:
        return Request(max(size.questions))

    def _references(
        self,
        bench: Workbench,
        pairs: Mapping[int, Sequence[TokenPair]],
        held_out: Mapping[int, Sequence[TokenPair]],
    ) -> dict[int, dict[str, Reference]]:
        """Every pair's reference log-probabilities, computed once; empty for a loss without a reference."""
        if not LOSSES[self.settings.loss].reference:
            return {seed: {} for seed in pairs}
        of_owner = "" if self.arm.owner is None else f" of {self.arm.owner}"
        work = f"reference{of_owner}"
        policy = {seed: adapter_name(self.start.phase, seed) for seed in pairs}
        weights = {adapter: bench.engine.fingerprint(adapter) for adapter in policy.values()}
        if not bench.run.progress(work):
            batches = {
                adapter: reference_batches(pairs[seed], held_out[seed], seed, self.settings.batch_size)
                for seed, adapter in policy.items()
            }
            longest = max(len(of_adapter) for of_adapter in batches.values())
            with (
                bench.budget.phase(self.name),
                bench.progress.bar(f"reference log-probabilities{of_owner}", longest, unit="batches") as bar,
            ):
                records = compute_references(bench.engine, batches, weights, bar)
            files = {
                paths.reference(seed, self.name): to_lines(reference.dump() for reference in records[adapter])
                for seed, adapter in policy.items()
            }
            bench.run.commit(work, 1, write=files)
        return {seed: self._stored_references(bench, seed, weights[adapter]) for seed, adapter in policy.items()}

    def _stored_references(self, bench: Workbench, seed: int, weights: str) -> dict[str, Reference]:
        """The stored references of a seed.

        Raises:
            UserError: they were computed with weights of another hash.
        """
        file = paths.reference(seed, self.name)
        records = [Reference.model_validate(line) for line in bench.run.lines(file)]
        if any(record.weights != weights for record in records):
            policy = f"seed {seed}'s {self.start.phase} adapter"
            raise UserError(
                f"{bench.run.directory / file}: was made by other weights than {policy} on this "
                "base model; resume with the base model that the run began with, or start a new run"
            )
        return {record.id: record for record in records}


def reference_batches(
    pairs: Sequence[TokenPair], held_out: Sequence[TokenPair], seed: int, size: int
) -> list[list[TokenPair]]:
    """The batches of the first epoch of training, which hold every pair at least once, then the held-out pairs."""
    first_epoch = [batch_pairs(pairs, seed, step, size) for step in range(-(-len(pairs) // size))]
    return first_epoch + [list(held_out[i : i + size]) for i in range(0, len(held_out), size)]


def reference_logprobs(
    engine: Engine, adapter: Adapter, pairs: Sequence[TokenPair], seed: int, size: int
) -> dict[str, Reference]:
    """The log-probabilities of all pairs under one adapter, in the batches of the first epoch of training.

    With the same batches the margin before the first update is exactly 0.

    Args:
        engine: with the adapter.
        adapter: the policy before its first update, which is the reference (Rafailov et al., arXiv 2305.18290).
        pairs: the pairs to train on.
        seed: determines the order of the pairs.
        size: pairs per batch.

    Returns:
        By pair id the sums over the tokens of chosen and of rejected, in nats, and the hash of the adapter's weights.

    Raises:
        UserError: the adapter is not in the engine, there are no pairs, or two pairs have the same id.
    """
    repeated = [name for name, times in Counter(pair.id for pair in pairs).items() if times > 1]
    if repeated:
        raise UserError(
            f"several pairs have the id {repeated[0]!r}; each needs its own id, by which its reference is looked up"
        )
    weights = engine.fingerprint(adapter)
    batches = {adapter: reference_batches(pairs, (), seed, size)}
    return {reference.id: reference for reference in compute_references(engine, batches, {adapter: weights})[adapter]}


def compute_references(
    engine: Engine,
    batches: Mapping[Adapter, Sequence[Sequence[TokenPair]]],
    weights: Mapping[Adapter, str],
    bar: Bar | None = None,
) -> dict[Adapter, list[Reference]]:
    """Each pair's log-probabilities under its adapter.

    Args:
        batches: each adapter's batches; a batch is one forward pass.
        weights: the hash of each adapter's weights, which is stored with each reference.
        bar: advances by one per batch of the adapter with the most batches.
    """
    references: dict[Adapter, dict[str, Reference]] = {adapter: {} for adapter in batches}
    for step in range(max(len(of_adapter) for of_adapter in batches.values())):
        current = {adapter: of_adapter[step] for adapter, of_adapter in batches.items() if step < len(of_adapter)}
        logprobs = engine.compute_logprobs({adapter: data(pairs) for adapter, pairs in current.items()})
        for adapter, pairs in current.items():
            for pair_id, (chosen, rejected) in by_pair(pairs, logprobs[adapter]).items():
                reference = Reference(id=pair_id, chosen=chosen, rejected=rejected, weights=weights[adapter])
                references[adapter].setdefault(pair_id, reference)
        if bar is not None:
            bar.advance(1)
    return {adapter: list(of_adapter.values()) for adapter, of_adapter in references.items()}
