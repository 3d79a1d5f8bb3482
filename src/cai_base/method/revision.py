"""Phase 2: the model answers, criticises its answer under a principle, revises it, four times over.

Bai et al. 2022, section 3.1: sample a response; for each round draw a principle at random, ask for a critique of the
response under it, then for a revision in the light of the critique. The whole chain is kept. The preference pair is the
original (rejected) and the last revision (chosen).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cai_base import randomness
from cai_base.dialogue import STOPS, Dialogue, prompt_tokens
from cai_base.engines import Adapter, Engine, SampleRequest, Tokenizer
from cai_base.evaluation.fluency import off_the_rails
from cai_base.inputs.constitution import Constitution, Principle
from cai_base.inputs.prompts import Prompt
from cai_base.progress import Bar
from cai_base.settings.schema import Revision
from cai_base.store import Record


@dataclass(slots=True)
class Chain:
    """One prompt's revision chain for one seed.

    Attributes:
        responses: the original and the revision of every round so far.
        principles, critiques: one a round.
        opener: the refusal opener that the original was made to begin with, if any.
        cut: for each round, 0 the original, whether its response ran into the length limit.
        sampled_tokens: what all its texts took.
    """

    adapter: Adapter
    seed: int
    prompt: Prompt
    opener: str | None
    responses: list[str] = field(default_factory=list)
    principles: list[Principle] = field(default_factory=list)
    critiques: list[str] = field(default_factory=list)
    cut: dict[int, bool] = field(default_factory=dict)
    sampled_tokens: int = 0

    def outcome(self) -> str:
        """`pair`, or the reason why this chain gives no preference pair."""
        original, revised = self.responses[0], self.responses[-1]
        last = len(self.responses) - 1
        if not original.strip() or not revised.strip():
            return "empty"
        if self.cut[0] or self.cut[last]:
            return "truncated"
        if off_the_rails(original) or off_the_rails(revised):
            return "off the rails"
        if original.split() == revised.split():
            return "identical"
        return "pair"

    def record(self) -> Record:
        """The whole chain, for `revision.jsonl`."""
        rounds = zip(self.principles, self.critiques, self.responses[1:], strict=True)
        return {
            "id": self.prompt.id,
            "kind": self.prompt.kind,
            "family": self.prompt.family,
            "prompt": self.prompt.text,
            "refusal_opener": self.opener,
            "original": self.responses[0],
            "rounds": [{"principle": p.name, "critique": c, "revision": r} for p, c, r in rounds],
            "truncated": sum(self.cut.values()),
            "sampled_tokens": self.sampled_tokens,
            "outcome": self.outcome(),
        }


def revise(
    engine: Engine,
    dialogue: Dialogue,
    constitution: Constitution,
    openers: Sequence[str],
    settings: Revision,
    adapters: dict[Adapter, int],
    prompts: Sequence[Prompt],
    bar: Bar,
) -> list[Chain]:
    """The chains of these prompts for all adapters together: original, then critique and revision for every round.

    Args:
        adapters: each adapter's seed.
        openers: what a refusal begins with; `settings.refusal_prefill` of the originals are made to begin with one.
    """
    chains = [
        Chain(adapter, seed, prompt, _opener(seed, prompt, openers, settings.refusal_prefill))
        for adapter, seed in adapters.items()
        for prompt in prompts
    ]

    def ask(texts: Iterable[str], step: str, limit: int) -> list[tuple[str, bool]]:
        """What the model writes after each chain's text, and whether it ran into the limit."""
        samples = engine.sample(
            [
                SampleRequest(
                    adapter=chain.adapter,
                    prompt=prompt_tokens(engine.tokenizer, text),
                    max_tokens=limit,
                    temperature=settings.temperature,
                    stop=STOPS,
                    seed=randomness.seed(chain.seed, "revision", chain.prompt.id, step),
                )
                for chain, text in zip(chains, texts, strict=True)
            ]
        )
        for chain, sample in zip(chains, samples, strict=True):
            chain.sampled_tokens += len(sample.tokens)
        bar.advance(len(chains))
        return [(sample.text.strip(), sample.stop_reason == "length") for sample in samples]

    questions = (f"{dialogue.question(c.prompt.text)}{f' {c.opener}' if c.opener else ''}" for c in chains)
    for chain, (text, cut) in zip(chains, ask(questions, "original", settings.response_tokens), strict=True):
        chain.responses.append(f"{chain.opener} {text}" if chain.opener else text)
        chain.cut[0] = cut
    for number in range(1, settings.rounds + 1):
        for chain in chains:
            draw = randomness.stream(chain.seed, "revision", chain.prompt.id, number, "principle")
            chain.principles.append(constitution.principles[draw.integers(len(constitution.principles))])
        requests = [dialogue.critique(c.prompt.text, c.responses[-1], c.principles[-1]) for c in chains]
        for chain, (text, _) in zip(chains, ask(requests, f"critique {number}", settings.critique_tokens), strict=True):
            chain.critiques.append(text)
        requests = [
            dialogue.revision(c.prompt.text, c.responses[-1], c.principles[-1], c.critiques[-1]) for c in chains
        ]
        for chain, (text, cut) in zip(
            chains, ask(requests, f"revision {number}", settings.response_tokens), strict=True
        ):
            chain.responses.append(text)
            chain.cut[number] = cut
    return chains


def generations(settings: Revision) -> int:
    """How many texts are sampled for one chain."""
    return 1 + 2 * settings.rounds


def _opener(seed: int, prompt: Prompt, openers: Sequence[str], share: float) -> str | None:
    draw = randomness.stream(seed, "revision", prompt.id, "refusal prefill")
    return openers[int(draw.integers(len(openers)))] if draw.random() < share else None


def pairs(tokenizer: Tokenizer, chains: Sequence[Record], seed: int, held_out: float) -> list[Record]:
    """The preference pairs of one seed's stored chains, for `pairs.jsonl`: TRL's columns and where each came from.

    A share `held_out` of the pairs is never trained on.
    """
    return [
        {
            "prompt": chain["prompt"],
            "chosen": chain["rounds"][-1]["revision"],
            "rejected": chain["original"],
            "id": chain["id"],
            "kind": chain["kind"],
            "principles": [one["principle"] for one in chain["rounds"]],
            "chosen_tokens": len(tokenizer.encode(chain["rounds"][-1]["revision"])),
            "rejected_tokens": len(tokenizer.encode(chain["original"])),
            "held_out": bool(randomness.stream(seed, "dpo", chain["id"], "held out").random() < held_out),
        }
        for chain in chains
        if chain["outcome"] == "pair"
    ]


def shuffled(records: Sequence[Record], seed: int) -> list[Record]:
    """Pairs in which chosen and rejected are swapped at random, a coin a pair: what is left if a preference is none."""
    return [
        record | {"swapped": swapped} | ({to: record[of] for to, of in _SWAPS.items()} if swapped else {})
        for record in records
        for swapped in (bool(randomness.stream(seed, "shuffled", record["id"], "swap").integers(2)),)
    ]


_SWAPS = {
    "chosen": "rejected",
    "rejected": "chosen",
    "chosen_tokens": "rejected_tokens",
    "rejected_tokens": "chosen_tokens",
}


def filtered(chains: Iterable[Record]) -> dict[str, int]:
    """How many chains gave no pair, by reason; every reason is named."""
    counts = Counter(chain["outcome"] for chain in chains)
    return {reason: counts[reason] for reason in ("identical", "empty", "truncated", "off the rails")}
