"""The page with a run's progress, and the page for chatting with its arms."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.progress import duration
from cai_base.records import MAIN_METRICS
from cai_base.report.labels import label
from cai_base.report.numbers import NONE, heading
from cai_base.report.plotting import arm_colours
from cai_base.report.tables import Cell, Row, Table, plain_cell
from cai_base.report.web import web_environment
from cai_base.run.status import TRAINING, Status
from cai_base.text import resume_command


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt, and each arm's name with its answer."""

    prompt: str
    answers: Sequence[tuple[str, str]]


def chat_html(name: str, exchanges: Iterable[Exchange], error: str = "", draft: str = "") -> str:
    """The page on which the arms of a run are asked, the newest prompt first.

    Args:
        error: the reason why the last prompt has no answer.
        draft: the text in the prompt's field.
    """
    content = {"name": name, "exchanges": list(exchanges), "error": error, "draft": draft, "colours": arm_colours()}
    return web_environment().get_template("chat.html").render(content)


def html(status: Status, every: int) -> str:
    """The page.

    Args:
        every: seconds between two reloads by the browser; 0 if it stands still, as a finished run's page does.
    """
    return (
        web_environment()
        .get_template("watch.html")
        .render(
            status=status,
            every=every,
            colours=arm_colours(),
            sentence=_sentence(status),
            columns=[name for name in TRAINING if any(name in stage.latest for stage in status.stages)],
            rates=_rates(status),
            duration=duration,
        )
    )


def unreadable_html(name: str, error: str, every: int) -> str:
    """The page of a run that cannot be read now, which reloads as that of its progress does."""
    content = {"name": name, "error": error, "every": every, "colours": arm_colours()}
    return web_environment().get_template("unreadable.html").render(content)


def _sentence(status: Status) -> str:
    if status.finished:
        return "The run is finished."
    if not status.working:
        return f"No process is working on this run; this continues it: {resume_command(status.directory)}"
    under_way = [stage for stage in status.stages if stage.done < stage.total]
    return f"At work: {under_way[0].label}." if under_way else "At work: evaluation and results."


def _rates(status: Status) -> Table:
    rows = [
        Row(
            heading(METRICS[name]),
            tuple(plain_cell(METRICS[name], one[name]) if name in one else Cell(NONE) for one in status.rates.values()),
        )
        for name in MAIN_METRICS
    ]
    return Table("", tuple(label(arm) for arm in status.rates), tuple(rows))
