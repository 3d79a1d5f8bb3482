"""Preference pairs, made from revision chains.

A pair is the last revision (chosen) and the original (rejected) of a chain; a control makes other pairs from the same
chains. Each way of making pairs is a rule in `RULES`, which an arm refers to by name.

Needs the revision chains. Stores `pairs.jsonl` of every seed, in TRL's columns.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cai_base import paths, randomness
from cai_base.arms import SFT, PairSource
from cai_base.engines import Tokenizer, Usage
from cai_base.errors import UserError
from cai_base.inputs.kinds import evenly
from cai_base.method.comparing import probability
from cai_base.method.phase import Request, Size, Workbench
from cai_base.records import Chain, Pair, TwoResponses
from cai_base.store import Run, to_lines

NO_PAIRS = "no preference pair was left to train on; the filter's reasons are in `revision`"
"""The reason stored for a seed without pairs, which fails in every phase that trains on pairs."""
FILTERED = ("identical", "empty", "truncated", "off the rails")
"""The outcomes of chains that give no pair."""


@dataclass(frozen=True, slots=True)
class Source:
    """The input of a rule: what one seed's pairs are made from.

    Attributes:
        chains: reads the revision chains: the arm's own, or the run's if the arm makes none.
        pairs: reads the run's own pairs, which a control may change.
        responses: reads the arm's own pairs of responses, where it is trained on such.
        held_out: the share of pairs that are never trained on.
    """

    seed: int
    chains: Callable[[], Sequence[Chain]]
    pairs: Callable[[], Sequence[Pair]]
    tokenizer: Tokenizer
    held_out: float
    responses: Callable[[], Sequence[TwoResponses]] = tuple


Rule = Callable[[Source], list[Pair]]


def from_revisions(source: Source) -> list[Pair]:
    """The last revision of every chain that gives a pair, preferred to its original."""
    return pairs_of(source.chains(), source.tokenizer, source.seed, source.held_out)


def pairs_of(chains: Iterable[Chain], tokenizer: Tokenizer, seed: int, held_out: float = 0.0) -> list[Pair]:
    """The preference pairs of a seed's chains: the last revision (chosen) and the original (rejected).

    Args:
        chains: as from `revise`. A chain whose `outcome` is not `pair` gives none.
        tokenizer: counts the tokens of the responses.
        seed: determines, with a prompt's id, whether its pair is held out.
        held_out: the share of pairs that are marked as never to be trained on, from 0 to 1.

    Returns:
        The pairs, in the order of the chains, the held-out ones included.
    """
    encode = tokenizer.encode
    return [
        Pair(
            prompt=chain.prompt,
            chosen=chain.responses[-1],
            rejected=chain.original,
            id=chain.id,
            kind=chain.kind,
            principles=tuple(one.principle for one in chain.rounds),
            chosen_tokens=len(encode(chain.responses[-1])),
            rejected_tokens=len(encode(chain.original)),
            held_out=is_held_out(seed, chain.id, held_out),
        )
        for chain in chains
        if chain.outcome == "pair"
    ]


def is_held_out(seed: int, prompt: str, share: float) -> bool:
    """Whether the pair of a prompt, by its id, is never trained on: the same prompts for every arm of a seed."""
    return bool(randomness.stream(seed, "dpo", prompt, "held out").random() < share)


def of_two_responses(two: TwoResponses, first: bool, source: Source, probability: float | None = None) -> Pair:
    """The pair in which one of two responses is preferred.

    Args:
        first: whether it is the first.
        probability: that it is better; None is 1.
    """
    chosen, rejected = two.responses if first else two.responses[::-1]
    pair = Pair(
        prompt=two.prompt,
        chosen=chosen,
        rejected=rejected,
        id=two.id,
        kind=two.kind,
        principles=tuple(one.principle for one in two.comparisons),
        chosen_tokens=len(source.tokenizer.encode(chosen)),
        rejected_tokens=len(source.tokenizer.encode(rejected)),
        held_out=is_held_out(source.seed, two.id, source.held_out),
    )
    return pair if probability is None else pair.model_copy(update={"probability": probability})


def unrevised(source: Source) -> list[Pair]:
    """Two answers of the same model, the first preferred with probability 1/2."""
    return [
        of_two_responses(two, bool(randomness.stream(source.seed, "unrevised", two.id, "coin").integers(2)), source)
        for two in source.responses()
        if two.outcome == "pair"
    ]


def from_feedback(source: Source) -> list[Pair]:
    """Two answers of the same model, of which the more probable to be better is preferred, with that probability."""
    pairs = []
    for two in source.responses():
        if two.outcome == "pair":
            first = probability(two.comparisons)
            pairs.append(of_two_responses(two, first >= 0.5, source, max(first, 1 - first)))
    return pairs


def shuffled(source: Source) -> list[Pair]:
    """The run's own pairs, each with chosen and rejected swapped with probability 1/2: a null preference."""
    return [
        swapped(pair) if randomness.stream(source.seed, "shuffled", pair.id, "swap").integers(2) else unswapped(pair)
        for pair in source.pairs()
    ]


def swapped(pair: Pair) -> Pair:
    """The pair with chosen and rejected exchanged."""
    changes = {
        "chosen": pair.rejected,
        "rejected": pair.chosen,
        "chosen_tokens": pair.rejected_tokens,
        "rejected_tokens": pair.chosen_tokens,
        "swapped": True,
    }
    return pair.model_copy(update=changes)


def unswapped(pair: Pair) -> Pair:
    """The pair as it is, with its field `swapped` set to False."""
    return pair.model_copy(update={"swapped": False})


RULES: Mapping[str, Rule] = {
    "revisions": from_revisions,
    "shuffled": shuffled,
    "unrevised": unrevised,
    "feedback": from_feedback,
}
"""Every rule by the name that an arm refers to it by (`arms.Arm.pairs`)."""


def rule(name: str) -> Rule:
    """The rule of this name.

    Raises:
        UserError: there is none.
    """
    if name not in RULES:
        raise UserError(f"{name!r} is not a rule for preference pairs; the rules are {', '.join(RULES)}")
    return RULES[name]


@dataclass(frozen=True, slots=True)
class Pairs:
    """From chains to preference pairs, for all seeds.

    Attributes:
        owner: the folder of the arm whose pairs they are; None for the run's own.
        source: what that arm makes of its own: revision chains, pairs of responses, or nothing.
        held_out: the share of pairs that are never trained on.
    """

    rule: str
    owner: str | None
    source: PairSource | None
    held_out: float

    @property
    def name(self) -> str:
        return "pairs" if self.owner is None else f"pairs of {self.owner}"

    @property
    def needs(self) -> tuple[str, ...]:
        if self.owner is None:
            return ("revision",)
        if self.source is None:
            return ("revision", "pairs")
        return (f"{'revision' if self.source == 'chains' else 'responses'} of {self.owner}",)

    def run(self, bench: Workbench) -> None:
        if bench.run.progress(self.name):
            return
        files = {
            paths.pairs(seed, self.owner): to_lines(
                pair.dump() for pair in rule(self.rule)(self.source_of(bench.run, bench.engine.tokenizer, seed))
            )
            for seed in bench.remaining(SFT)
        }
        bench.run.commit(self.name, 1, write=files)

    def cost(self, size: Size) -> Usage:
        return Usage()

    @property
    def judged_responses(self) -> int:
        return 0

    def longest_request(self, size: Size) -> Request | None:
        return None

    def source_of(self, run: Run, tokenizer: Tokenizer, seed: int) -> Source:
        """What a seed's pairs are made from, as the run stored it."""
        chains = paths.chains(seed, self.owner if self.source == "chains" else None)
        return Source(
            seed,
            lambda: [Chain.model_validate(line) for line in run.each_line(chains)],
            lambda: [Pair.model_validate(line) for line in run.each_line(paths.pairs(seed))],
            tokenizer,
            self.held_out,
            lambda: [TwoResponses.model_validate(line) for line in run.each_line(paths.responses(seed, self.owner))],
        )


def training_pairs(
    bench: Workbench, phase: str, owner: str | None, limit: int, start: str = SFT
) -> dict[int, list[Pair]]:
    """The stored pairs that a phase trains on, by seed: of those that are not held out `limit`, or all for 0.

    So many are taken evenly over the kinds of prompt. A seed without any such pair fails in this phase and is left out.

    Args:
        start: the phase whose adapters are trained further.
    """
    by_seed = {}
    for seed in bench.remaining(SFT, start):
        training = [pair for pair in _stored_pairs(bench, seed, owner) if not pair.held_out]
        pairs = evenly(training, limit, lambda pair: pair.kind)
        if pairs:
            by_seed[seed] = pairs
        else:
            bench.fail(phase, seed, NO_PAIRS)
    return by_seed


def held_out_pairs(bench: Workbench, seed: int, owner: str | None) -> list[Pair]:
    """The stored pairs of a seed that are never trained on."""
    return [pair for pair in _stored_pairs(bench, seed, owner) if pair.held_out]


def _stored_pairs(bench: Workbench, seed: int, owner: str | None) -> list[Pair]:
    return [Pair.model_validate(line) for line in bench.run.lines(paths.pairs(seed, owner))]


def count_filtered(outcomes: Iterable[str]) -> dict[str, int]:
    """How many chains gave no pair, by reason, from the outcomes of all chains; a reason that did not occur has 0."""
    counts = Counter(outcomes)
    return {reason: counts[reason] for reason in FILTERED}
