"""Plans the runs for a study's cells: cells with equal settings are arms of one run."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from cai_base import arms
from cai_base.embedded import EMBEDDED
from cai_base.errors import UserError
from cai_base.reading import quote
from cai_base.settings.presets import Table, defaults, merge
from cai_base.settings.schema import RunSettings
from cai_base.settings.validation import Source, validated
from cai_base.studies.design import Cell, Design
from cai_base.text import split_names

ONE_THREAD = {"threads": 1}
"""Parallel runs have one thread each; results are reproducible for an equal number of threads."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        name: the name of its folder under `runs/`.
        table: the settings that the study gives; `settings` is complete.
        cells: indices of the cells that are its arms.
    """

    name: str
    table: Table
    settings: RunSettings
    cells: tuple[int, ...]


def plan(design: Design, flags: Table) -> tuple[PlannedRun, ...]:
    """The runs of a study, in the order of their first cells.

    Args:
        flags: settings of all runs, which override the file's.

    Raises:
        UserError: a setting is wrong, a flag sets what a factor varies, or a comparison is of an arm with itself.
    """
    _refuse_varied(design, flags)
    groups: dict[str, list[int]] = {}
    for place, cell in enumerate(design.cells):
        groups.setdefault(json.dumps(cell.settings, sort_keys=True), []).append(place)
    names = _names(design, list(groups.values()))
    runs = tuple(_planned(design, flags, name, members) for name, members in zip(names, groups.values(), strict=True))
    _refuse_equal_cells(design, runs)
    return runs


def _refuse_equal_cells(design: Design, runs: Sequence[PlannedRun]) -> None:
    """Raises UserError if two compared cells are the same arm under the same settings, defaults included."""
    settings: dict[int, str] = {}
    for run in runs:
        of_run = run.settings.model_dump_json(exclude={"arms", "control"})  # these name the arms of other cells too
        settings |= dict.fromkeys(run.cells, of_run)
    for comparison in design.comparisons:
        for first, second in zip(comparison.first, comparison.second, strict=True):
            one, other = design.cells[first], design.cells[second]
            if (settings[first], one.arm) == (settings[second], other.arm):
                differing = [factor for factor in design.factors if one.levels[factor] != other.levels[factor]]
                pairs = [
                    f"factor.{factor}: the levels {quote(other.levels[factor])} and {quote(one.levels[factor])}"
                    for factor in differing
                ]
                raise UserError(
                    f"{design.file}: {'; '.join(pairs)} have the same settings and arm, so {comparison.name} would "
                    f"compare {one.arm} with itself; change one of them, or remove it"
                )


def _planned(design: Design, flags: Table, name: str, members: Sequence[int]) -> PlannedRun:
    cells = [design.cells[place] for place in members]
    table = merge(merge(merge(ONE_THREAD, design.run), cells[0].settings), flags)
    table = table | _arms(design.file, table, cells)
    model, protocol = str(table.get("model", EMBEDDED)), str(table.get("protocol", ""))
    levels = ", ".join(f"{factor} {level}" for factor, level in cells[0].levels.items())
    file = Path(f"{design.file}: {levels}")
    settings = validated(merge(defaults(model, protocol), table), Source(flags, file, table))
    return PlannedRun(name, table, settings, tuple(members))


def _arms(file: Path, table: Table, cells: Sequence[Cell]) -> dict[str, str]:
    """The settings `arms` and `control` of a run: the arms of all its cells and those of the file."""
    of_file = [name for key in ("arms", "control") for name in _names_in(file, key, table.get(key))]
    all_arms = arms.in_order({arms.BASELINE, *of_file, *(cell.arm for cell in cells)} - {arms.BASE})
    controls = [name for name in all_arms if arms.arm(name).control]
    result = {"arms": ",".join(name for name in all_arms if name not in controls)}
    return result | ({"control": ",".join(controls)} if controls else {})


def _names_in(file: Path, key: str, value: object) -> tuple[str, ...]:
    try:
        return split_names(str(value)) if value else ()
    except ValueError as error:
        raise UserError(f"{file}: {key} {quote(value)} {error}") from None


def _refuse_varied(design: Design, flags: Table) -> None:
    varied = {name for cell in design.cells for name in _leaves(cell.settings)}
    for name in _leaves(flags):
        if name in varied:
            raise UserError(f"--{name}: is varied by the study {design.name}; leave it out, or change {design.file}")
        if name in ("arms", "control"):
            raise UserError(f"--{name}: the levels of a study name its arms; leave it out, or change {design.file}")


def _leaves(table: Table, prefix: str = "") -> list[str]:
    return [
        leaf
        for name, value in table.items()
        for leaf in (_leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [f"{prefix}{name}"])
    ]


def _names(design: Design, groups: Sequence[Sequence[int]]) -> list[str]:
    """A folder name for each run: the levels that distinguish it from the others."""
    firsts = [design.cells[members[0]].levels for members in groups]
    telling = [factor for factor in design.factors if len({levels[factor] for levels in firsts}) > 1]
    names: list[str] = []
    for levels in firsts:
        name = "_".join(_slug(f"{factor}-{levels[factor]}") for factor in telling) or "run"
        numbered = (f"{name}-{number}" for number in count(len(names) + 1))
        names.append(name if name not in names else next(one for one in numbered if one not in names))
    return names


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.+-]+", "-", text.lower()).strip("-.") or "level"
