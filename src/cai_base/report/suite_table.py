"""The tables that `cai-base evaluate` prints at its end."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from cai_base.report.labels import ORGANISM
from cai_base.report.load import load_suite
from cai_base.report.suites import SuiteSection, section
from cai_base.report.table import draw, page, prose, warn


def render(directory: Path) -> str:
    """Failures, warnings, the suite and the model, the table, coverage if any answer is unscored, and rates by
    category.

    Args:
        directory: of a finished evaluation.

    Raises:
        UserError: it has no results of a suite, or results of another version.
    """
    results = load_suite(directory)
    return page(lambda console: _write(console, section(results, str(directory)), results.model_organism))


def _write(console: Console, suite: SuiteSection, organism: bool) -> None:
    warn(console, suite.failures, suite.warnings)
    console.print(Text(f"{suite.title}: {suite.about}", style="bold"))
    draw(console, suite.main)
    for note in suite.notes:
        prose(console, note, "dim")
    for table in suite.details:
        draw(console, table)
    for difference in suite.differences:
        prose(console, difference)
    if organism:
        console.print(Text(ORGANISM, style="dim"))
