"""The table that a run ends with in the terminal."""

import io
import shutil
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from cai_base.report.headline import headline
from cai_base.report.stored import load
from cai_base.report.tables import Table, family_table, interval_note, main_table, pair_counts, round_table
from cai_base.report.words import ORGANISM, printable
from cai_base.store import Record

PIPE_WIDTH = 110


def render(directory: Path) -> str:
    """Warnings, then the table, attack success by family, and what became of the revisions; colour on a terminal only.

    Raises:
        UserError: the directory holds no results, or not those of this version.
    """
    results = load(directory).results
    terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=shutil.get_terminal_size().columns if terminal else PIPE_WIDTH,
        highlight=False,
    )
    _warnings(console, results)
    console.print(Text(headline(results), style="bold"))
    console.print()
    console.print(_laid_out(main_table(results)))
    console.print(Text(interval_note(results), style="dim"))
    if results["model_organism"]:
        console.print(Text(ORGANISM, style="dim"))
    console.print()
    console.print(_laid_out(family_table(results)))
    console.print()
    console.print(Text(", ".join(f"{name}: {count}" for name, count in pair_counts(results))))
    console.print(_laid_out(round_table(results)))
    text = console.file.getvalue() if isinstance(console.file, io.StringIO) else ""
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def _warnings(console: Console, results: Record) -> None:
    for warning in results["warnings"]:
        console.print(Text(f"warning: {printable(warning)}", style="bold yellow"))
    if results["warnings"]:
        console.print()


def _laid_out(table: Table) -> RichTable:
    laid_out = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    laid_out.add_column(Text(table.corner), min_width=18)
    for column in table.columns:
        laid_out.add_column(Text(column), justify="right")
    for row in table.rows:
        name = f"{printable(row.name)} ({row.about})" if row.about == "apart" else printable(row.name)
        laid_out.add_row(Text(name), *(Text(cell.text) for cell in row.cells))
    return laid_out
