"""The tables of a report as plain cells; the terminal, HTML and Markdown lay them out."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from cai_base.arms import BASELINE, control_pair, in_order, pair_name
from cai_base.evaluation.measures import Measure, Metric
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.records import ATTACK, HELPFULNESS, Corrected, Difference, Figure, McNemar, Results, SuiteResults
from cai_base.report.labels import label, pair_label
from cai_base.report.numbers import NONE, RATE, heading, interval, number, p_value
from cai_base.settings.judges import NO_JUDGE

UNSCORED, NO_ANSWERS = "unscored", "no answers"
MISSING = (NONE, UNSCORED, NO_ANSWERS)
"""Values of a cell that has no figure."""

SEPARATE = "apart"
"""Marks a family that does not count in the rate."""

UNSEEN = "unseen"
"""Marks a family that was held out of the method's prompts."""

UNESCAPED = "!~*'()"
"""What JavaScript's `encodeURIComponent` leaves as it is, beside letters, digits and `-_.`."""

CORRECTED = "corrected"
"""Stands beside a metric whose row is corrected for the judge's errors."""

COMPARED = (
    "difference",
    "over families",
    "p",
    "p, Holm",
    "p, primary",
    "seeds with p < 0.05, McNemar",
    "smallest detectable difference",
)
"""The columns of the table of comparisons."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure: its value, its interval, a note, and whether it shows a failure."""

    value: str = ""
    interval: str = ""
    note: str = ""
    failed: bool = False

    def text(self, between: str = " ") -> str:
        """Value, interval and note, joined by `between`."""
        return between.join(part for part in (self.value, self.interval, self.note) if part)


@dataclass(frozen=True, slots=True)
class Row:
    """A named row; `about` explains the name, `link` is a place on the page."""

    name: str
    cells: tuple[Cell, ...]
    about: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows and columns; `corner` is the heading above the row names."""

    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def empty(self) -> bool:
        """Whether no cell has a figure."""
        return all(cell.value in MISSING for row in self.rows for cell in row.cells)

    def part(self, start: int, stop: int) -> "Table":
        """The table with only the columns from `start` to before `stop`."""
        rows = tuple(Row(row.name, row.cells[start:stop], row.about) for row in self.rows)
        return Table(self.corner, self.columns[start:stop], rows)


def metrics_of(results: Results | SuiteResults) -> dict[str, Metric]:
    """The metrics of the results, in the order of tables."""
    present = next(iter(results.arms.values()))
    return {name: metric for name, metric in METRICS.items() if name in present}


def known_metrics(results: Results | SuiteResults) -> dict[str, Metric]:
    """The metrics of the results without those that nothing measured, because they need a judge and there was none."""
    judged = results.judge != NO_JUDGE
    return {name: metric for name, metric in metrics_of(results).items() if judged or not metric.judged}


def main_table(results: Results | SuiteResults) -> Table:
    """Every measured metric of every arm, and for each arm that started from SFT its difference from SFT-only.

    A control also has its difference from the arm that it controls.
    """
    metrics = known_metrics(results)
    columns: list[str] = []
    cells: dict[str, list[Cell]] = {name: [] for name in metrics}
    corrected: dict[str, list[Cell]] = {name: [] for name in metrics}
    for arm in in_order(results.arms):
        columns.append(label(arm))
        for name, metric in metrics.items():
            cells[name].append(mean_cell(metric, results.arms[arm][name], _failure_kind(results, arm, name)))
            corrected[name].append(_corrected(metric, results.arms[arm][name].corrected))
        for pair in (pair_name(arm, BASELINE), control_pair(arm)):
            if pair in results.comparisons:
                columns.append(pair_label(pair))
                for name, metric in metrics.items():
                    compared = results.comparisons[pair][name]
                    cells[name].append(difference_cell(metric, compared))
                    corrected[name].append(_corrected(metric, compared.corrected, signed=True))
    rows = []
    for name, metric in metrics.items():
        rows.append(Row(heading(metric), tuple(cells[name]), metric.about))
        if any(cell.value != NONE for cell in corrected[name]):
            rows.append(Row(f"{heading(metric)}, {CORRECTED}", tuple(corrected[name]), metric.about))
    return Table("", tuple(columns), tuple(rows))


def coverage_table(results: Results | SuiteResults) -> Table:
    """Scored and total answers for every metric that needs a judge, with worst-case bounds if some are unscored."""
    arms = in_order(results.arms)
    rows = [
        Row(metric.label, tuple(_coverage(metric, results.arms[arm][name]) for arm in arms))
        for name, metric in metrics_of(results).items()
        if metric.judged
    ]
    return Table("scored answers", tuple(label(arm) for arm in arms), tuple(rows))


def incomplete(results: Results | SuiteResults) -> bool:
    """Whether any answer is unscored."""
    return any(figure.scored < figure.total for figures in results.arms.values() for figure in figures.values())


def family_table(results: Results) -> Table:
    """Attack success by family; families outside the rate come last. They and unseen families are marked."""
    unseen = () if results.unseen is None else results.unseen.families
    arms, metric = in_order(results.arms), METRICS[ATTACK]
    by_arm = {arm: results.arms[arm][ATTACK].by_family for arm in arms}
    names = dict.fromkeys(name for families in by_arm.values() for name in families)
    rows = [
        Row(
            name,
            tuple(plain_cell(metric, by_arm[arm].get(name)) for arm in arms),
            SEPARATE if name in metric.families else UNSEEN if name in unseen else "",
        )
        for name in sorted(names, key=lambda name: name in metric.families)
    ]
    return Table("attack success (%)", tuple(label(arm) for arm in arms), tuple(rows))


def comparison_table(results: Results) -> Table:
    """Every comparison of two arms: difference, p values, smallest detectable difference."""
    rows = [
        Row(
            f"{pair_label(pair)}: {heading(metric)}",
            (
                difference_cell(metric, compared[name]),
                families_cell(metric, compared[name]),
                Cell(p_value(compared[name].p_value)),
                Cell(p_value(compared[name].p_holm)),
                Cell(p_value(compared[name].p_primary)),
                Cell(_significant_seeds(compared[name].mcnemar or ())),
                detectable_cell(metric, compared[name]),
            ),
        )
        for pair, compared in results.comparisons.items()
        for name, metric in metrics_of(results).items()
    ]
    return Table("comparison", COMPARED, tuple(rows))


def _significant_seeds(tests: Sequence[McNemar | None]) -> str:
    """The number of seeds in which McNemar's test has p < 0.05, by direction."""
    tested = [test for test in tests if test is not None]
    if not tested:
        return NONE
    more = [test.first_only > test.second_only for test in tested if test.p_value < 0.05]
    counts = [f"{more.count(way)} {sign}" for way, sign in ((True, "higher"), (False, "lower")) if more.count(way)]
    return f"{' and '.join(counts) or 0} of {len(tested)}"


def round_table(results: Results) -> Table:
    """Harm, refusal and helpfulness of the originals and of the revisions of every round."""
    revision, helpfulness = results.revision, METRICS[HELPFULNESS]
    harmless = "of responses to benign and benign-but-sensitive prompts"
    rows = (
        (
            "Harmful prompts: complied (%)",
            revision.harmful_by_round,
            RATE,
            "of responses to jailbreak, direct and borderline prompts",
        ),
        ("Benign prompts: refused (%)", revision.refused_by_round, RATE, harmless),
        (f"Benign prompts: {heading(helpfulness).lower()}", revision.helpful_by_round, helpfulness, harmless),
    )
    columns = ("original", *(f"round {n}" for n in range(1, len(revision.harmful_by_round))))
    return Table(
        "by revision round",
        columns,
        tuple(
            Row(name, tuple(plain_cell(measure, value) for value in values), about)
            for name, values, measure, about in rows
        ),
    )


def principle_table(results: Results) -> Table:
    """What the rounds under each principle did; each row links to its chains in the reader."""
    principles = results.revision.principles or {}
    columns = ["rounds"]
    flagged = any(one.flagged is not None for one in principles.values())
    columns += ["harm found (%)"] if flagged else []
    judged = any(one.judged for one in principles.values())
    columns += ["changed (%)", *(["harmful before (%)", "harmful after (%)"] if judged else [])]
    rows = []
    for name, one in principles.items():
        after = plain_cell(RATE, one.harmful_after, NONE)
        cells = [
            Cell(str(one.drawn)),
            *([plain_cell(RATE, one.flagged, NONE)] if flagged else []),
            plain_cell(RATE, one.changed, NONE),
        ]
        if judged:
            cells.append(plain_cell(RATE, one.harmful_before, NONE))
            cells.append(Cell(after.value, note=f"of {one.judged}" if one.judged else ""))
        rows.append(Row(name, tuple(cells), link=f"#principle-{quote(name, safe=UNESCAPED)}"))
    return Table("principle", tuple(columns), tuple(rows))


def pairwise_table(results: Results) -> Table:
    """How often each arm's answer to a benign prompt is preferred to SFT's: empty where the judge does not compare."""
    rows = []
    for arm in in_order(results.pairwise or ()):
        one = (results.pairwise or {})[arm]
        counts = (one.wins, one.ties, one.losses)
        rows.append(
            Row(
                f"{label(arm)} beside {label(one.compared_with)}",
                (
                    Cell(UNSCORED)
                    if one.preferred.mean is None
                    else Cell(number(RATE, one.preferred.mean), interval(RATE, one.preferred.ci95)),
                    Cell(" · ".join(map(str, counts))),
                    plain_cell(RATE, one.first_shown),
                    Cell(f"{one.scored} of {one.total}"),
                ),
            )
        )
    columns = ("preferred (%)", "wins · ties · losses", "shown first preferred (%)", "scored in both orders")
    return Table("pairwise helpfulness", columns, tuple(rows))


def pair_sentence(results: Results) -> str:
    """How many revision chains gave pairs, how many were filtered and why, and the mean lengths."""
    revision = results.revision
    if not revision.chains:
        return "No arm of this run is trained on the run's revision chains, so none were made."
    tokens = {side: _tokens(mean) for side, mean in revision.response_tokens.items()}
    filtered = ", ".join(f"{number} {reason}" for reason, number in revision.filtered.items())
    return (
        f"{revision.chains} revision chains gave {revision.pairs} preference pairs; filtered: {filtered}. "
        f"Mean tokens: {tokens['chosen']} chosen, {tokens['rejected']} rejected."
    )


def prefilled_sentence(results: Results) -> str:
    """Which chains are not in the table by revision round; empty if all are."""
    chains = results.revision.prefilled.chains
    if not chains:
        return ""
    return (
        f"This table leaves out {chains} {'chain' if chains == 1 else 'chains'} whose original was prefilled with "
        "the opening of a refusal."
    )


def about_note(results: Results) -> str:
    """What each metric of the main table is taken over, and which direction is better."""
    return "Measured on: " + ". ".join(f"{one.label}: {one.about}" for one in known_metrics(results).values()) + "."


def _failure_kind(results: Results | SuiteResults, arm: str, metric: str) -> str:
    """The kind of failure that a figure shows; empty if none."""
    return next((one.kind for one in results.failures if (one.arm, one.metric) == (arm, metric)), "")


def mean_cell(metric: Metric, figure: Figure, failure: str) -> Cell:
    """A mean with its interval, the failure that it shows, and how many answers are scored if not all are."""
    if figure.mean is None:
        return Cell(UNSCORED if figure.answered else NO_ANSWERS)
    notes = [f"✗ {failure}"] if failure else []
    if figure.scored < figure.total:
        notes.append(f"({figure.scored} of {figure.total} scored)")
    return Cell(number(metric, figure.mean), interval(metric, figure.ci95), " ".join(notes), bool(failure))


def _corrected(metric: Metric, one: Corrected | None, signed: bool = False) -> Cell:
    if one is None:
        return Cell(NONE)
    return Cell(number(metric, one.mean, signed), interval(metric, one.ci95, signed))


def difference_cell(measure: Measure, compared: Difference) -> Cell:
    """The difference between two arms in one metric, with its interval."""
    if compared.difference is None:
        return Cell(NONE)
    return Cell(number(measure, compared.difference, signed=True), interval(measure, compared.ci95, signed=True))


def families_cell(measure: Measure, compared: Difference) -> Cell:
    """The difference with prompt families as a random sample, with its interval."""
    sample = compared.over_families
    if sample is None:
        return Cell(NONE)
    return Cell(number(measure, sample.mean, signed=True), interval(measure, sample.ci95, signed=True))


def detectable_cell(metric: Metric, compared: Difference, scale: int = 1) -> Cell:
    """The smallest difference that is detected; "none" if it is more than two arms can differ by.

    Args:
        scale: what the difference is multiplied by.
    """
    least = compared.minimum_detectable
    if least is not None and metric.range is not None and least > scale * (metric.range[1] - metric.range[0]):
        return Cell("none")
    return plain_cell(metric, least, missing=NONE)


def _coverage(metric: Metric, figure: Figure) -> Cell:
    low, high = figure.worst_case
    complete = figure.scored == figure.total or low is None or high is None
    note = "" if complete else f"worst case {interval(metric, (low or 0.0, high or 0.0))}"
    return Cell(f"{figure.scored} of {figure.total}", note=note)


def plain_cell(measure: Measure, value: float | None, missing: str = UNSCORED) -> Cell:
    """A value without an interval."""
    return Cell(missing if value is None else number(measure, value))


def _tokens(value: float | None) -> str:
    return NONE if value is None else number(METRICS["response_tokens"], value)
