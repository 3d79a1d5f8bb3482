"""The interface of a phase of the method, the objects it works with, and the size of a run that its cost depends on."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

from cai_base.dialogue import END, Dialogue, prompt_tokens
from cai_base.engines import Adapter, Engine, Tokenizer, Usage
from cai_base.inputs.prompts import Prompt
from cai_base.method.interpreter import Interpreter
from cai_base.progress import Progress
from cai_base.records import Judgement
from cai_base.store import Run


def adapter_name(phase: str, seed: int) -> Adapter:
    """The name in the engine of the adapter that a phase trains for a seed."""
    return f"{phase}/{seed}"


def adapter_seed(adapter: Adapter) -> int:
    """The seed of an adapter that `adapter_name` named.

    Raises:
        ValueError: it did not name it.
    """
    _, slash, seed = adapter.rpartition("/")
    if not slash:
        raise ValueError(f"{adapter!r} is not the name of a phase's adapter, such as sft/0")
    return int(seed)


class Budget(Protocol):
    """Counts the time and the tokens of phases, and enforces the cost limit."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Attribute the time and tokens spent inside the `with` block to the phase of this name."""
        ...

    def check_budget(self) -> None:
        """Raise Stopped if the run has reached its cost limit."""
        ...


@dataclass(slots=True)
class Workbench:
    """What a phase works with.

    Attributes:
        engine: with the base model and the adapters of the phases before.
        seeds: every seed of the run.
        evaluate_every: steps between evaluations, and between checkpoints.
        evaluate: evaluates an arm at a step of its training, None at its end, from each seed's adapter.
        judge: the judge's judgements of responses to prompts.
        interpreter: the model that critiques, revises and compares.
        failed: by phase, the seeds that failed in it, each with the reason.
    """

    engine: Engine
    run: Run
    dialogue: Dialogue
    seeds: Sequence[int]
    evaluate_every: int
    evaluate: Callable[[str, int | None, Mapping[int, Adapter]], None]
    judge: Callable[[Sequence[tuple[Prompt, str]]], Sequence[Judgement]]
    budget: Budget
    progress: Progress
    interpreter: Interpreter
    failed: dict[str, dict[int, str]] = field(default_factory=dict)

    def fail(self, phase: str, seed: int, reason: str) -> None:
        """Record that a seed failed in a phase."""
        self.failed.setdefault(phase, {})[seed] = reason

    def remaining(self, *phases: str) -> list[int]:
        """The seeds that did not fail in any of these phases."""
        return [seed for seed in self.seeds if not any(seed in self.failed.get(phase, {}) for phase in phases)]


@dataclass(frozen=True)
class Size:
    """The size of a run: what a phase's cost depends on beside its own settings.

    Attributes:
        seeds: the number of seeds.
        prompts: the method's prompts.
        response_tokens: the most tokens of an original or a revision.
    """

    tokenizer: Tokenizer
    dialogue: Dialogue
    seeds: int
    prompts: Sequence[Prompt]
    response_tokens: int
    evaluate_every: int

    def length(self, text: str) -> int:
        """Tokens of a text to continue, including the beginning-of-text token."""
        return len(prompt_tokens(self.tokenizer, text))

    @cached_property
    def questions(self) -> list[int]:
        """Tokens of every prompt, each with the few-shot prefix before it."""
        return [self.length(self.dialogue.question(prompt.text)) for prompt in self.prompts]

    @cached_property
    def answered_question(self) -> float:
        """Mean tokens of a prompt with a response of maximal length and its end."""
        end = len(self.tokenizer.encode(END))
        return mean([question + self.response_tokens + end for question in self.questions])


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of a phase's longest request, the text to be sampled included.

    Attributes:
        fixed: tokens of everything but responses and critiques.
        responses, critiques: how many of maximal length it must have room for.
        shared: whether responses are shortened for it, as they are for every request that holds a critique.
    """

    fixed: int
    responses: int = 1
    critiques: int = 0
    shared: bool = False


class Phase(Protocol):
    """One phase of the method. Its file says what it needs, does, stores and costs."""

    @property
    def name(self) -> str:
        """Its name in progress output, in the manifest and in cost tables."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """The phases whose stored work it reads."""
        ...

    def run(self, bench: Workbench) -> None:
        """Do what is not yet stored, and store it. A seed that fails is recorded and holds no other seed."""
        ...

    def cost(self, size: Size) -> Usage:
        """An upper bound on its tokens, for all seeds."""
        ...

    @property
    def judged_responses(self) -> int:
        """How many responses to each of the method's prompts, for each seed, the judge reads."""
        ...

    def longest_request(self, size: Size) -> Request | None:
        """Its longest request, which must fit the model's context; None if its requests need no check."""
        ...


@runtime_checkable
class Interpreting(Protocol):
    """A phase of which a part is the interpreter's work."""

    def interpreter_cost(self, size: Size) -> Usage:
        """What of the phase's cost is the interpreter's."""
        ...


def mean(values: Sequence[float]) -> float:
    """The mean of one or more values."""
    return sum(values) / len(values)
