"""What `cai-base compare` finds: runs beside one another."""

from typing import Literal

from pydantic import Field

from cai_base.records.figures import Difference, NamedFailure
from cai_base.records.stored import Stored


class ComparedRun(Stored):
    """A run in a comparison.

    Attributes:
        name: its folder's name; the path where two folders have the same.
        arms: by arm, the mean of every metric over all its seeds and prompts.
        failures: of its arms, as in its results: with one, a low attack success is no success.
        warnings: as in its results, also of changed files that were accepted.
    """

    name: str
    model: str
    model_organism: bool
    judge: str
    seeds: tuple[int, ...]
    arms: dict[str, dict[str, float | None]]
    failures: tuple[NamedFailure, ...] = ()
    warnings: tuple[str, ...] = ()


class Against(Stored):
    """A run minus the first one, in the arms that both have.

    Attributes:
        run: the run's name.
        seeds: the seeds that both have.
        prompts: the number of evaluation prompts, equal in id and text, that both have.
        arms: by arm and metric, the difference over these seeds and prompts alone. Empty where nothing is shared.
        same_answers: arms whose stored answers are equal in both runs; no difference is computed of them.
        left_out: metrics of both runs that are not compared, since each run measures them with its own base model.
    """

    run: str
    seeds: tuple[int, ...]
    prompts: int
    arms: dict[str, dict[str, Difference]]
    same_answers: tuple[str, ...]
    left_out: tuple[str, ...]


class RunsCompared(Stored):
    """Runs beside one another.

    Attributes:
        settings: every setting, or input, in which the runs differ, with each run's value as JSON.
        against_first: every other run minus the first.
        warnings: what makes a difference hard to read, such as another judge.
    """

    version: Literal[1] = Field(alias="schema")
    runs: tuple[ComparedRun, ...]
    settings: dict[str, tuple[str, ...]]
    against_first: tuple[Against, ...]
    warnings: tuple[str, ...]
