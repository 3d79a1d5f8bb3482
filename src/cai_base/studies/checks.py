"""Checks of a study's files that the types of their fields do not cover: every name and every place is known."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cai_base import arms
from cai_base.errors import UserError
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.reading import quote
from cai_base.records import CellResults, StudyCell, StudyPlan, StudyResults

MOST_SCALE = 64
"""A comparison's difference is multiplied by 1, or by 2 for each factor of an interaction beyond the first."""
LONGEST_NAME = 200
REMEDY = "restore the file, or run the study in a new folder"


def check_plan(file: Path, plan: StudyPlan) -> None:
    """Raise UserError if a plan names an arm, a run, a level, a metric or a cell that there is not."""
    if not plan.runs or not plan.cells:
        raise _fault(file, "cells and runs", "a study has at least one of each")
    for name in plan.runs:
        if Path(name).name != name or name in ("", ".", "..") or not name.isprintable() or len(name) > LONGEST_NAME:
            raise _fault(file, "runs", f"{quote(name)} is not the name of a folder")
    folders: dict[str, str] = {}
    for name in plan.runs:
        other = folders.setdefault(name.casefold(), name)
        if other != name:
            raise _fault(file, "runs", f"{quote(other)} and {quote(name)} are one folder on some disks")
    _check_metrics(file, "primary", plan.primary)
    _check_cells(file, plan.cells, plan.factors)
    for cell in plan.cells:
        if cell.run not in plan.runs:
            raise _fault(file, "cells", f"{quote(cell.run)} is not one of its runs")
    for contrast in plan.contrasts:
        places = {*contrast.first, *contrast.second}
        if not contrast.first or not contrast.second or not places <= {*range(len(plan.cells))}:
            raise _fault(file, "contrasts", f"both sides must be indices of its {len(plan.cells)} cells")
        if not 1 <= contrast.scale <= MOST_SCALE:
            raise _fault(file, "contrasts", f"the scale must be from 1 to {MOST_SCALE}")


def check_results(file: Path, results: StudyResults) -> None:
    """Raise UserError if results name an arm, a level or a metric that there is not, or lack a primary metric."""
    _check_metrics(file, "primary", results.primary)
    _check_cells(file, results.cells, results.factors)
    for cell in results.cells:
        _check_metrics(file, "cells", [*cell.figures, *cell.minus_sft])
        _check_metrics(file, "cells", [failure.metric for failure in cell.failures])
        if any(failure.arm != cell.arm for failure in cell.failures):
            raise _fault(file, "cells", "the failures of a cell must be of its arm")
        for field in (cell.figures, cell.minus_sft):
            if field and not {*results.primary} <= field.keys():
                raise _fault(file, "cells", "a primary metric is missing")
    for comparison in results.comparisons:
        _check_metrics(file, "comparisons", comparison.metrics)
        if not {*results.primary} <= comparison.metrics.keys():
            raise _fault(file, "comparisons", "a primary metric is missing")


def _check_cells(
    file: Path, cells: Sequence[StudyCell] | Sequence[CellResults], factors: Mapping[str, Sequence[str]]
) -> None:
    for cell in cells:
        if cell.arm not in arms.ARMS:
            raise _fault(file, "cells", f"{quote(cell.arm)} is not an arm")
        if cell.levels.keys() != factors.keys() or any(level not in factors[one] for one, level in cell.levels.items()):
            raise _fault(file, "cells", "each must have one level of every factor")


def _check_metrics(file: Path, field: str, names: Iterable[str]) -> None:
    for name in names:
        if name not in METRICS:
            raise _fault(file, field, f"{quote(name)} is not a metric")


def _fault(file: Path, field: str, what: str) -> UserError:
    return UserError(f"{file}: {field}: {what}; {REMEDY}")
