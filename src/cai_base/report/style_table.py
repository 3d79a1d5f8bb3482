"""The tables that `cai-base style` prints at its end."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from cai_base import paths
from cai_base.errors import UserError
from cai_base.records import StyleResults
from cai_base.report import style
from cai_base.report.labels import ORGANISM
from cai_base.report.load import load_style
from cai_base.report.table import draw, page, prose
from cai_base.text import one_line


def render(directory: Path) -> str:
    """The answer to the evaluation's question, every measure of every arm, and adherence by style.

    Args:
        directory: a run's, with a finished style evaluation.

    Raises:
        UserError: it has no results of a style evaluation, or results of another version.
    """
    results = load_style(directory)
    if results is None:
        raise UserError(
            f"{directory / paths.STYLE}: does not exist; run the style evaluation first: cai-base style {directory}"
        )
    return page(lambda console: _write(console, results))


def _write(console: Console, results: StyleResults) -> None:
    prose(console, style.answer(results), "bold")
    table = style.style_table(results)
    draw(console, table)
    console.print(Text("; ".join(f"{row.name}: {row.about}" for row in table.rows) + ".", style="dim"))
    for note in style.notes(results):
        prose(console, one_line(note), "dim")
    if results.model_organism:
        console.print(Text(ORGANISM, style="dim"))
    draw(console, style.by_style_table(results))
    draw(console, style.comparison_table(results))
