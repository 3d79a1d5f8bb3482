"""Several runs side by side, in the terminal and as a page."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.text import Text

from cai_base.arms import in_order
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.records.compared import Against, RunsCompared
from cai_base.report.labels import ORGANISM, label
from cai_base.report.numbers import NONE, heading
from cai_base.report.plotting import arm_colours
from cai_base.report.table import draw, page
from cai_base.report.tables import Cell, Row, Table, difference_cell, plain_cell
from cai_base.text import one_line


def means_table(compared: RunsCompared) -> Table:
    """The means of every run, one row per arm and metric."""
    arms = in_order({arm for run in compared.runs for arm in run.arms})
    rows = []
    for arm in arms:
        for name, metric in METRICS.items():
            of_runs = [run.arms.get(arm, {}) for run in compared.runs]
            if any(name in figures for figures in of_runs):
                cells = tuple(
                    plain_cell(metric, figures[name]) if name in figures else Cell(NONE) for figures in of_runs
                )
                rows.append(Row(f"{label(arm)}: {heading(metric)}", cells))
    return Table("means, as in each run's report", tuple(run.name for run in compared.runs), tuple(rows))


def settings_table(compared: RunsCompared) -> Table:
    """The settings that differ between the runs."""
    rows = tuple(Row(name, tuple(map(Cell, values))) for name, values in compared.settings.items())
    return Table("settings that differ", tuple(run.name for run in compared.runs), rows)


def difference_table(compared: RunsCompared, against: Against) -> Table:
    """A run minus the first run: one row per metric, one column per arm."""
    arms = in_order(against.arms)
    names = [name for name in METRICS if any(name in against.arms[arm] for arm in arms)]
    rows = tuple(
        Row(
            heading(METRICS[name]),
            tuple(
                difference_cell(METRICS[name], against.arms[arm][name]) if name in against.arms[arm] else Cell(NONE)
                for arm in arms
            ),
        )
        for name in names
    )
    return Table(f"{against.run} − {compared.runs[0].name}", tuple(map(label, arms)), rows)


def paired_over(against: Against) -> str:
    """The seeds and prompts over which the differences are paired."""
    seeds = ", ".join(map(str, against.seeds)) or "none"
    return f"Paired over the seeds ({seeds}) and the {against.prompts} prompts that both runs have; 95 % intervals."


def render(compared: RunsCompared) -> str:
    """What the terminal shows."""
    return page(lambda console: _write(console, compared))


def html(compared: RunsCompared) -> str:
    """The page: one file, no script."""
    environment = Environment(
        loader=PackageLoader("cai_base.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("compare.html").render(
        compared=compared,
        colours=arm_colours(),
        means=means_table(compared),
        settings=settings_table(compared),
        differences=[(difference_table(compared, one), paired_over(one)) for one in compared.against_first],
        organism=ORGANISM if any(run.model_organism for run in compared.runs) else "",
    )


def _write(console: Console, compared: RunsCompared) -> None:
    for warning in compared.warnings:
        console.print(Text(f"warning: {one_line(warning)}", style="bold yellow"))
    if compared.settings:
        draw(console, settings_table(compared))
    else:
        console.print("The runs have the same settings and inputs.")
    draw(console, means_table(compared))
    for against in compared.against_first:
        draw(console, difference_table(compared, against))
        console.print(Text(paired_over(against), style="dim"))
    if any(run.model_organism for run in compared.runs):
        console.print(Text(ORGANISM, style="dim"))
