"""Several runs side by side, in the terminal and as a page."""

import json
from collections.abc import Mapping
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from cai_base.arms import arm, in_order
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.records import ATTACK, Difference
from cai_base.records.compared import Against, ComparedRun, RunsCompared
from cai_base.report.labels import ORGANISM, label
from cai_base.report.notes import judge_note
from cai_base.report.numbers import NONE, heading
from cai_base.report.plotting import arm_colours
from cai_base.report.suites import FLUENCY
from cai_base.report.table import draw, page, warn
from cai_base.report.tables import Cell, Row, Table, difference_cell, plain_cell
from cai_base.report.web import web_environment
from cai_base.text import counted

DEFAULT = "default"
"""Shown for a setting that a run was not given."""


SAME = "same answers"
"""Shown in place of the differences of an arm whose answers are equal in both runs."""


def means_table(compared: RunsCompared) -> Table:
    """The means of every run, one row per arm and metric."""
    arms = in_order({name for run in compared.runs for name in run.arms})
    rows = []
    for one in arms:
        for name, metric in METRICS.items():
            of_runs = [run.arms.get(one, {}) for run in compared.runs]
            if any(name in figures for figures in of_runs):
                cells = tuple(
                    _marked(plain_cell(metric, figures[name]), name, one, run) if name in figures else Cell(NONE)
                    for run, figures in zip(compared.runs, of_runs, strict=True)
                )
                rows.append(Row(f"{label(one)}: {heading(metric)}", cells))
    return Table("means, as in each run's report", tuple(run.name for run in compared.runs), tuple(rows))


def _marked(cell: Cell, metric: str, one: str, *runs: ComparedRun) -> Cell:
    """The cell of a table, with a mark if the arm failed in one of these runs and the metric shows it, or looks better
    for it."""
    kinds = [f.kind for run in runs for f in run.failures if f.arm == one and metric in (ATTACK, f.metric)]
    return replace(cell, note=f"✗ {', '.join(dict.fromkeys(kinds))}", failed=True) if kinds else cell


def failures(compared: RunsCompared) -> list[str]:
    """The failures of the arms of every run, a sentence each."""
    return [f"{run.name}, {label(one.arm)}: {one.text}" for run in compared.runs for one in run.failures]


def warnings(compared: RunsCompared) -> list[str]:
    """What makes a difference hard to read, then every warning of the runs, once, with the runs that have it."""
    runs: dict[str, list[str]] = {}
    for run in compared.runs:
        for warning in run.warnings:
            runs.setdefault(warning, []).append(run.name)
    return [*compared.warnings, *(f"{', '.join(names)}: {warning}" for warning, names in runs.items())]


def settings_table(compared: RunsCompared) -> Table:
    """The settings that differ between the runs."""
    rows = tuple(
        Row(name, tuple(Cell(_setting(value)) for value in values)) for name, values in compared.settings.items()
    )
    return Table("settings that differ", tuple(run.name for run in compared.runs), rows)


def _setting(value: str) -> str:
    """A setting's value without the quotes that it has as JSON."""
    content = json.loads(value)
    return DEFAULT if content is None else content if isinstance(content, str) else value


def difference_table(compared: RunsCompared, against: Against) -> Table:
    """A run minus the first run: one row per metric, one column per arm. An arm with the same answers has no figure."""
    arms = in_order({*against.arms, *against.same_answers})
    names = [name for name in METRICS if any(name in figures for figures in against.arms.values())]
    runs = [run for run in compared.runs if run.name in (against.run, compared.runs[0].name)]
    rows = tuple(
        Row(
            heading(METRICS[name]),
            tuple(
                Cell(SAME)
                if one in against.same_answers
                else _marked(_difference_cell(name, against.arms[one]), name, one, *runs)
                for one in arms
            ),
        )
        for name in names
    )
    return Table(f"{against.run} − {compared.runs[0].name}", tuple(map(label, arms)), rows)


def _difference_cell(name: str, differences: Mapping[str, Difference]) -> Cell:
    return difference_cell(METRICS[name], differences[name]) if name in differences else Cell(NONE)


def paired_over(against: Against) -> str:
    """The seeds and prompts over which the differences are paired, and what the table leaves out."""
    if not against.seeds or not against.prompts:
        return "The runs share no seed and prompt, so nothing can be paired."
    seeds, prompts = ", ".join(map(str, against.seeds)), f"the {counted(against.prompts, 'prompt')} that both runs have"
    one_seed = len(against.seeds) == 1
    text = f"Paired over the seeds ({seeds}) and {prompts}; 95 % intervals."
    if one_seed:
        text = f"Paired over seed {seeds} and {prompts}; 95 % intervals over prompts only: another seed may differ."
    single = [label(name) for name in in_order(against.arms) if arm(name).one_model]
    if single and not one_seed:
        text += f" Of one model ({', '.join(single)}) they are over prompts, as in each run's report."
    if against.same_answers:
        same = ", ".join(map(label, in_order(against.same_answers)))
        text += f" The same answers in both runs, so there is no difference: {same}."
    if against.left_out:
        names = " and ".join(METRICS[name].label for name in against.left_out)
        own = "with its own base model" if FLUENCY in against.left_out else "by its own base model's answers"
        text += f" Left out: {names}, which each run measures {own}."
    return text


def notes(compared: RunsCompared) -> list[str]:
    """What is subtracted, what the judges of these runs cannot tell, and that a model is a model organism."""
    first, *others = compared.runs
    order = f"Every difference is a run minus {first.name}, the first one named. To subtract another, name it first."
    organism = [ORGANISM] if any(run.model_organism for run in compared.runs) else []
    return [*([order] if len(others) > 1 else []), *judge_note(*(run.judge for run in compared.runs)), *organism]


def render(compared: RunsCompared) -> str:
    """What the terminal shows."""
    return page(lambda console: _write(console, compared))


def html(compared: RunsCompared) -> str:
    """The page: one file, no script."""
    return (
        web_environment()
        .get_template("compare.html")
        .render(
            compared=compared,
            failures=failures(compared),
            warnings=warnings(compared),
            colours=arm_colours(),
            means=means_table(compared),
            settings=replace(settings_table(compared), corner="setting"),
            differences=[
                (table.corner, replace(table, corner="metric"), paired_over(one), one.same_answers)
                for one in compared.against_first
                for table in (difference_table(compared, one),)
            ],
            notes=notes(compared),
        )
    )


def _write(console: Console, compared: RunsCompared) -> None:
    warn(console, failures(compared), warnings(compared))
    if compared.settings:
        draw(console, settings_table(compared))
    else:
        console.print("The runs have the same settings and inputs.")
    draw(console, means_table(compared))
    for against in compared.against_first:
        draw(console, difference_table(compared, against))
        console.print(Text(paired_over(against), style="dim"))
    for note in notes(compared):
        console.print(Text(note, style="dim"))
