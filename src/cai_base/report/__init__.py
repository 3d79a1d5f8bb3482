"""A finished run's page: `report.html`, `report.md` and figures, made only from the files in the run's directory.

Nothing here computes a statistic: figures come from `results.json`, curves from the training steps, texts from the
stored chains and answers.
"""

from pathlib import Path

from cai_base.paths import FIGURES, REPORT_HTML, REPORT_MARKDOWN
from cai_base.report.load import load
from cai_base.store import write_atomic


def write(directory: Path) -> list[Path]:
    """Write both pages and the figures into a run's directory. Returns the paths of the pages.

    Raises:
        UserError: the directory has no results, results of another version, or results that are not a run's.
    """
    # matplotlib takes seconds, and a table needs none of it.
    from cai_base.report.figures import draw
    from cai_base.report.page import content_of, html, markdown

    stored = load(directory)
    groups = draw(stored)
    for group in groups:
        for picture in group.pictures:
            write_atomic(directory / FIGURES / f"{picture.name}.svg", picture.svg)
        if group.pictures:
            write_atomic(directory / FIGURES / f"{group.sheet.name}.pdf", group.sheet.pdf())
    content = content_of(stored)
    pages = {REPORT_HTML: html(stored, groups, content), REPORT_MARKDOWN: markdown(stored, groups, content)}
    for name, text in pages.items():
        write_atomic(directory / name, text.encode())
    return [directory / name for name in pages]
