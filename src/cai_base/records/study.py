"""What a study stores: its plan, `plan.json`, and its results, `study.json`."""

from typing import Literal

from pydantic import Field, JsonValue

from cai_base.records.figures import Difference, Figure, NamedFailure
from cai_base.records.results import PairwiseFigures
from cai_base.records.stored import Stored


class StudyCell(Stored):
    """One level of every factor.

    Attributes:
        levels: by factor.
        arm: the arm whose answers it is about.
        run: the run that has this arm, a folder under `runs/`.
    """

    levels: dict[str, str]
    arm: str
    run: str


class StudyContrast(Stored):
    """What a comparison takes the difference of: the mean of the first cells minus the mean of the second.

    Attributes:
        first, second: indices of cells.
        scale: what the difference is multiplied by; 2 for an interaction.
        later: it was added to the study after its runs had begun.
    """

    name: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    scale: int
    later: bool = False


class StudyPlan(Stored):
    """The content of `plan.json`: all that the results depend on.

    Attributes:
        factors: the levels of each.
        runs: the settings of each run by its name, as in its `config.json` before its context was fitted.
        primary: the primary metrics.
    """

    schema_: Literal[1] = Field(alias="schema")
    study: str
    question: str
    about: str
    factors: dict[str, tuple[str, ...]]
    primary: tuple[str, ...]
    cells: tuple[StudyCell, ...]
    contrasts: tuple[StudyContrast, ...]
    runs: dict[str, dict[str, JsonValue]]


class CellResults(Stored):
    """One cell's figures.

    Attributes:
        figures: by metric; empty if no seed of its arm finished.
        minus_sft: the cell's arm minus SFT of the same run; empty for SFT itself.
        failures: its arm's failures, as in the results of its run: with one, a low attack success is no success.
        pairwise: the help of its answers beside those of SFT of the same run; absent where the judge does not compare.
    """

    levels: dict[str, str]
    arm: str
    run: str
    figures: dict[str, Figure]
    minus_sft: dict[str, Difference]
    failures: tuple[NamedFailure, ...] = ()
    pairwise: PairwiseFigures | None = None


class ComparisonResults(Stored):
    """One comparison of a study.

    Attributes:
        metrics: by name, first minus second, paired by seed and prompt; `p_primary` is corrected for the primary
            metrics of all comparisons of the study.
        later: it was added to the study after its runs had begun, perhaps with their results in view.
    """

    name: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    scale: int
    metrics: dict[str, Difference]
    later: bool = False


class StudyResults(Stored):
    """The content of `study.json`.

    Attributes:
        shared: for every run the stages that were made by an earlier run, with that run's name.
        warnings: of all runs, each once, with the runs that have it.
    """

    schema_: Literal[1] = Field(alias="schema")
    study: str
    question: str
    about: str
    model: str
    model_organism: bool
    judge: str | None
    engine: str
    seeds: tuple[int, ...]
    prompts: dict[str, int]
    factors: dict[str, tuple[str, ...]]
    primary: tuple[str, ...]
    intervals: str
    cells: tuple[CellResults, ...]
    comparisons: tuple[ComparisonResults, ...]
    shared: dict[str, dict[str, str]]
    warnings: dict[str, tuple[str, ...]]
