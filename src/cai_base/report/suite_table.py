"""The tables that `cai-base evaluate` prints at its end."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cai_base.evaluation.metrics import METRICS, SEPARATE
from cai_base.evaluation.tasks.comparisons import ACCURACY, VALUES
from cai_base.evaluation.tasks.suite_files import published
from cai_base.reading import listed
from cai_base.records import ATTACK, OVER_REFUSAL, Accuracy, ComparisonsResults, Difference, SuiteResults
from cai_base.report.labels import ORGANISM, label, pair_label
from cai_base.report.load import load_suite
from cai_base.report.notes import interval_note, judge_note
from cai_base.report.numbers import interval, number
from cai_base.report.table import draw, page, warn
from cai_base.report.tables import Cell, Row, Table, coverage_table, incomplete, main_table, metrics_of, plain_cell
from cai_base.settings.judges import NO_JUDGE
from cai_base.text import one_line


def render(directory: Path) -> str:
    """Failures, warnings, the suite and the model, the table, coverage if any answer is unscored, and rates by
    category.

    Args:
        directory: of a finished evaluation.

    Raises:
        UserError: it has no results of a suite, or results of another version.
    """
    results = load_suite(directory)
    return page(lambda console: _write(console, results))


def _write(console: Console, results: SuiteResults | ComparisonsResults) -> None:
    warn(console, results)
    console.print(Text(_headline(results), style="bold"))
    if isinstance(results, SuiteResults):
        _suite(console, results)
    else:
        _comparisons(console, results)
    for layout in dict.fromkeys(results.layouts.values()):
        arms = ", ".join(label(arm) for arm, one in results.layouts.items() if one == layout)
        console.print(Text(f"Asked in the {one_line(layout)}: {arms}.", style="dim"))
    if results.model_organism:
        console.print(Text(ORGANISM, style="dim"))


def _headline(results: SuiteResults | ComparisonsResults) -> str:
    known = published().get(results.suite.name)
    title = one_line(results.suite.name if known is None else known.title)
    model = one_line(results.model + (f" on {results.base}" if results.base else ""))
    respondent = f"the arms of a run on {model}" if results.of == "run" else model
    if isinstance(results, ComparisonsResults):
        return f"{title}: {results.suite.subset} of {results.suite.comparisons} asked, of {respondent}."
    suite = results.suite
    counts = [
        _count(suite.attacks, "attack"),
        _count(suite.apart, f"{' or '.join(SEPARATE)} prompt", " (apart)"),
        _count(suite.safe, "safe prompt"),
    ]
    what = listed([count for count in counts if count] or ["no prompts"])
    of = f" (of {suite.prompts} prompts)" if suite.subset < suite.prompts else ""
    left_out = "".join(f" Left out: {count}, each {one_line(reason)}." for reason, count in suite.left_out.items())
    return f"{title}: {what}{of}, of {respondent}. Judge: {results.judge}.{left_out}"


def _count(number: int, noun: str, about: str = "") -> str:
    """A number with its noun, in the plural if needed; empty for 0."""
    return f"{number} {noun}{'s' * (number > 1)}{about}" if number else ""


def _suite(console: Console, results: SuiteResults) -> None:
    draw(console, main_table(results))
    if results.judge != NO_JUDGE:
        over = "Attack success and refusal are over the attacks, over-refusal over the safe prompts."
        console.print(Text(" ".join([over, *judge_note(results), _interval_note(results)]), style="dim"))
        if incomplete(results):
            draw(console, coverage_table(results))
    for name in (ATTACK, OVER_REFUSAL):
        if name in metrics_of(results):
            draw(console, _by_category(results, name))


def _interval_note(results: SuiteResults) -> str:
    if results.of == "model" and len(results.seeds) == 1:
        return (
            "Brackets: exact 95 % intervals of the rates, over prompts. They do not cover the randomness of sampling."
        )
    return interval_note(results)


def _by_category(results: SuiteResults, name: str) -> Table:
    """A rate by the suite's categories; empty if it has only one."""
    arms, metric = list(results.arms), METRICS[name]
    by_arm = {arm: results.arms[arm][name].by_family for arm in arms}
    categories = dict.fromkeys(category for families in by_arm.values() for category in families)
    rows = [
        Row(one_line(category), tuple(plain_cell(metric, by_arm[arm].get(category), missing="–") for arm in arms))
        for category in categories
    ]
    return Table(f"{metric.label.lower()} (%)", tuple(label(arm) for arm in arms), tuple(rows) if len(rows) > 1 else ())


def _comparisons(console: Console, results: ComparisonsResults) -> None:
    arms = list(results.arms)
    rows = []
    for value in VALUES:
        accuracies = [results.arms[arm][value] for arm in arms]
        rows.append(_accuracies(f"{value} (%)", accuracies))
        for category in accuracies[0].by_category or {}:
            of_category = [(one.by_category or {})[category] for one in accuracies]
            rows.append(_accuracies(f"· {one_line(category)}", of_category))
    draw(console, Table("log-probability", tuple(label(arm) for arm in arms), tuple(rows)))
    about = (
        f"{ACCURACY.label}: {ACCURACY.about}. Chance is 50 % between two answers. A sum of log-probabilities favours "
        "short answers."
    )
    brackets = (
        "Brackets: exact 95 % intervals over comparisons."
        if len(results.seeds) == 1
        else "Brackets: 95 % intervals over seeds and comparisons; if all seeds are the same model, exact over "
        "comparisons."
    )
    console.print(Text(f"{about} {brackets}", style="dim"))
    for pair, compared in results.comparisons.items():
        sizes = [f"{value} {_difference(one)}" for value, one in compared.items() if one.difference is not None]
        console.print(Text(f"{pair_label(pair)}: {'; '.join(sizes)}"))


def _difference(compared: Difference) -> str:
    size = number(ACCURACY, compared.difference or 0.0, signed=True)
    return f"{size} {interval(ACCURACY, compared.ci95, signed=True)}".strip()


def _accuracies(name: str, accuracies: Sequence[Accuracy]) -> Row:
    """The accuracy of every arm; with the number of comparisons if some did not fit the context."""
    cells = []
    for one in accuracies:
        note = f"({one.scored} of {one.total})" if one.scored < one.total else ""
        cells.append(
            Cell("unscored")
            if one.mean is None
            else Cell(number(ACCURACY, one.mean), interval(ACCURACY, one.ci95), note)
        )
    return Row(name, tuple(cells))
