"""Parts of a run's settings, for functions that need only these: the host, a model, the interpreter, a judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cai_base.arms import arm
from cai_base.settings.judges import JudgeName
from cai_base.settings.training import LoraSettings
from cai_base.settings.values import Dtype

if TYPE_CHECKING:
    from cai_base.settings.schema import Judging


@dataclass(frozen=True, slots=True)
class Host:
    """The hardware and service on which engines run.

    Attributes:
        threads: CPU threads of an engine in this process; 0 for one per core.
        dtype: the precision of models in this process: `float32`, `bfloat16`, or `auto`.
        url: the URL of a Tinker-API server; None for the hosted service.
        timeout: a run stops after this many seconds without a response from the service.
    """

    threads: int
    url: str | None
    timeout: float
    dtype: Dtype = "auto"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model and its engine.

    Attributes:
        model: folder, GGUF file, hub id, the embedded model, or its name on a service.
        tokenizer: folder of its tokenizer; None for the model's own.
        longest: tokens of the longest sequence that it will process.
        lora: rank and alpha of the adapters to train; None if the model is not trained.
        adapters: how many are trained together.
        thinking: whether a chat model may think before it answers.
    """

    model: str
    engine: str
    host: Host
    tokenizer: Path | None
    longest: int
    lora: LoraSettings | None = None
    thinking: bool = True
    adapters: int = 1


@dataclass(frozen=True, slots=True)
class InstructChoice:
    """The model of the instruct arm.

    Attributes:
        model: a full model, or the folder of a PEFT adapter on `base`; None for the embedded model's sibling.
        tokenizer: folder of its tokenizer, if a service does not provide it.
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
        name: the value of `--interpreter`.
        base: the run's own model.
        own: whether every SFT adapter is its own interpreter.
        other: whether it is a model other than the run's.
    """

    name: str
    base: ModelChoice
    own: bool
    other: bool


@dataclass(frozen=True, slots=True)
class JudgeChoice:
    """A judge and its access.

    Attributes:
        flag: the flag that names it, `judge` or `second-judge`.
        judge: the value of that flag.
        url: the URL of its endpoint, if it has one.
        tokenizer: folder of its tokenizer, if a service does not provide it.
        votes: its number of votes on each answer.
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

    @property
    def evaluations(self) -> int:
        """How often its arms answer the evaluation prompts."""
        return sum(arm(name).evaluations(self.steps, self.every) for name in self.arms)
