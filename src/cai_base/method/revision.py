"""Critique and revision: the model answers a prompt, then criticises and revises its answer in several rounds.

Bai et al. 2022, section 3.1: sample a response; in each round draw a principle at random, ask for a critique of
the response by that principle, then for a revision that answers the critique.

Needs SFT's adapters. Stores each complete chain with a verdict on every response, one unit of prompts at a time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from cai_base import paths, randomness
from cai_base.arms import SFT, Arm
from cai_base.dialogue import STOPS, Dialogue, prompt_tokens
from cai_base.engines import Adapter, Engine, SampleRequest, Usage
from cai_base.errors import UserError
from cai_base.inputs import Inputs
from cai_base.inputs.constitution import Constitution, CritiqueExample, Principle
from cai_base.inputs.prompts import Prompt
from cai_base.method.interpreter import Interpreter, itself
from cai_base.method.phase import Request, Size, Workbench, adapter_name, mean
from cai_base.progress import Advance
from cai_base.records import Chain, Judgement, Outcome, Round
from cai_base.settings.schema import Revision
from cai_base.store import to_lines
from cai_base.text import for_terminal, repeats_itself


@dataclass(slots=True)
class OpenChain:
    """The revision chain of one prompt and one seed, while it is being sampled.

    Attributes:
        responses: the original and the revision of every round so far.
        principles, critiques: one per round so far.
        opener: the refusal opener that the original was made to begin with, if any.
        truncated: for each round, 0 the original, whether its response reached the length limit.
        sampled_tokens: tokens sampled for all its texts.
    """

    adapter: Adapter | None
    seed: int
    prompt: Prompt
    opener: str | None
    responses: list[str] = field(default_factory=list)
    principles: list[Principle] = field(default_factory=list)
    critiques: list[str] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)
    sampled_tokens: int = 0

    def outcome(self) -> Outcome:
        """`pair`, or the reason why this chain gives no preference pair."""
        return outcome_of((self.responses[0], self.responses[-1]), (self.truncated[0], self.truncated[-1]))

    def close(self) -> Chain:
        """The finished chain as a record, not yet judged."""
        rounds = zip(self.principles, self.critiques, self.responses[1:], strict=True)
        return Chain(
            id=self.prompt.id,
            kind=self.prompt.kind,
            family=self.prompt.family,
            prompt=self.prompt.text,
            refusal_opener=self.opener,
            original=self.responses[0],
            rounds=tuple(Round(principle=p.name, critique=c, revision=r) for p, c, r in rounds),
            truncated=sum(self.truncated),
            sampled_tokens=self.sampled_tokens,
            outcome=self.outcome(),
        )


def outcome_of(responses: tuple[str, str], truncated: tuple[bool, bool]) -> Outcome:
    """`pair`, or the reason why two responses give no preference pair.

    Args:
        truncated: whether each of them reached the length limit.
    """
    first, second = responses
    if not first.strip() or not second.strip():
        return "empty"
    if any(truncated):
        return "truncated"
    if repeats_itself(first) or repeats_itself(second):
        return "off the rails"
    if first.split() == second.split():
        return "identical"
    return "pair"


def revise(
    engine: Engine,
    dialogue: Dialogue,
    constitution: Constitution,
    openers: Sequence[str],
    settings: Revision,
    adapters: dict[Adapter, int],
    prompts: Sequence[Prompt],
    advance: Advance | None = None,
    interpreter: Interpreter | None = None,
) -> dict[Adapter, list[Chain]]:
    """The chains of these prompts for all adapters together: original, then critique and revision for every round.

    Bai et al. 2022 (arXiv 2212.08073), section 3.1. Each round draws a principle at random, by seed, prompt and round.

    Args:
        engine: with the adapters.
        dialogue: the layout of questions and of requests for critiques and revisions.
        constitution: whose principles are drawn.
        openers: beginnings of refusals; the fraction `settings.refusal_prefill` of the originals is prefilled with one.
        settings: rounds, temperature, and the most tokens of a response and of a critique.
        adapters: each adapter's seed.
        prompts: the method's prompts.
        advance: called with the number of texts sampled since the last call, to move a progress bar.
        interpreter: who critiques and revises; by default the adapter itself.

    Returns:
        Each adapter's chains in the order of the prompts, not judged.

    Raises:
        UserError: an adapter is not in the engine, or originals are to be prefilled and there are no openers.
        Stopped: a service stopped responding.
    """
    if settings.refusal_prefill and not openers:
        raise UserError(f"revision.refusal-prefill {settings.refusal_prefill}: there are no refusal openers; give 0")
    chains = [
        OpenChain(adapter, seed, prompt, draw_opener(seed, prompt, openers, settings.refusal_prefill))
        for adapter, seed in adapters.items()
        for prompt in prompts
    ]
    answer_first(engine, dialogue, chains, settings.temperature, settings.response_tokens, advance=advance)
    revise_further(interpreter or itself(engine), dialogue, constitution, settings, chains, advance)
    closed = iter([chain.close() for chain in chains])
    return {adapter: [next(closed) for _ in prompts] for adapter in adapters}


def answer_first(
    engine: Engine,
    dialogue: Dialogue,
    chains: Sequence[OpenChain],
    temperature: float,
    limit: int,
    phase: str = "revision",
    advance: Advance | None = None,
) -> None:
    """Sample the original of every chain, behind its opener if it has one.

    Args:
        limit: the longest original, in tokens.
        phase: the second part of the address of the draws.
        advance: called with the number of texts sampled since the last call, to move a progress bar.
    """
    questions = (f"{dialogue.question(c.prompt.text)}{f' {c.opener}' if c.opener else ''}" for c in chains)
    models = [chain.adapter for chain in chains]
    originals = _continue(engine, models, chains, questions, (phase, "original"), temperature, limit, advance)
    for chain, (text, truncated) in zip(chains, originals, strict=True):
        chain.responses.append(f"{chain.opener} {text}" if chain.opener else text)
        chain.truncated.append(truncated)


def revise_further(
    interpreter: Interpreter,
    dialogue: Dialogue,
    constitution: Constitution,
    settings: Revision,
    chains: Sequence[OpenChain],
    advance: Advance | None = None,
    phase: str = "revision",
) -> None:
    """Critique and revise the last response of every chain, `settings.rounds` times.

    Args:
        interpreter: who critiques and revises.
        advance: called with the number of texts sampled since the last call, to move a progress bar.
        phase: the second part of the address of the draws.
    """
    engine, models = interpreter.engine, [interpreter.model(chain.adapter) for chain in chains]
    for number in range(1, settings.rounds + 1):
        for chain in chains:
            draw = randomness.stream(chain.seed, phase, chain.prompt.id, number, "principle")
            chain.principles.append(constitution.principles[draw.integers(len(constitution.principles))])
        requests = [dialogue.critique(c.prompt.text, c.responses[-1], c.principles[-1]) for c in chains]
        address, limit = (phase, f"critique {number}"), settings.critique_tokens
        critiques = _continue(engine, models, chains, requests, address, settings.temperature, limit, advance)
        for chain, (text, _) in zip(chains, critiques, strict=True):
            chain.critiques.append(text)
        requests = [
            dialogue.revision(c.prompt.text, c.responses[-1], c.principles[-1], c.critiques[-1]) for c in chains
        ]
        address, limit = (phase, f"revision {number}"), settings.response_tokens
        revisions = _continue(engine, models, chains, requests, address, settings.temperature, limit, advance)
        for chain, (text, truncated) in zip(chains, revisions, strict=True):
            chain.responses.append(text)
            chain.truncated.append(truncated)


def _continue(
    engine: Engine,
    models: Sequence[Adapter | None],
    chains: Sequence[OpenChain],
    texts: Iterable[str],
    address: tuple[str, str],
    temperature: float,
    limit: int,
    advance: Advance | None,
) -> list[tuple[str, bool]]:
    """The continuation of each chain's text by its model, and whether it reached the token limit."""
    phase, step = address
    samples = engine.sample(
        [
            SampleRequest(
                adapter=model,
                prompt=prompt_tokens(engine.tokenizer, text),
                max_tokens=limit,
                temperature=temperature,
                stop=STOPS,
                seed=randomness.seed(chain.seed, phase, chain.prompt.id, step),
            )
            for chain, model, text in zip(chains, models, texts, strict=True)
        ]
    )
    for chain, sample in zip(chains, samples, strict=True):
        chain.sampled_tokens += len(sample.tokens)
    if advance is not None:
        advance(len(chains))
    return [(sample.text.strip(), sample.stop_reason == "length") for sample in samples]


def draw_opener(seed: int, prompt: Prompt, openers: Sequence[str], share: float, phase: str = "revision") -> str | None:
    """The refusal opener of an original, with probability `share`; None for the others."""
    draw = randomness.stream(seed, phase, prompt.id, "refusal prefill")
    return openers[int(draw.integers(len(openers)))] if draw.random() < share else None


@dataclass(frozen=True, slots=True)
class RevisionPhase:
    """From the SFT adapters to revision chains of all the method's prompts.

    Attributes:
        constitution: whose principles are drawn.
        openers: beginnings of refusals.
        owner: the folder of the arm that the chains belong to; None for the run's own chains.
        examples: worked critiques in the place of the run's; None for the run's.
    """

    settings: Revision
    prompts: Sequence[Prompt]
    constitution: Constitution
    openers: Sequence[str]
    owner: str | None = None
    examples: tuple[CritiqueExample, ...] | None = None
    needs: tuple[str, ...] = (SFT,)

    @classmethod
    def of_run(cls, settings: Revision, inputs: Inputs) -> Self:
        """The run's own chains."""
        return cls(settings, inputs.prompts, inputs.constitution, inputs.refusal_openers)

    @classmethod
    def of_arm(cls, arm: Arm, settings: Revision, inputs: Inputs) -> Self:
        """An arm's own chains, under a constitution that is not the run's.

        Raises:
            UserError: the inputs do not have it.
        """
        constitution, examples = inputs.requests_for(arm)
        return cls(settings, inputs.prompts, constitution, inputs.refusal_openers, arm.phase, examples)

    @property
    def name(self) -> str:
        return "revision" if self.owner is None else f"revision of {self.owner}"

    @property
    def texts(self) -> int:
        """The number of texts that are sampled for one chain."""
        return 1 + 2 * self.settings.rounds

    def run(self, bench: Workbench) -> None:
        unit, prompts = self.settings.unit, self.prompts
        done, units = bench.run.progress(self.name), -(-len(prompts) // unit)
        adapters = {adapter_name(SFT, seed): seed for seed in bench.remaining(SFT)}
        if not adapters:
            return
        texts = len(adapters) * self.texts
        stored = min(done * unit, len(prompts))
        with (
            bench.budget.phase(self.name),
            bench.progress.bar(self.name, len(prompts) * texts, stored * texts, "texts") as bar,
        ):
            for number in range(done, units):
                bench.budget.check_budget()
                chains = revise(
                    bench.engine,
                    self._dialogue(bench.dialogue),
                    self.constitution,
                    self.openers,
                    self.settings,
                    adapters,
                    prompts[number * unit : (number + 1) * unit],
                    bar.advance,
                    bench.interpreter,
                )
                self._store(
                    bench, number + 1, {adapters[adapter]: of_adapter for adapter, of_adapter in chains.items()}
                )

    def cost(self, size: Size) -> Usage:
        usage = self.interpreter_cost(size)
        chains = size.seeds * len(size.questions)
        originals = Usage(prefilled=size.seeds * sum(size.questions), sampled=chains * self.settings.response_tokens)
        usage.add(originals)
        return usage

    def interpreter_cost(self, size: Size) -> Usage:
        """What of its cost is critique and revision."""
        settings, principles = self.settings, self.constitution.principles
        by_length = sorted(self.prompts, key=lambda prompt: len(prompt.text))
        middle = by_length[len(by_length) // 2].text
        dialogue = self._dialogue(size.dialogue)
        critique = mean([size.length(dialogue.critique(middle, "", one)) for one in principles])
        critique += settings.response_tokens
        revision = mean([size.length(dialogue.revision(middle, "", one, "")) for one in principles])
        revision += settings.response_tokens + settings.critique_tokens
        rounds = size.seeds * len(self.prompts) * settings.rounds
        return Usage(
            prefilled=round(rounds * (critique + revision)),
            sampled=rounds * (settings.critique_tokens + settings.response_tokens),
        )

    @property
    def judged_responses(self) -> int:
        return 1 + self.settings.rounds

    def longest_request(self, size: Size) -> Request | None:
        """A revision request holds the prompt, a response and a critique, and leaves room for another response."""
        return longest_revision(size, self._dialogue(size.dialogue), self.constitution, self.prompts)

    def _dialogue(self, dialogue: Dialogue) -> Dialogue:
        return dialogue if self.examples is None else replace(dialogue, critique_examples=self.examples)

    def _store(self, bench: Workbench, done: int, chains: Mapping[int, Sequence[Chain]]) -> None:
        """Judge every response of a unit's chains, and store them by seed."""
        prompts = {prompt.id: prompt for prompt in self.prompts}
        all_chains = [chain for of_seed in chains.values() for chain in of_seed]
        judgements = iter(bench.judge([(prompts[chain.id], text) for chain in all_chains for text in chain.responses]))
        files = {
            paths.chains(seed, self.owner): to_lines(_with_verdicts(chain, judgements).dump() for chain in of_seed)
            for seed, of_seed in chains.items()
        }
        bench.run.commit(self.name, done, append=files)
        bench.progress.show(for_terminal(_to_read(all_chains[0])))


def _to_read(chain: Chain) -> str:
    """A chain as it is shown while the run goes on."""
    rounds = (f"{one.principle}: {one.critique}\n  revised: {one.revision}" for one in chain.rounds)
    return "\n  ".join((f"A chain. Prompt: {chain.prompt}", f"original: {chain.original}", *rounds))


def longest_revision(size: Size, dialogue: Dialogue, constitution: Constitution, prompts: Sequence[Prompt]) -> Request:
    """The longest request for a revision of an answer to one of these prompts."""
    longest = max(prompts, key=lambda prompt: len(size.tokenizer.encode(prompt.text))).text
    requests = (dialogue.revision(longest, "x", one, "x") for one in constitution.principles)
    return Request(max(size.length(request) for request in requests), responses=2, critiques=1)


def _with_verdicts(chain: Chain, judgements: Iterator[Judgement]) -> Chain:
    """The chain with the next judgements: of its original, then of the revision of every round."""
    of_chain = [next(judgements) for _ in chain.responses]
    verdicts, unscored = tuple(one.verdict for one in of_chain), tuple(one.unscored for one in of_chain)
    return chain.model_copy(update={"verdicts": verdicts, "unscored": unscored})
