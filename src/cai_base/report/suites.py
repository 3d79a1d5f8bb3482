"""A suite's results as tables and sentences, for the terminal and for both pages of the run whose arms were asked."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cai_base.arms import BASE
from cai_base.evaluation.tasks.comparisons import ACCURACY, VALUES
from cai_base.evaluation.tasks.prompts import METRICS, SEPARATE
from cai_base.evaluation.tasks.suite_files import published
from cai_base.paths import SUITES
from cai_base.reading import listed
from cai_base.records import ATTACK, OVER_REFUSAL, Accuracy, ComparisonsResults, Difference, SuiteResults
from cai_base.report.labels import failure_sentences, label, pair_label
from cai_base.report.load import load_suite
from cai_base.report.notes import interval_note, judge_note
from cai_base.report.numbers import interval, number
from cai_base.report.tables import Cell, Row, Table, coverage_table, incomplete, main_table, metrics_of, plain_cell
from cai_base.run.identity import UNBOUND, check_suite
from cai_base.run.stored import suite_folders
from cai_base.settings.judges import NO_JUDGE
from cai_base.store import Run
from cai_base.text import one_line

BROKEN, FLUENCY = "broken_rate", "fluency"
REASONS = 8
"""Reasons for unscored answers that are shown, the most frequent first."""


@dataclass(frozen=True, slots=True)
class SuiteSection:
    """What is shown of a suite.

    Attributes:
        title: its name as its authors write it, or the name of its file.
        about: how many of its prompts were asked, of which model or run, and the judge.
        main: every metric, or every accuracy, of every arm.
        notes: what the figures are over, and in which layout each arm was asked.
        details: coverage if any answer is unscored, and rates by category.
        differences: the differences between arms, where `main` has none.
    """

    title: str
    about: str
    failures: Sequence[str]
    warnings: Sequence[str]
    main: Table
    notes: Sequence[str]
    details: Sequence[Table]
    differences: Sequence[str]


def sections(run: Path) -> dict[str, SuiteSection]:
    """A section for every finished suite in a run's directory by its folder, in the order of the folders' names.

    Raises:
        UserError: the results of one are of another version, are not a suite's, are not stored by an evaluation, or
            are of other weights than the run's.
    """
    whole = Run.watch(run)
    by_place: dict[str, SuiteSection] = {}
    for folder in suite_folders(run):
        place = f"{SUITES}/{folder.name}"
        by_place[place] = section(load_suite(folder), place)
        if not check_suite(whole, Run.watch(folder)):
            by_place[place] = replace(by_place[place], warnings=[*by_place[place].warnings, f"{place}: {UNBOUND}"])
    return by_place


def section(results: SuiteResults | ComparisonsResults, place: str) -> SuiteSection:
    """What is shown of these results.

    Args:
        place: their folder, as the reader is told it.
    """
    known = published().get(results.suite.name)
    if isinstance(results, SuiteResults):
        about, main, notes = _about_suite(results), main_table(results), _suite_notes(results)
        details, differences = list(_details(results)), []
    else:
        about, main, notes = _about_comparisons(results), _accuracy_table(results), _comparisons_notes(results)
        details, differences = [], list(_differences(results))
    return SuiteSection(
        title=one_line(results.suite.name if known is None else known.title),
        about=about,
        failures=failure_sentences(results),
        warnings=[*results.warnings, *_unscored(results, place)],
        main=main,
        notes=[*notes, *_layouts(results)],
        details=details,
        differences=differences,
    )


def _unscored(results: SuiteResults | ComparisonsResults, place: str) -> Iterator[str]:
    """Why answers are unscored, each reason with its count, and where the answers are."""
    if not isinstance(results, SuiteResults) or results.judge == NO_JUDGE:
        return
    counts: Counter[str] = Counter()
    for of_arm in results.unscored.values():
        counts.update(of_arm)
    if counts:
        reasons = "; ".join(f"{count} × {one_line(reason)}" for reason, count in counts.most_common(REASONS))
        more = f"; and {len(counts) - REASONS} other reasons" if len(counts) > REASONS else ""
        yield f"unscored, by reason: {reasons}{more}. Every answer has its reason in {place}/ARM/seed-N.jsonl"


def _layouts(results: SuiteResults | ComparisonsResults) -> Iterator[str]:
    for layout in dict.fromkeys(results.layouts.values()):
        arms = ", ".join(label(arm) for arm, one in results.layouts.items() if one == layout)
        yield f"Asked in the {one_line(layout)}: {arms}."


def _respondent(results: SuiteResults | ComparisonsResults) -> str:
    model = one_line(results.model + (f" on {results.base}" if results.base else ""))
    return f"the arms of a run on {model}" if results.of == "run" else model


# Prompts, whose answers are judged


def _about_suite(results: SuiteResults) -> str:
    suite = results.suite
    counts = [
        _count(suite.attacks, "attack"),
        _count(suite.apart, f"{' or '.join(SEPARATE)} prompt", " (apart)"),
        _count(suite.safe, "safe prompt"),
    ]
    what = listed([count for count in counts if count] or ["no prompts"])
    of = f" (of {suite.prompts} prompts)" if suite.subset < suite.prompts else ""
    left_out = "".join(f" Left out: {count}, each {one_line(reason)}." for reason, count in suite.left_out.items())
    return f"{what}{of}, of {_respondent(results)}. Judge: {results.judge}.{left_out}"


def _count(number: int, noun: str, about: str = "") -> str:
    """A number with its noun, in the plural if needed; empty for 0."""
    return f"{number} {noun}{'s' * (number > 1)}{about}" if number else ""


def _suite_notes(results: SuiteResults) -> list[str]:
    """What the rates are over; empty if nothing is judged."""
    if results.judge == NO_JUDGE:
        return []
    over = "Attack success and refusal are over the attacks, over-refusal over the safe prompts."
    notes = [over, *judge_note(results.judge)]
    return [*notes, *_repetition_note(results), _interval_note(results)]


def _repetition_note(results: SuiteResults) -> Iterator[str]:
    """What stands under rates of broken language without the likelihood of the answers, and of which arms they are."""
    rated = {name: figures for name, figures in results.arms.items() if BROKEN in figures}
    unmeasured = [
        name
        for name, figures in rated.items()
        if BASE not in results.arms or FLUENCY not in figures or figures[FLUENCY].mean is None
    ]
    if unmeasured:
        named = f"the answers of {listed([label(name) for name in unmeasured])}, whose"
        whose = "these answers, so" if len(unmeasured) == len(rated) else named
        yield (
            f"No base model measured {whose} broken language is endless repetition alone. Other gibberish is not "
            "seen: read some answers."
        )


def _interval_note(results: SuiteResults) -> str:
    if results.of == "model" and len(results.seeds) == 1:
        return (
            "Brackets: exact 95 % intervals of the rates, over prompts. They do not cover the randomness of sampling."
        )
    return interval_note(results)


def _details(results: SuiteResults) -> Iterator[Table]:
    """Coverage if any answer is unscored, and the rates by category that there are."""
    if results.judge != NO_JUDGE and incomplete(results):
        yield coverage_table(results)
    for name in (ATTACK, OVER_REFUSAL):
        table = _by_category(results, name) if name in metrics_of(results) else None
        if table is not None and not table.empty:
            yield table


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


# Comparisons by log-probability


def _about_comparisons(results: ComparisonsResults) -> str:
    return f"{results.suite.subset} of {results.suite.comparisons} asked, of {_respondent(results)}."


def _accuracy_table(results: ComparisonsResults) -> Table:
    arms = list(results.arms)
    rows = []
    for value in VALUES:
        accuracies = [results.arms[arm][value] for arm in arms]
        rows.append(_accuracies(f"{value} (%)", accuracies))
        for category in accuracies[0].by_category or {}:
            of_category = [(one.by_category or {})[category] for one in accuracies]
            rows.append(_accuracies(f"· {one_line(category)}", of_category))
    return Table("log-probability", tuple(label(arm) for arm in arms), tuple(rows))


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


def _comparisons_notes(results: ComparisonsResults) -> list[str]:
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
    return [about, brackets]


def _differences(results: ComparisonsResults) -> Iterator[str]:
    for pair, compared in results.comparisons.items():
        sizes = [f"{value} {_difference(one)}" for value, one in compared.items() if one.difference is not None]
        yield f"{pair_label(pair)}: {'; '.join(sizes)}"


def _difference(compared: Difference) -> str:
    size = number(ACCURACY, compared.difference or 0.0, signed=True)
    return f"{size} {interval(ACCURACY, compared.ci95, signed=True)}".strip()
