"""The tables in the terminal: what a run prints at its end, and all of them."""

import io
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from cai_base.records import Results
from cai_base.report.headline import headline
from cai_base.report.labels import ORGANISM, failure_sentences
from cai_base.report.load import load
from cai_base.report.notes import brackets, notes, warnings
from cai_base.report.tables import (
    SEPARATE,
    Table,
    about_note,
    coverage_table,
    family_table,
    incomplete,
    main_table,
    pair_sentence,
    prefilled_sentence,
    round_table,
)
from cai_base.settings.judges import NO_JUDGE
from cai_base.text import command_on, one_line

PIPE_WIDTH, UNBOUNDED = 120, 10_000
NAMES = 16
"""The least width of a table's first column; where space is short, it has what the others leave."""
GLUE = "\ue000"
"""Stands for a space at which no line ends; rich breaks a line at every space that Unicode has."""


def render(directory: Path) -> str:
    """Failures, warnings, the main table, attack success by family, and the revision rounds; in colour in a terminal.

    Raises:
        UserError: the directory has no results, or results of another version.
    """
    results = load(directory).results
    return page(lambda console: _write(console, results))


def summary(directory: Path) -> str:
    """What a run prints at its end: failures, warnings, the answer and the main table.

    Raises:
        UserError: as of `render`.
    """
    results = load(directory).results
    return page(lambda console: _summarise(console, results))


def next_commands(directory: Path) -> str:
    """What can be done with a finished run: a command a line.

    Raises:
        UserError: as of `render`.
    """
    results = load(directory).results
    return page(lambda console: _offer(console, results, directory))


def page(write: Callable[[Console], None]) -> str:
    """What `write` prints, as text of the terminal's width; with colour if stdout is a terminal."""
    terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=shutil.get_terminal_size().columns if terminal else PIPE_WIDTH,
        highlight=False,
    )
    write(console)
    text = console.file.getvalue() if isinstance(console.file, io.StringIO) else ""
    return "".join(line.rstrip() + "\n" for line in text.replace(GLUE, " ").splitlines())


def prose(console: Console, text: str, style: str = "") -> None:
    """Print sentences on a `page`. No line ends between a number and its per cent sign."""
    console.print(Text(text.replace(" %", f"{GLUE}%"), style=style))


NEXT = (
    (("report", "--open"), "its page, with every answer and chain"),
    (("chat",), "talk to its arms"),
    (("report",), "the notes on these figures, attack success by family"),
)
"""What can be done with a finished run: commands with a flag, each with what it shows."""
ROUNDS = ", revision by round"
"""What the last of them shows too, of a run with revision chains."""
PLANNED = "preflight, power"
"""How a warning begins that is about the plan of a run. Its beginning has said it, and its intervals replace it."""


def _summarise(console: Console, results: Results) -> None:
    warn(console, failure_sentences(results), [one for one in warnings(results) if not one.startswith(PLANNED)])
    prose(console, headline(results), "bold")
    draw(console, main_table(results))
    about = f" {ORGANISM}" if results.model_organism else ""
    prose(console, f"{brackets(results)}{about}", "dim")


def _offer(console: Console, results: Results, directory: Path) -> None:
    for (command, *flags), what in NEXT:
        more = ROUNDS if results.revision.chains and (command, *flags) == NEXT[-1][0] else ""
        console.print(Text(f"{command_on(command, directory, *flags)}  # {what}{more}"), soft_wrap=True)


def _write(console: Console, results: Results) -> None:
    warn(console, failure_sentences(results), warnings(results))
    prose(console, headline(results), "bold")
    draw(console, main_table(results))
    console.print(Text(about_note(results), style="dim"))
    for note in notes(results):
        prose(console, note, "dim")
    if results.model_organism:
        console.print(Text(ORGANISM, style="dim"))
    if incomplete(results) and results.judge != NO_JUDGE:
        draw(console, coverage_table(results))
    draw(console, family_table(results))
    console.print()
    console.print(Text(pair_sentence(results)))
    if results.revision.chains:
        draw(console, round_table(results))
    if sentence := prefilled_sentence(results):
        console.print(Text(sentence, style="dim"))


def warn(console: Console, failures: Sequence[str], warnings: Sequence[str]) -> None:
    """Print failures and warnings."""
    for failure in failures:
        prose(console, f"FAILURE: {one_line(failure)}", "bold red")
    for warning in warnings:
        prose(console, f"warning: {one_line(warning)}", "bold yellow")
    if warnings or failures:
        console.print()


def draw(console: Console, table: Table) -> None:
    """Print an empty line and the table: in full if it fits, else with intervals under values, else in two parts."""
    if table.empty:
        return
    unbounded = console.options.update(width=UNBOUNDED)
    wide, stacked = _laid_out(table, " ", None), _laid_out(table, "\n", NAMES)
    spare = console.width - Measurement.get(console, unbounded, stacked).maximum
    if Measurement.get(console, unbounded, wide).maximum <= console.width:
        console.print()
        console.print(wide)
    elif spare >= 0 or len(table.columns) == 1:
        console.print()
        console.print(_laid_out(table, "\n", NAMES + max(spare, 0)))
    else:
        half = (len(table.columns) + 1) // 2
        draw(console, table.part(0, half))
        draw(console, table.part(half, len(table.columns)))


def _laid_out(table: Table, between: str, names: int | None) -> RichTable:
    """The table with `between` a figure and its interval, and a first column of at most `names`; None for no limit."""
    laid_out = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    laid_out.add_column(Text(table.corner), min_width=NAMES, max_width=names)
    for column in table.columns:
        # Not wrapped, so that the measured width is the real one: rich would cut off the last columns.
        laid_out.add_column(Text(column.replace(" − ", f" −{between}")), justify="right", no_wrap=True)
    for row in table.rows:
        name = f"{one_line(row.name)} ({row.about})" if row.about == SEPARATE else one_line(row.name)
        laid_out.add_row(Text(name), *(Text(cell.text(between)) for cell in row.cells))
    return laid_out
