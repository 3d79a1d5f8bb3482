"""Two responses of the same model to every prompt, of which one will be preferred: at random, or by comparison.

Needs the adapters that answer. Stores both responses, one unit of prompts at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from cai_base import paths
from cai_base.arms import SFT, Arm
from cai_base.dialogue import Dialogue
from cai_base.engines import Adapter, Engine, Usage
from cai_base.inputs import Inputs
from cai_base.inputs.prompts import Prompt
from cai_base.method.phase import Request, Size, Workbench, adapter_name
from cai_base.method.revision import OpenChain, answer_first, draw_opener, outcome_of
from cai_base.progress import Advance
from cai_base.records import TwoResponses
from cai_base.settings.schema import Revision
from cai_base.store import to_lines


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the two responses are sampled.

    Attributes:
        phases: the second parts of the addresses of their draws.
        openers: beginnings of refusals, for the share `prefill` of either response.
    """

    phases: tuple[str, str]
    temperature: float
    limit: int
    openers: Sequence[str] = ()
    prefill: float = 0.0


def two_responses(
    engine: Engine,
    dialogue: Dialogue,
    sampling: Sampling,
    adapters: Mapping[Adapter, int],
    prompts: Sequence[Prompt],
    advance: Advance | None = None,
) -> dict[int, list[TwoResponses]]:
    """Two responses of every adapter to every prompt, by seed, in the order of the prompts.

    Args:
        adapters: each adapter's seed.
        advance: called with the number of responses sampled since the last call.
    """
    both = []
    for phase in sampling.phases:
        chains = [
            OpenChain(adapter, seed, prompt, draw_opener(seed, prompt, sampling.openers, sampling.prefill, phase))
            for adapter, seed in adapters.items()
            for prompt in prompts
        ]
        answer_first(engine, dialogue, chains, sampling.temperature, sampling.limit, phase, advance)
        both.append(chains)
    by_seed: dict[int, list[TwoResponses]] = {seed: [] for seed in adapters.values()}
    for first, second in zip(*both, strict=True):
        responses, truncated = (first.responses[0], second.responses[0]), (first.truncated[0], second.truncated[0])
        by_seed[first.seed].append(
            TwoResponses(
                id=first.prompt.id,
                kind=first.prompt.kind,
                family=first.prompt.family,
                prompt=first.prompt.text,
                responses=responses,
                truncated=sum(truncated),
                sampled_tokens=first.sampled_tokens + second.sampled_tokens,
                outcome=outcome_of(responses, truncated),
            )
        )
    return by_seed


def in_units(
    bench: Workbench,
    name: str,
    owner: str,
    prompts: Sequence[Prompt],
    unit: int,
    texts: int,
    draw: Callable[[Sequence[Prompt], Advance], Mapping[int, Sequence[TwoResponses]]],
) -> None:
    """Draw the pairs of responses that are not yet stored, one unit of prompts at a time.

    Args:
        name: the phase's name.
        owner: the folder of the arm whose responses they are.
        unit: prompts in a unit.
        texts: what the progress bar counts of a prompt, for all seeds together.
        draw: makes, by seed, what is stored of a unit's prompts.
    """
    done, units = bench.run.progress(name), -(-len(prompts) // unit)
    stored = min(done * unit, len(prompts))
    with (
        bench.budget.phase(name),
        bench.progress.bar(name, len(prompts) * texts, stored * texts, "texts") as bar,
    ):
        for number in range(done, units):
            bench.budget.check_budget()
            by_seed = draw(prompts[number * unit : (number + 1) * unit], bar.advance)
            files = {
                paths.responses(seed, owner): to_lines(one.dump() for one in of_seed)
                for seed, of_seed in by_seed.items()
            }
            bench.run.commit(name, number + 1, append=files)


@dataclass(frozen=True, slots=True)
class UnrevisedResponses:
    """For the control `unrevised`: the original of every revision chain, and another answer drawn as it was.

    Attributes:
        openers: beginnings of refusals; either answer has one with the probability `settings.refusal_prefill`.
        owner: the folder of the arm.
    """

    settings: Revision
    prompts: Sequence[Prompt]
    openers: Sequence[str]
    owner: str
    needs: tuple[str, ...] = (SFT,)

    @classmethod
    def of_arm(cls, arm: Arm, settings: Revision, inputs: Inputs) -> Self:
        """The responses that the arm's own pairs are made from."""
        return cls(settings, inputs.prompts, inputs.refusal_openers, arm.phase)

    @property
    def name(self) -> str:
        return f"responses of {self.owner}"

    def run(self, bench: Workbench) -> None:
        adapters = {adapter_name(SFT, seed): seed for seed in bench.remaining(SFT)}
        settings = self.settings
        sampling = Sampling(
            ("revision", self.owner),
            settings.temperature,
            settings.response_tokens,
            self.openers,
            settings.refusal_prefill,
        )
        if adapters:
            in_units(
                bench,
                self.name,
                self.owner,
                self.prompts,
                settings.unit,
                2 * len(adapters),
                lambda prompts, advance: two_responses(
                    bench.engine, bench.dialogue, sampling, adapters, prompts, advance
                ),
            )

    def cost(self, size: Size) -> Usage:
        return two_responses_cost(size, self.settings.response_tokens)

    @property
    def judged_responses(self) -> int:
        return 0

    def longest_request(self, size: Size) -> Request | None:
        return Request(max(size.questions))


def two_responses_cost(size: Size, limit: int) -> Usage:
    """An upper bound on the tokens of two responses of every seed to every prompt."""
    return Usage(prefilled=2 * size.seeds * sum(size.questions), sampled=2 * size.seeds * len(size.questions) * limit)
