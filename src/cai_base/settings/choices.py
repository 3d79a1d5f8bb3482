"""The parts of a run's settings that are no group of flags of their own, as the functions that need them take them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cai_base.settings.judges import JudgeName
from cai_base.settings.training import LoraSettings

if TYPE_CHECKING:
    from cai_base.settings.schema import Judging


@dataclass(frozen=True, slots=True)
class Host:
    """Where engines compute.

    Attributes:
        threads: CPU threads of an engine in this process; 0 takes one for each core.
        url: of one's own Tinker-API server; None for the hosted service.
        timeout: seconds without any answer from a service after which a run stops.
    """

    threads: int
    url: str | None
    timeout: float


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model and the engine that it runs in.

    Attributes:
        model: folder, GGUF file, hub id, the embedded model, or what a service calls it.
        tokenizer: folder of its tokenizer, where it is not the model's own.
        longest: tokens of the longest sequence to come.
        lora: shape of the adapters to train; None for a model that is not trained.
        thinking: whether a chat model may think before it answers.
    """

    model: str
    engine: str
    host: Host
    tokenizer: Path | None
    longest: int
    lora: LoraSettings | None = None
    thinking: bool = True


@dataclass(frozen=True, slots=True)
class InstructChoice:
    """The model of the instruct arm.

    Attributes:
        model: a whole model, or the folder of a PEFT adapter on the `base`; None for the embedded model's sibling.
        tokenizer: folder of its tokenizer, where a service does not give it.
    """

    model: str | None
    base: ModelChoice
    tokenizer: Path | None
    longest: int
    thinking: bool


@dataclass(frozen=True, slots=True)
class InterpreterChoice:
    """The model that critiques, revises and compares.

    Attributes:
        name: as `--interpreter` has it.
        base: the run's own model.
        own: every adapter interprets for itself.
        other: it is another model than the run's own.
    """

    name: str
    base: ModelChoice
    own: bool
    other: bool


@dataclass(frozen=True, slots=True)
class JudgeChoice:
    """A judge, and how it is asked.

    Attributes:
        flag: what names it, `judge` or `second-judge`.
        judge: as it was given there.
        url: where it is served, if it is asked at a URL.
        tokenizer: folder of its tokenizer, where a service does not give it.
        votes: how often it is asked about each answer.
    """

    flag: str
    judge: JudgeName
    url: str | None
    tokenizer: Path | None
    votes: int
    sampling: "Judging"
    host: Host


@dataclass(frozen=True, slots=True)
class Models:
    """Every model that a run asks.

    Attributes:
        base: the base model, which is trained.
        instruct: of the instruct arm.
        judges: by the flag that names each; `judge` is always there, if only as none.
    """

    base: ModelChoice
    instruct: InstructChoice
    interpreter: InterpreterChoice
    judges: Mapping[str, JudgeChoice]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a run compares, and how long it trains.

    Attributes:
        arms: all that are evaluated, in the order of tables.
        seeds: the seeds' numbers.
        steps: that each trained arm trains for, by its name.
        every: steps between evaluations.
    """

    arms: tuple[str, ...]
    seeds: range
    steps: Mapping[str, int]
    every: int
