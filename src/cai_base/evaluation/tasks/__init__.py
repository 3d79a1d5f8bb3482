"""Evaluation tasks: the questions to an arm, how they are asked, and what is stored of each answer. One file per task.

`prompts` are judged answers to prompts, a run's own or a suite's; `styles` are answers in thirteen styles;
`comparisons` are given answers, whose log-probabilities are compared. `cai_base.run.evaluation` asks them of any arm.
`pairwise` asks no arm: it has a judge compare two arms' stored answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cai_base import randomness
from cai_base.dialogue import Layout
from cai_base.engines import Adapter, Engine, Sample, SampleListener, SampleRequest
from cai_base.evaluation.judges import Judge
from cai_base.records import Stored
from cai_base.settings.schema import Evaluation

ANSWER = "answer"
"""The purpose in the address of an answer's random draw. Arms with the same purpose are sampled with the same random
numbers."""


Revise = Callable[[Sequence[Adapter | None], Sequence[int], Sequence["Query"], Sequence[Sample]], list[Sample]]
"""What an arm does with its answers before they count; it takes models, seeds, queries and answers, one each."""


@dataclass(frozen=True, slots=True)
class LoadedArm:
    """An arm whose models can be asked.

    Attributes:
        layout: the layout of its prompts: few-shot turns for a base model, the chat template for a chat model.
        models: each seed's adapter; None is the engine's model without an adapter.
        draw: the purpose in the address of its answers' draws.
        notes: sentences about how it is asked that a reader of the results should know.
        revise: what it does with its answers before they count; None for an arm whose first answer counts.
        listener: hears of every token of its answers.
    """

    name: str
    engine: Engine
    layout: Layout
    models: Mapping[int, Adapter | None]
    draw: str = ANSWER
    notes: tuple[str, ...] = ()
    revise: Revise | None = None
    listener: SampleListener | None = None


Item = TypeVar("Item")
Result = TypeVar("Result", bound=Stored)


class Task(Protocol[Item, Result]):
    """One evaluation task."""

    @property
    def record(self) -> type[Result]:
        """The type of what is stored of one answer."""
        ...

    @property
    def judged(self) -> bool:
        """Whether judges are asked about the answers."""
        ...

    @property
    def items(self) -> Sequence[Item]:
        """What every model is asked, in order."""
        ...

    @property
    def unit(self) -> int:
        """How many items are asked, and stored, together."""
        ...

    def answer(
        self, arm: LoadedArm, items: Sequence[Item], settings: Evaluation, judges: Mapping[str, Judge]
    ) -> dict[int, list[Result]]:
        """For each seed of the arm one record for each item, in order."""
        ...

    def answers(self, item: Item, record: Result) -> bool:
        """Whether a stored record is of this item."""
        ...


@dataclass(frozen=True, slots=True)
class Query:
    """A prompt's text, and the address of its answer's draw behind the seed."""

    text: str
    address: tuple[str, ...]


def sample_answers(
    engine: Engine,
    layout: Layout,
    settings: Evaluation,
    queries: Sequence[Query],
    models: Mapping[int, Adapter | None],
    revise: Revise | None = None,
    listener: SampleListener | None = None,
) -> dict[int, list[Sample]]:
    """Every model's answer to every query, one each, in the same layout.

    An answer is drawn at the address (seed, query), so that all arms are sampled with the same random numbers.

    Args:
        layout: the few-shot turns of a base model, or a chat model's own template.
        models: each seed's adapter, or None for the base model.
        revise: what is done with the answers before they count.
        listener: hears of every token that is drawn, but for those of revisions.

    Returns:
        For each seed the samples, in the order of the queries.
    """
    requests = [
        SampleRequest(
            adapter=adapter,
            prompt=layout.question_tokens(engine.tokenizer, query.text),
            max_tokens=settings.response_tokens,
            temperature=settings.temperature,
            stop=layout.stops,
            seed=randomness.seed(seed, *query.address),
        )
        for seed, adapter in models.items()
        for query in queries
    ]
    samples = engine.sample(requests, listener)
    if revise is not None:
        adapters, seeds = [request.adapter for request in requests], [seed for seed in models for _ in queries]
        samples = revise(adapters, seeds, [query for _ in models for query in queries], samples)
    each = iter(samples)
    return {seed: [next(each) for _ in queries] for seed in models}
