"""The content of `style.json` as tables and sentences, for the terminal and both pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cai_base.arms import BASELINE, FULL, INSTRUCT, in_order, split_pair
from cai_base.embedded import DATA
from cai_base.evaluation.measures import Measure
from cai_base.evaluation.tasks import styles
from cai_base.paths import styled_answers
from cai_base.records import StyleArm, StyledAnswer, StyleResults, Summary
from cai_base.report.labels import label, pair_label
from cai_base.report.load import stored_records
from cai_base.report.notes import judge_note
from cai_base.report.numbers import NONE, heading, interval, number, p_value
from cai_base.report.shown import ArmText, ShownStyle
from cai_base.report.tables import UNSCORED, Cell, Row, Table, difference_cell, plain_cell
from cai_base.store import Run
from cai_base.text import counted

EXAMPLES = ("pirate", "poetic", "shouting")
"""The styles whose answers are shown: one of each kind."""

KIND_LABELS = {"register": "register", "language": "language style", "persona": "persona"}


def _pairs(results: StyleResults) -> list[str]:
    """The differences in the table: each arm minus SFT, and the comparison that answers the evaluation's question."""
    question = "" if results.keeps_more_style is None else results.keeps_more_style.comparison
    return [pair for pair in results.comparisons if split_pair(pair)[1] == BASELINE or pair == question]


def measures(results: StyleResults) -> dict[str, Measure]:
    """The measures that the arms have, by name."""
    every = styles.measures(results.adherence_range, results.samples, truth=results.data == DATA)
    return {
        name: measure
        for name, measure in every.items()
        if any(getattr(arm, name) is not None for arm in results.arms.values())
    }


def style_table(results: StyleResults) -> Table:
    """Every measure of every arm, its difference from SFT, and the difference that answers the question."""
    arms, pairs = in_order(results.arms), _pairs(results)
    rows = []
    for name, measure in measures(results).items():
        cells = [_figure(measure, results.arms[arm], name) for arm in arms]
        compared = [results.comparisons[pair].get(name) for pair in pairs]
        cells += [Cell(NONE) if one is None else difference_cell(measure, one) for one in compared]
        rows.append(Row(heading(measure), tuple(cells), measure.about))
    return Table("style", (*(label(arm) for arm in arms), *(pair_label(pair) for pair in pairs)), tuple(rows))


def by_style_table(results: StyleResults) -> Table:
    """Adherence by style."""
    arms, measure = in_order(results.arms), measures(results)["adherence"]
    rows = [
        Row(
            name,
            tuple(plain_cell(measure, results.arms[arm].by_style.get(name, {}).get("adherence")) for arm in arms),
            KIND_LABELS.get(kind, kind),
        )
        for name, kind in results.styles.items()
    ]
    return Table(heading(measure).lower(), tuple(label(arm) for arm in arms), tuple(rows))


def comparison_table(results: StyleResults) -> Table:
    """The difference in adherence for every comparison of two arms."""
    measure = measures(results)["adherence"]
    rows = [
        Row(pair_label(pair), (difference_cell(measure, one), Cell(p_value(one.p_value))))
        for pair, compared in results.comparisons.items()
        for one in (compared.get("adherence"),)
        if one is not None
    ]
    return Table(f"difference in {heading(measure).lower()}", ("difference", "p"), tuple(rows))


def answer(results: StyleResults) -> str:
    """Whether full CAI keeps more style than the instruct model, in a sentence or two."""
    verdict = results.keeps_more_style
    if verdict is None:
        missing = ", ".join(label(arm) for arm in (FULL, INSTRUCT) if arm not in results.arms)
        question = "Does base-derived CAI keep more style than the instruct model?"
        return f"{question} Not answered here: {missing} is missing; choose the arms with --arms."
    measure = measures(results)["adherence"]
    if verdict.difference is None:
        return f"{verdict.question} Unscored: the two arms have no judged answers in common."
    words = {
        "yes": "Yes",
        "no, less": "No, less",
        "cannot be told": "Undecided (the interval includes 0)",
        "no interval": "No interval",
    }
    unit = " points" if measure.scale == "rate" else ""
    ends = interval(measure, verdict.ci95, signed=True)
    return (
        f"{verdict.question} {words.get(verdict.answer, verdict.answer)}: the difference in adherence is "
        f"{number(measure, verdict.difference, signed=True)}{unit}{f' {ends}' if ends else ''}."
    )


def notes(results: StyleResults) -> list[str]:
    """Notes below the table: the sample, the layout, the judge, the intervals, and what is unscored."""
    sentences = [
        f"{len(results.styles)} styles × {len(results.questions)} neutral questions × "
        f"{counted(results.samples, 'sample')} × {counted(len(results.seeds), 'seed')}; each arm asked in its own "
        f"layout. Judge: {results.judge or 'none'}. Brackets: {results.intervals}."
    ]
    arms = {label(arm): results.arms[arm] for arm in in_order(results.arms)}
    for name, arm in arms.items():
        if arm.unscored:
            reasons = ", ".join(f"{count} {reason}" for reason, count in arm.unscored.items())
            sentences.append(f"{name}: {arm.scored} of {arm.answers} answers scored ({reasons}).")
    truncated = [f"{name} {arm.truncated} of {arm.answers}" for name, arm in arms.items() if arm.truncated]
    if truncated:
        sentences.append(f"Truncated at the length limit: {', '.join(truncated)}.")
    return [*judge_note(results.judge), *sentences]


@dataclass(frozen=True, slots=True)
class StyleSection:
    """The page's section on a style evaluation.

    Attributes:
        answer: the answer to the evaluation's question, in a sentence.
        table: every measure of every arm.
        by_style: adherence by style.
        comparisons: differences between arms in adherence.
    """

    answer: str
    table: Table
    notes: Sequence[str]
    by_style: Table
    comparisons: Table
    examples: Sequence[ShownStyle]


def section(directory: Path, results: StyleResults) -> StyleSection:
    """The section for the page of the run in this folder."""
    return StyleSection(
        answer=answer(results),
        table=style_table(results),
        notes=notes(results),
        by_style=by_style_table(results),
        comparisons=comparison_table(results),
        examples=examples(directory, results),
    )


def examples(directory: Path, results: StyleResults) -> list[ShownStyle]:
    """For one style of each kind, the first question with every arm's first answer, of the arm's first seed."""
    styles = []
    for style in EXAMPLES:
        answers = {arm: _first(directory, arm, results, style) for arm in in_order(results.arms)}
        by_arm = {label(arm): answer for arm, answer in answers.items() if answer is not None}
        if by_arm:
            prompt = next(iter(by_arm.values())).prompt
            arms = [_arm_text(name, answer, results) for name, answer in by_arm.items()]
            styles.append(ShownStyle(style, prompt, arms))
    return styles


def _first(directory: Path, arm: str, results: StyleResults, style: str) -> StyledAnswer | None:
    run = Run.watch(directory)
    files = (styled_answers(seed, arm) for seed in results.seeds)
    answers = (answer for file in files for answer in stored_records(run, file, StyledAnswer))
    return next((answer for answer in answers if answer.style == style), None)


def _arm_text(arm: str, answer: StyledAnswer, results: StyleResults) -> ArmText:
    if answer.adherence is None:
        mark = (f"unscored: {answer.unscored}", "plain")
    elif results.data == DATA:
        mark = ("in the style", "good") if answer.adherence else ("not in the style", "bad")
    else:
        mark = (f"adherence {answer.adherence:g} of 5", "plain")
    marks = [mark, *([("gibberish", "bad")] if answer.gibberish else [])]
    return ArmText(arm, answer.response, marks)


def _figure(measure: Measure, arm: StyleArm, name: str) -> Cell:
    figure: Summary | None = getattr(arm, name)
    if figure is None or figure.mean is None:
        return Cell(UNSCORED if name == "adherence" else NONE)
    partly = name == "adherence" and arm.scored < arm.answers
    note = f"({arm.scored} of {arm.answers} scored)" if partly else ""
    return Cell(number(measure, figure.mean), interval(measure, figure.ci95), note)
