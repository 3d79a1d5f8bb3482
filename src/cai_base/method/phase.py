"""What every phase has in common: what it works with, what it leaves, what it costs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from cai_base.dialogue import END, Dialogue, prompt_tokens
from cai_base.engines import Adapter, Engine, Tokenizer, Usage
from cai_base.inputs.prompts import Prompt
from cai_base.progress import Progress
from cai_base.records import Judgement
from cai_base.store import Run


class Budget(Protocol):
    """Where a phase's time and tokens are counted."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Count what is spent meanwhile under this name."""
        ...

    def check_budget(self) -> None:
        """Raises Stopped if the run has cost what it may."""
        ...


@dataclass(slots=True)
class Workbench:
    """What a phase works with.

    Attributes:
        engine: with the base model and the adapters of the phases before.
        seeds: every seed of the run.
        evaluate_every: steps between evaluations, and between checkpoints.
        evaluate: evaluates an arm at a step of its training, None at its end, from each seed's adapter.
        judge: the judge's opinion of responses to prompts.
        failed: for each phase the seeds that it lost, and why.
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
    failed: dict[str, dict[int, str]] = field(default_factory=dict)

    def fail(self, phase: str, seed: int, reason: str) -> None:
        """Record that a phase lost a seed."""
        self.failed.setdefault(phase, {})[seed] = reason

    def remaining(self, phase: str) -> list[int]:
        """The seeds that came through a phase."""
        return [seed for seed in self.seeds if seed not in self.failed.get(phase, {})]


@dataclass(frozen=True)
class Size:
    """How large a run is: what a phase's cost depends on beside its own settings.

    Attributes:
        seeds: how many.
        prompts: the method's prompts.
        response_tokens: the longest original or revision.
    """

    tokenizer: Tokenizer
    dialogue: Dialogue
    seeds: int
    prompts: Sequence[Prompt]
    response_tokens: int
    evaluate_every: int

    def length(self, text: str) -> int:
        """Tokens of a text that is continued, its first token included."""
        return len(prompt_tokens(self.tokenizer, text))

    @cached_property
    def questions(self) -> list[int]:
        """Tokens of every prompt behind the few-shot turns."""
        return [self.length(self.dialogue.question(prompt.text)) for prompt in self.prompts]

    @cached_property
    def answered_question(self) -> float:
        """Mean tokens of a prompt with the longest response and its end."""
        end = len(self.tokenizer.encode(END))
        return mean([question + self.response_tokens + end for question in self.questions])

    def evaluations(self, steps: int) -> int:
        """How often an arm of so many training steps is evaluated: at every interval, and at its end."""
        return -(-steps // self.evaluate_every)


@dataclass(frozen=True, slots=True)
class Request:
    """The longest text that a phase has the model continue: so many fixed tokens, responses and critiques."""

    fixed: int
    responses: int = 1
    critiques: int = 0


class Phase(Protocol):
    """One phase of the method. Its file says what it needs, does, stores and costs."""

    @property
    def name(self) -> str:
        """What it is called in progress, in the manifest and in tables of cost."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """The phases whose stored work it reads."""
        ...

    def run(self, bench: Workbench) -> None:
        """Do what is not yet stored, and store it. A seed that fails is recorded and holds no other seed."""
        ...

    def cost(self, size: Size) -> Usage:
        """The most tokens that it can take, for all seeds."""
        ...

    def longest_request(self, size: Size) -> Request | None:
        """The longest text that it has the model continue, for the check against the context; None if it has none."""
        ...


def mean(values: Sequence[float]) -> float:
    """The mean of numbers of tokens."""
    return sum(values) / len(values)
