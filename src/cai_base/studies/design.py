"""A study's file: a question, factors with their levels, and the comparisons that answer it.

A level is a table of settings by their names in `cai-base run`; it may also name the arm to evaluate. A cell is one
level of every factor. A comparison is the mean of some cells minus the mean of the cells that differ from them only in
the compared factors.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cai_base import arms
from cai_base.errors import UserError
from cai_base.reading import Entry, Text, build, listed, parse_toml, quote, read_text, suggestion, unknown
from cai_base.settings.presets import Table, merge
from cai_base.settings.validation import check_table

PACKAGED = "studies"
"""The folder of packaged studies under `data/`."""
ARM = "arm"
"""The only name in a level that is not a setting: the arm whose answers are analysed."""

Levels = dict[str, str]
"""One level for each factor, by the factor's name."""
_FILE = "a study: a TOML file with a question and [factor.NAME.LEVEL] tables of settings"


class Compare(Entry):
    """A comparison as written in the file.

    Attributes:
        name: its name in the results; by default made from the levels.
        first, second: levels, by factor; the difference is first minus second.
        within: further levels, common to both sides.
        beyond: for an interaction: the levels, instead of `within`, at which the same difference is subtracted.
    """

    name: Text | None = None
    first: Levels
    second: Levels
    within: Levels = Field(default_factory=dict)
    beyond: Levels | None = None


class _Quick(Entry):
    """The changes by `--quick`: settings of all runs, and the remaining levels of some factors."""

    run: dict[str, object] = Field(default_factory=dict)
    levels: dict[str, list[str]] = Field(default_factory=dict)


class _File(Entry):
    """The content of a study's file. Its tables hold settings: names are checked here, values when a run is planned."""

    question: Text
    about: str = ""
    arm: Text = arms.FULL
    run: dict[str, object] = Field(default_factory=dict)
    quick: _Quick = Field(default_factory=_Quick)
    factor: Annotated[dict[str, dict[str, dict[str, object]]], Field(min_length=1)]
    without: list[Levels] = Field(default_factory=list)
    compare: list[Compare] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cell:
    """One level of every factor.

    Attributes:
        levels: its level of each factor.
        settings: the merged settings of its levels.
        arm: the arm whose answers are analysed.
    """

    levels: Mapping[str, str]
    settings: Table
    arm: str

    def has(self, levels: Mapping[str, str]) -> bool:
        """Whether it has all of these levels."""
        return all(self.levels[factor] == level for factor, level in levels.items())


@dataclass(frozen=True, slots=True)
class Comparison:
    """A difference between means of cells.

    Attributes:
        first, second: indices of cells; the cells at the same position differ only in the compared factors.
        scale: a factor for the difference of the means: 1, or 2 for an interaction, because a difference of differences
            is twice the difference between two means of two cells.
    """

    name: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    scale: int = 1


@dataclass(frozen=True, slots=True)
class Design:
    """A checked study.

    Attributes:
        name: the file's name without its ending.
        run: settings of all runs.
        factors: each factor's levels, in the order of the file.
    """

    name: str
    file: Path
    question: str
    about: str
    run: Table
    factors: Mapping[str, tuple[str, ...]]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]


def packaged_studies() -> dict[str, Path]:
    """The packaged studies by name."""
    folder = resources.files("cai_base") / "data" / PACKAGED
    files = (file for file in folder.iterdir() if isinstance(file, Path) and file.suffix == ".toml")
    return {file.stem: file for file in sorted(files)}


def question_of(file: Path) -> str:
    """The question of a study's file."""
    return _read(file).question


def find(name: str) -> Path:
    """The file of a study: a packaged one by its name, or a path.

    Raises:
        UserError: there is no such study.
    """
    packaged = packaged_studies()
    if name in packaged:
        return packaged[name]
    if name.endswith(".toml") or Path(name).is_file():
        return Path(name)
    remedy = suggestion(name, packaged) or f"the packaged ones are {listed(list(packaged))}."
    raise UserError(f"{name}: no such study; {remedy} You can also give your own TOML file")


def read_design(file: Path, *, quick: bool = False) -> Design:
    """The study in a file.

    Args:
        quick: apply the changes of its `[quick]` tables.

    Raises:
        UserError: a setting, arm, factor or level is unknown, or a comparison has no cells.
    """
    content = _read(file)
    factors = _factors(file, content, quick)
    cells = tuple(_cells(file, content, factors))
    if not cells:
        raise UserError(f"{file}: `without` leaves no cell; remove an entry")
    return Design(
        name=file.stem,
        file=file,
        question=content.question,
        about=content.about,
        run=merge(content.run, content.quick.run if quick else {}),
        factors={factor: tuple(levels) for factor, levels in factors.items()},
        cells=cells,
        comparisons=_comparisons(file, content, factors, cells, quick=quick),
    )


def _read(file: Path) -> _File:
    return build(_File, parse_toml(file, read_text(file, _FILE)), str(file))


@dataclass(frozen=True, slots=True)
class _Level:
    """A level of a factor: settings, and the arm whose answers the cell is about; None for the study's."""

    settings: Table
    arm: str | None


Factors = Mapping[str, Mapping[str, _Level]]


def _factors(file: Path, content: _File, quick: bool) -> Factors:
    """The factors with the levels in use, checked."""
    _check_settings(file, "run", content.run)
    _check_settings(file, "quick.run", content.quick.run)
    _arm(f"{file}: arm", content.arm)
    for factor, levels in content.factor.items():
        if len(levels) < 2:
            raise UserError(f"{file}: factor.{factor}: has one level; a factor needs at least two")
    factors = {
        factor: {level: _level(file, f"factor.{factor}.{level}", table) for level, table in levels.items()}
        for factor, levels in content.factor.items()
    }
    for factor, remaining in content.quick.levels.items():
        _check_levels(file, "quick.levels", content.factor, dict.fromkeys((factor,), ""), with_levels=False)
        for level in remaining:
            _check_levels(file, "quick.levels", content.factor, {factor: level})
    chosen = content.quick.levels if quick else {}
    return {
        factor: {name: level for name, level in levels.items() if name in chosen.get(factor, levels)}
        for factor, levels in factors.items()
    }


def _level(file: Path, name: str, table: Table) -> _Level:
    settings = {key: value for key, value in table.items() if key != ARM}
    _check_settings(file, name, settings)
    return _Level(settings, _arm(f"{file}: {name}.{ARM}", table[ARM]) if ARM in table else None)


def _check_settings(file: Path, table: str, settings: Table) -> None:
    """Raises UserError, with the file and the table, if a name is not a setting."""
    check_table(Path(f"{file}: [{table}]"), settings)


def _arm(where: str, name: object) -> str:
    if not isinstance(name, str) or name not in arms.ARMS:
        raise UserError(f"{where} {quote(name)}: is not an arm; the arms are {listed(list(arms.ARMS))}")
    return name


def _check_levels(
    file: Path, where: str, factors: Mapping[str, Mapping[str, object]], levels: Levels, *, with_levels: bool = True
) -> None:
    """Raises UserError for an unknown factor or level."""
    for factor, level in levels.items():
        if factor not in factors:
            raise UserError(f"{file}: {where}: {unknown('factor', factor, list(factors))}")
        if with_levels and level not in factors[factor]:
            raise UserError(f"{file}: {where}.{factor}: {unknown('level', level, list(factors[factor]))}")


def _cells(file: Path, content: _File, factors: Factors) -> Iterator[Cell]:
    """Every combination of levels except those of `without`."""
    for entry in content.without:
        _check_levels(file, "without", content.factor, entry)
    for combination in product(*(levels.items() for levels in factors.values())):
        names = {factor: level for factor, (level, _) in zip(factors, combination, strict=True)}
        if any(all(names[factor] == level for factor, level in entry.items()) for entry in content.without):
            continue
        settings: Table = {}
        arm = content.arm
        for _, level in combination:
            settings = merge(settings, level.settings)
            arm = level.arm or arm
        yield Cell(names, settings, arm)


def _comparisons(
    file: Path, content: _File, factors: Factors, cells: Sequence[Cell], *, quick: bool
) -> tuple[Comparison, ...]:
    """The file's comparisons; if it has none, every level minus the first level of its factor."""
    entries = content.compare
    for entry in entries:
        for where, levels in (("first", entry.first), ("second", entry.second), ("within", entry.within)):
            _check_levels(file, f"compare.{where}", content.factor, levels)
        _check_levels(file, "compare.beyond", content.factor, entry.beyond or {})
        if entry.first.keys() != entry.second.keys() or entry.first == entry.second:
            raise UserError(
                f"{file}: compare: first {quote(entry.first)} and second {quote(entry.second)} must have the same "
                "factors and differ in at least one level"
            )
    if not entries:
        entries = [
            Compare(first={factor: level}, second={factor: next(iter(levels))})
            for factor, levels in factors.items()
            for level in list(levels)[1:]
        ]
    comparisons = []
    for entry in entries:
        comparison = _comparison(entry, cells)
        if comparison is not None:
            comparisons.append(comparison)
        elif not quick:
            raise UserError(f"{file}: compare {_name(entry)}: no two cells differ only in these factors; see `without`")
    if not comparisons:
        raise UserError(f"{file}: --quick leaves nothing to compare; keep two levels of a factor in [quick.levels]")
    return tuple(comparisons)


def _name(entry: Compare) -> str:
    def words(levels: Levels) -> str:
        return ", ".join(f"{factor} {level}" for factor, level in levels.items())

    if entry.name is not None:
        return entry.name
    name = f"{words(entry.first)} - {words(entry.second)}"
    name += f" ({words(entry.within)})" if entry.within else ""
    return name + (f" beyond ({words(entry.beyond)})" if entry.beyond is not None else "")


def _comparison(entry: Compare, cells: Sequence[Cell]) -> Comparison | None:
    """The pairs of cells that an entry compares; None if there are none."""
    pairs = _pairs(entry, {}, cells)
    if entry.beyond is None:
        return Comparison(_name(entry), *_sides(pairs)) if pairs else None
    others = _pairs(entry, entry.beyond, cells)
    if not pairs or len(pairs) != len(others):
        return None
    # (a - b) - (c - d) is 2 ((a + d) / 2 - (b + c) / 2), a difference of means like every other.
    (first, second), (other_first, other_second) = _sides(pairs), _sides(others)
    return Comparison(_name(entry), (*first, *other_second), (*second, *other_first), scale=2)


def _pairs(entry: Compare, instead: Levels, cells: Sequence[Cell]) -> list[tuple[int, int]]:
    within = entry.within | instead
    places = {tuple(cell.levels.values()): place for place, cell in enumerate(cells)}
    pairs = []
    for place, cell in enumerate(cells):
        if cell.has(entry.first | within):
            partner = places.get(tuple((cell.levels | entry.second).values()))  # type: ignore[operator]
            if partner is not None:
                pairs.append((place, partner))
    return pairs


def _sides(pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(first for first, _ in pairs), tuple(second for _, second in pairs)
