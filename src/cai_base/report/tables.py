"""The tables of a report as plain cells, laid out later for the terminal, for HTML and for Markdown."""

from dataclasses import dataclass

from cai_base import arms as arm_table
from cai_base.evaluation.metrics import METRICS
from cai_base.report.labels import ARMS, MEASURES, Measure, measures
from cai_base.store import Record

ORDER = (*arm_table.ARMS, arm_table.MODEL.name)
"""The order of tables."""

NONE, UNSCORED, NO_ANSWERS = "–", "unscored", "no answers"
APART = "apart"
"""Said of a family that is not part of the rate."""

COMPARED = ("difference", "p", "p, Holm", "seeds with p < 0.05, McNemar", "smallest detectable difference")
"""What a comparison is given by."""

MISSING = (NONE, UNSCORED, NO_ANSWERS)
"""What stands where there is no figure."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure: its value, its interval, what must be said beside it, and whether it shows a failure."""

    value: str = ""
    interval: str = ""
    note: str = ""
    failed: bool = False

    def text(self, between: str = " ") -> str:
        """All of it."""
        return between.join(part for part in (self.value, self.interval, self.note) if part)


@dataclass(frozen=True, slots=True)
class Row:
    """A named row; `about` explains the name."""

    name: str
    cells: tuple[Cell, ...]
    about: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; `corner` names the rows."""

    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing in it is scored."""
        return all(cell.value in MISSING for row in self.rows for cell in row.cells)

    def part(self, start: int, stop: int) -> "Table":
        """The table with these columns alone."""
        rows = tuple(Row(row.name, row.cells[start:stop], row.about) for row in self.rows)
        return Table(self.corner, self.columns[start:stop], rows)


def arms_of(results: Record) -> list[str]:
    """The results' arms in the order of the table."""
    return sorted(results["arms"], key=ORDER.index)


def main_table(results: Record) -> Table:
    """Every metric of every arm, with the difference from SFT-only beside each arm that started there."""
    columns: list[tuple[str, str | None]] = []
    for arm in arms_of(results):
        columns.append((ARMS[arm], None))
        if f"{arm} - sft" in results["comparisons"]:
            columns.append((f"{ARMS[arm]} − {ARMS['sft']}", f"{arm} - sft"))
    rows = []
    for name, measure in measures(results).items():
        cells = [
            _mean(measure, results["arms"][_arm(label)][name], _failure(results, _arm(label), name))
            if pair is None
            else difference_cell(measure, results["comparisons"][pair][name])
            for label, pair in columns
        ]
        rows.append(Row(f"{measure.label} ({measure.unit})", tuple(cells), measure.about))
    return Table("", tuple(label for label, _ in columns), tuple(rows))


def coverage_table(results: Record) -> Table:
    """Scored out of all answers for every metric that needs a judge, with worst-case bounds where some are unscored."""
    arms = arms_of(results)
    rows = [
        Row(measure.label, tuple(_coverage(measure, results["arms"][arm][name]) for arm in arms))
        for name, measure in measures(results).items()
        if name not in METRICS or METRICS[name].bounds is not None
    ]
    return Table("scored answers", tuple(ARMS[arm] for arm in arms), tuple(rows))


def incomplete(results: Record) -> bool:
    """Whether any answer is unscored."""
    figures = (figure for arm in results["arms"].values() for figure in arm.values())
    return any(figure["scored"] < figure["total"] for figure in figures)


def family_table(results: Record) -> Table:
    """Attack success by family; kinds that are not part of the rate come last, and say so."""
    arms, measure = arms_of(results), MEASURES["attack_success_rate"]
    found = {arm: results["arms"][arm]["attack_success_rate"]["by_family"] for arm in arms}
    apart = METRICS["attack_success_rate"].families
    names = sorted(dict.fromkeys(name for one in found.values() for name in one), key=lambda name: name in apart)
    rows = [
        Row(name, tuple(plain_cell(measure, found[arm].get(name)) for arm in arms), APART if name in apart else "")
        for name in names
    ]
    return Table("attack success (%)", tuple(ARMS[arm] for arm in arms), tuple(rows))


def comparison_table(results: Record) -> Table:
    """Every comparison of two arms: difference, p values, smallest detectable difference."""
    rows = [
        Row(
            f"{pair_name(pair)}: {measure.label} ({measure.unit})",
            (
                difference_cell(measure, compared[name]),
                Cell(p_value_text(compared[name]["p_value"])),
                Cell(p_value_text(compared[name].get("p_holm"))),
                Cell(_by_seed(compared[name].get("mcnemar"))),
                plain_cell(measure, compared[name]["minimum_detectable"], missing=NONE),
            ),
        )
        for pair, compared in results["comparisons"].items()
        for name, measure in measures(results).items()
    ]
    return Table("comparison", COMPARED, tuple(rows))


def _by_seed(tests: list[Record | None] | None) -> str:
    """In how many seeds McNemar's test finds a difference, and in which direction."""
    known = [test for test in tests or () if test is not None]
    if not known:
        return NONE
    found = [test["first_only"] > test["second_only"] for test in known if test["p_value"] < 0.05]
    ways = [f"{found.count(more)} {sign}" for more, sign in ((True, "+"), (False, "−")) if found.count(more)]
    return f"{' and '.join(ways) or 0} of {len(known)}"


def round_table(results: Record) -> Table:
    """Harm, refusal and helpfulness of the original and of every round's revision."""
    revision = results["revision"]
    rates = MEASURES["attack_success_rate"], MEASURES["helpfulness"]
    rows = (
        ("Harmful (%)", "harmful_by_round", rates[0], "of responses to harmful prompts"),
        ("Refused (%)", "refused_by_round", rates[0], "of responses to benign and benign-but-sensitive prompts"),
        ("Helpfulness (1–5)", "helpful_by_round", rates[1], "of responses to benign and benign-but-sensitive prompts"),
    )
    columns = tuple("original" if n == 0 else f"round {n}" for n in range(len(revision["harmful_by_round"])))
    return Table(
        "by revision round",
        columns,
        tuple(
            Row(name, tuple(plain_cell(measure, value) for value in revision[field]), about)
            for name, field, measure, about in rows
            if field in revision
        ),
    )


def pair_sentence(results: Record) -> str:
    """What became of the revision chains."""
    revision = results["revision"]
    tokens = {side: _tokens(value) for side, value in revision["response_tokens"].items()}
    lost = ", ".join(f"{number} {reason}" for reason, number in revision["filtered"].items())
    return (
        f"{revision['chains']} revision chains gave {revision['pairs']} preference pairs; filtered: {lost}. "
        f"Mean tokens: {tokens['chosen']} chosen, {tokens['rejected']} rejected."
    )


def about_note(results: Record) -> str:
    """What each row of the main table is taken over, and which way is better."""
    return "Measured on: " + ". ".join(f"{one.label}: {one.about}" for one in measures(results).values()) + "."


def _arm(label: str) -> str:
    return next(arm for arm, known in ARMS.items() if known == label)


def pair_name(pair: str) -> str:
    """Two compared arms, `cai - sft` in results, in the words of the page."""
    first, second = pair.split(" - ")
    return f"{ARMS[first]} − {ARMS[second]}"


def _failure(results: Record, arm: str, metric: str) -> str:
    """The kind of failure that this figure shows; empty if it shows none."""
    return next((f["kind"] for f in results.get("failures", []) if (f["arm"], f["metric"]) == (arm, metric)), "")


def _mean(measure: Measure, figure: Record, failure: str = "") -> Cell:
    if figure["mean"] is None:
        return Cell(UNSCORED if figure["answered"] else NO_ANSWERS)
    partly = figure["scored"] < figure["total"]
    notes = [f"✗ {failure}"] if failure else []
    if partly:
        notes.append(f"({figure['scored']} of {figure['total']} scored)")
    return Cell(measure.number(figure["mean"]), measure.interval(figure["ci95"]), " ".join(notes), bool(failure))


def difference_cell(measure: Measure, compared: Record) -> Cell:
    """The difference of two arms in one metric, with its interval."""
    if compared["difference"] is None:
        return Cell(NONE)
    return Cell(measure.number(compared["difference"], signed=True), measure.interval(compared["ci95"], signed=True))


def _coverage(measure: Measure, figure: Record) -> Cell:
    worst = figure["worst_case"]
    needed = figure["scored"] < figure["total"] and None not in worst
    return Cell(
        f"{figure['scored']} of {figure['total']}", note=f"worst case {measure.interval(worst)}" if needed else ""
    )


def plain_cell(measure: Measure, value: float | None, missing: str = UNSCORED) -> Cell:
    """A value without an interval."""
    return Cell(missing if value is None else measure.number(value))


def p_value_text(value: float | None) -> str:
    """A p value with three decimals."""
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _tokens(value: float | None) -> str:
    return NONE if value is None else MEASURES["response_tokens"].number(value)
