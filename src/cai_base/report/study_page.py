"""A study's page, `study.html`, and its table in the terminal, made only from `study.json`."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.axes import Axes
from rich.console import Console
from rich.text import Text

from cai_base import __version__
from cai_base.evaluation.measures import Metric
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.reading import read_record
from cai_base.records import ATTACK, HELPFULNESS, OVER_REFUSAL, CellResults, ComparisonResults, Difference, StudyResults
from cai_base.report.labels import ORGANISM, label
from cai_base.report.notes import judge_note
from cai_base.report.numbers import NONE, RATE, heading, interval, number, p_value
from cai_base.report.plotting import FAINT, INK, Picture, Sheet, arm_colours
from cai_base.report.table import draw, page, prose, warn
from cai_base.report.tables import Cell, Row, Table, detectable_cell, difference_cell, families_cell, mean_cell
from cai_base.report.web import web_environment
from cai_base.store import write_atomic
from cai_base.studies import folder
from cai_base.studies.checks import check_results
from cai_base.text import counted

PAGE = "study.html"
LEVEL = 0.05
"""The significance level of the summary at the top of the page."""
NAME, NAME_LINES = 34, 2
"""The most characters of a line of a comparison's name in a figure, and of its lines; the table has the full name."""
ROW, TALL_ROW = 0.3, 0.42
"""Inches of a row of a figure, and of one where names have two lines."""


def load(study: Path) -> StudyResults:
    """The results of a study.

    Raises:
        UserError: the folder has none.
    """
    remedy = "run the study's command again"
    results = read_record(study / folder.RESULTS, StudyResults, "the results of a study", remedy)
    check_results(study / folder.RESULTS, results)
    return results


def write(study: Path) -> Path:
    """Write the page into the study's folder. Returns its path."""
    results = load(study)
    text = web_environment().get_template("study.html").render(_content(results))
    write_atomic(study / PAGE, text.encode())
    return study / PAGE


def table(study: Path) -> str:
    """The tables for the terminal."""
    results = load(study)

    def print_to(console: Console) -> None:
        warnings = [f"{warning} ({counted(len(runs), 'run')})" for warning, runs in results.warnings.items()]
        warn(console, failures(results), warnings)
        prose(console, answer(results), "bold")
        draw(console, comparison_table(results))
        draw(console, cell_table(results))
        for note in judge_note(results.judge):
            console.print(Text(note, style="dim"))
        if results.model_organism:
            console.print(Text(ORGANISM, style="dim"))

    return page(print_to)


def answer(results: StudyResults) -> str:
    """Which primary comparisons show a difference, over what, whether also over families, and how many do not."""
    primary = [
        (compared, name, difference)
        for compared in results.comparisons
        for name, difference in _primary(results, compared)
    ]
    significant = [one for one in primary if _is_shown(one[2].p_primary) and one[2].difference is not None]
    families = {one.over_families.families for _, _, one in primary if one.over_families is not None}
    over = next((one.ci95_over for _, _, one in primary if one.ci95_over is not None), "seeds")
    of_these = f", for these {max(families)} families of jailbreak prompts" if families else ""
    count = len(primary) - len(significant)
    rest = f"{count} of {len(primary)} primary comparisons show no difference at the 5 % level"
    if not significant:
        return f"{rest}, over {over}{of_these}."
    differences = [
        f"{_name(compared)}: {METRICS[name].label.lower()} {_difference(METRICS[name], difference)}"
        for compared, name, difference in significant
    ]
    sentences = [f"Shown after Holm's correction, over {over}{of_these}: {'; '.join(differences)}."]
    if any(difference.over_families is not None for _, _, difference in significant):
        sentences.append(_over_families(significant))
    return " ".join([*sentences, f"{rest}."] if count else sentences)


def _over_families(significant: Sequence[tuple[ComparisonResults, str, Difference]]) -> str:
    """Which of the differences in metrics with families are also shown with families as a sample."""
    with_families = [
        (f"{_name(compared)} ({METRICS[name].label.lower()})", difference.over_families)
        for compared, name, difference in significant
        if difference.over_families is not None
    ]
    names = [name for name, sample in with_families if _is_shown(sample.p_primary)]
    which = f": {'; '.join(names)}" if names else ""
    count = f"{len(names) or 'none'} of the {len(with_families)} that are about jailbreak prompts"
    return (
        f"With families as a random sample, for other families, {count} {'holds' if len(names) == 1 else 'hold'} after "
        f"the same correction{which}."
    )


def _is_shown(p: float | None) -> bool:
    return p is not None and p < LEVEL


def failures(results: StudyResults) -> list[str]:
    """The failures of the cells, a sentence each."""
    return [f"{_cell_name(cell)} ({label(cell.arm)}): {one.text}" for cell in results.cells for one in cell.failures]


def comparison_table(results: StudyResults) -> Table:
    """Every comparison in the primary metrics: difference with interval, p values, smallest detectable difference."""
    rows = [
        Row(
            f"{_name(compared)}: {heading(METRICS[name])}",
            (
                _marked(difference_cell(METRICS[name], difference), results, compared),
                families_cell(METRICS[name], difference),
                Cell(p_value(difference.p_value)),
                Cell(p_value(difference.p_primary)),
                Cell(p_value(None if difference.over_families is None else difference.over_families.p_primary)),
                detectable_cell(METRICS[name], difference, compared.scale),
            ),
        )
        for compared in results.comparisons
        for name, difference in _primary(results, compared)
    ]
    columns = ("difference", "over families", "p", "p, Holm", "over families", "smallest detectable")
    return Table("comparison", columns, tuple(rows))


def _marked(cell: Cell, results: StudyResults, compared: ComparisonResults) -> Cell:
    """The cell of a table, with a mark if some of the comparison's cells failed."""
    places = (*compared.first, *compared.second)
    failing = sum(bool(results.cells[place].failures) for place in places)
    return replace(cell, note=f"✗ {failing} of {len(places)} cells failed", failed=True) if failing else cell


def further_table(results: StudyResults) -> Table:
    """Every comparison in the other metrics, without correction."""
    names = [name for name in METRICS if name not in results.primary]
    names = [name for name in names if any(name in compared.metrics for compared in results.comparisons)]
    rows = [
        Row(
            _name(compared),
            tuple(
                difference_cell(METRICS[name], compared.metrics[name]) if name in compared.metrics else Cell(NONE)
                for name in names
            ),
        )
        for compared in results.comparisons
    ]
    return Table("comparison", tuple(heading(METRICS[name]) for name in names), tuple(rows))


def cell_table(results: StudyResults) -> Table:
    """For every cell's arm: the primary metrics, and their differences from SFT in the same run."""
    columns = [heading(METRICS[name]) for name in (*results.primary, *_beside(results))]
    compared = any(cell.pairwise is not None for cell in results.cells)
    return Table(
        "cell",
        (
            *columns,
            *(f"{METRICS[name].label}, minus SFT" for name in results.primary),
            *(["Preferred to SFT (%)"] if compared else []),
        ),
        tuple(
            Row(
                _cell_name(cell),
                (
                    *(_figure(name, cell) for name in (*results.primary, *_beside(results))),
                    *(_minus_sft(name, cell) for name in results.primary),
                    *([_preferred(cell)] if compared else []),
                ),
                label(cell.arm),
            )
            for cell in results.cells
        ),
    )


def _cell_name(cell: CellResults) -> str:
    return ", ".join(f"{factor} {level}" for factor, level in cell.levels.items())


def _beside(results: StudyResults) -> tuple[str, ...]:
    """Metrics shown with the primary ones: a model that refuses everything, or breaks, also has no attack success."""
    return tuple(name for name in (OVER_REFUSAL, HELPFULNESS, "broken_rate") if name not in results.primary)


def _figure(name: str, cell: CellResults) -> Cell:
    figure = cell.figures.get(name)
    if figure is None or figure.mean is None:
        return Cell(NONE)
    kinds = [one.kind for one in cell.failures if name in (ATTACK, one.metric)]
    return mean_cell(METRICS[name], figure, ", ".join(kinds))


def _minus_sft(name: str, cell: CellResults) -> Cell:
    return difference_cell(METRICS[name], cell.minus_sft[name]) if name in cell.minus_sft else Cell(NONE)


def _preferred(cell: CellResults) -> Cell:
    """How often the judge prefers its answers to benign prompts to those of SFT."""
    if cell.pairwise is None or cell.pairwise.preferred.mean is None:
        return Cell(NONE)
    return Cell(number(RATE, cell.pairwise.preferred.mean), interval(RATE, cell.pairwise.preferred.ci95))


def _name(compared: ComparisonResults) -> str:
    """The comparison's name, with a minus sign for the hyphen between what is subtracted."""
    return compared.name.replace(" - ", " − ")


def _primary(results: StudyResults, compared: ComparisonResults) -> list[tuple[str, Difference]]:
    return [(name, compared.metrics[name]) for name in results.primary if name in compared.metrics]


def _difference(metric: Metric, difference: Difference) -> str:
    value = "" if difference.difference is None else number(metric, difference.difference, signed=True)
    unit = " points" if metric.scale == "rate" else ""
    return f"{value}{unit} {interval(metric, difference.ci95, signed=True)}".rstrip()


def _content(results: StudyResults) -> dict[str, object]:
    """What the template is given, by the name of the variable there."""
    cells, runs = len(results.cells), {cell.run for cell in results.cells}
    return {
        "results": results,
        "colours": arm_colours(),
        "failures": failures(results),
        "answer": answer(results),
        "organism": ORGANISM,
        "facts": [
            ("Model", f"{results.model} (a model organism)" if results.model_organism else results.model),
            ("Judge", str(results.judge)),
            ("Seeds", f"{len(results.seeds)} ({', '.join(map(str, results.seeds))})"),
            ("Prompts", ", ".join(f"{count} {kind}" for kind, count in results.prompts.items())),
            ("Cells", f"{cells} in {counted(len(runs), 'run')}"),
        ],
        "pictures": _pictures(results),
        "comparisons": comparison_table(results),
        "further": further_table(results),
        "cells": cell_table(results),
        "notes": _notes(results),
        "shared": sum(len(stages) for stages in results.shared.values()),
        "version": __version__,
    }


def _notes(results: StudyResults) -> list[str]:
    primary = ", ".join(METRICS[name].label.lower() for name in results.primary)
    later = "; ".join(_name(compared) for compared in results.comparisons if compared.later)
    return [
        *judge_note(results.judge),
        "Brackets are 95 % intervals over seeds and prompts, and treat prompts as independent; with one seed they are "
        "over prompts only.",
        f"p, Holm: corrected over {_all_comparisons(results)} and the primary metrics ({primary}), "
        "which the settings name before the study begins. All other figures are descriptive, without correction.",
        "Over families: with the jailbreak families as a random sample too, for families that were not tested; its p "
        "value has Holm's correction over the same comparisons. All other figures are for these families.",
        "Preferred to SFT: pairwise helpfulness on benign prompts, both orders, a tie one half; 50 is no difference.",
        "A comparison averages over the levels of the other factors, cell by cell with the same seeds and prompts.",
        *([f"Added after the runs had begun, perhaps with their results in view: {later}."] if later else []),
    ]


def _all_comparisons(results: StudyResults) -> str:
    return "the one comparison" if len(results.comparisons) == 1 else f"all {len(results.comparisons)} comparisons"


def _pictures(results: StudyResults) -> Sequence[Picture]:
    """One panel for each primary metric: every comparison with its interval."""
    sheet = Sheet("study")
    for name in results.primary:
        rows = [
            (_name(compared), compared.metrics[name])
            for compared in results.comparisons
            if name in compared.metrics and compared.metrics[name].difference is not None
        ]
        if rows:
            height = TALL_ROW if any("\n" in _in_lines(name) for name, _ in rows) else ROW
            size = (7.4, 1.0 + height * len(rows))
            with sheet.panel(name, f"{METRICS[name].label}, difference", size=size) as axes:
                _forest(axes, METRICS[name], rows)
    return sheet.pictures


def _in_lines(name: str) -> str:
    """A name in at most `NAME_LINES` lines, which end between words."""
    return "\n".join(textwrap.wrap(name, NAME, max_lines=NAME_LINES, placeholder=" …", break_on_hyphens=False))


def _forest(axes: Axes, metric: Metric, rows: Sequence[tuple[str, Difference]]) -> None:
    """A forest plot of the differences, the first on top. A mark is filled if the corrected p value is below
    `LEVEL`."""
    factor = 100 if metric.scale == "rate" else 1
    axes.axvline(0, color=FAINT, linewidth=0.8)
    for place, (_, difference) in enumerate(rows):
        low, high = difference.ci95 or (difference.difference or 0.0,) * 2
        centre = factor * (difference.difference or 0.0)
        significant = _is_shown(difference.p_primary)
        axes.plot([factor * low, factor * high], [place, place], color=INK, linewidth=1.4)
        axes.plot(
            [centre], [place], marker="o", markersize=5, color=INK, markerfacecolor=INK if significant else "none"
        )
    axes.set_yticks(range(len(rows)), [_in_lines(name) for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("points" if metric.scale == "rate" else "difference")
