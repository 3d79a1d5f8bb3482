"""What a style evaluation found, in the terminal."""

from rich.console import Console
from rich.text import Text

from cai_base.report import style
from cai_base.report.labels import ORGANISM, printable
from cai_base.report.table import draw, page
from cai_base.store import Record


def render(found: Record) -> str:
    """The answer to its question, every measure of every arm, adherence style by style."""
    return page(lambda console: _write(console, found))


def _write(console: Console, found: Record) -> None:
    console.print(Text(style.answer(found), style="bold"))
    table = style.style_table(found)
    draw(console, table)
    console.print(Text("; ".join(f"{row.name}: {row.about}" for row in table.rows) + ".", style="dim"))
    for note in style.notes(found):
        console.print(Text(printable(note), style="dim"))
    if found["model_organism"]:
        console.print(Text(ORGANISM, style="dim"))
    draw(console, style.by_style_table(found))
    draw(console, style.comparison_table(found))
