"""Both pages from the same content: self-contained HTML, and Markdown. Text of a model is always quoted and escaped."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from cai_base import __version__
from cai_base.arms import in_order
from cai_base.records import ATTACK, FeedbackFigures, LossUsed, Prefilled, Results, SecondJudge, Summary
from cai_base.report import reader, style, suites
from cai_base.report.figures import Group
from cai_base.report.headline import headline
from cai_base.report.labels import GLOSSARY, ORGANISM, failure_sentences, label
from cai_base.report.load import StoredRun, load_style
from cai_base.report.notes import notes, warnings
from cai_base.report.numbers import NONE, percent
from cai_base.report.plotting import arm_colours
from cai_base.report.shown import shown_answers, shown_chains
from cai_base.report.tables import (
    Table,
    comparison_table,
    coverage_table,
    family_table,
    main_table,
    pair_sentence,
    pairwise_table,
    principle_table,
    round_table,
)
from cai_base.report.web import web_environment
from cai_base.settings.judges import NO_JUDGE
from cai_base.settings.schema import LOSSES, RunSettings
from cai_base.text import counted, without_controls

PAIRWISE_NOTE = (
    "The judge sees an arm's answer to a benign prompt beside that of SFT, in both orders, and says which helps more, "
    "or neither. Preferred: the mean, a tie in an order as one half; 50 % means no difference."
)

HARM_NOTE = "Harm found: the share of all these rounds whose critique says that the response does harm. "

PRINCIPLES_NOTE = (
    "Harmful before and after: the share of responses to jailbreak, direct and borderline prompts that comply, before "
    "the round and after it. These two shares leave out rounds with an unscored response, and chains whose original "
    "was prefilled with the opening of a refusal; the number of rounds that are left stands beside the second. "
    "These are counts without intervals: most of the difference between two principles can be chance, and early rounds "
    "have more harm to remove."
)


def html(stored: StoredRun, groups: Sequence[Group], content: Mapping[str, object] | None = None) -> str:
    """`report.html`: one file that loads nothing. Its only script is that of the reader.

    Args:
        content: what `content_of` returned, if it has been asked.
    """
    glance = [picture for group in groups[:1] for picture in group.pictures]
    pictures = [picture for group in groups for picture in group.pictures]
    only_here = {
        "glance": glance,
        "glance_caption": groups[0].caption if groups else "",
        "reader": reader.read(stored, pictures),
    }
    return (
        web_environment()
        .get_template("report.html")
        .render({**(content or content_of(stored)), "groups": groups[1:], **only_here})
    )


def markdown(stored: StoredRun, groups: Sequence[Group], content: Mapping[str, object] | None = None) -> str:
    """`report.md`: every value is escaped, and every text of a model is a fenced block; see `html`."""
    environment = Environment(
        loader=PackageLoader("cai_base.report"),
        autoescape=False,
        finalize=lambda value: value if isinstance(value, Markdown) else escaped(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tools = {"fenced": fenced, "laid_out": laid_out}
    return environment.get_template("report.md").render({**(content or content_of(stored)), "groups": groups, **tools})


def content_of(stored: StoredRun) -> dict[str, object]:
    """The variables of both templates, by name, without the figures."""
    results, prefill = stored.results, stored.settings.revision.refusal_prefill
    return {
        "results": results,
        "colours": arm_colours(),
        "failures": failure_sentences(results),
        "warnings": warnings(results),
        "headline": headline(results),
        "organism": ORGANISM,
        "facts": _facts(results),
        "main": main_table(results),
        "notes": notes(results),
        "pairwise": pairwise_table(results),
        "pairwise_note": PAIRWISE_NOTE,
        "families": family_table(results),
        "coverage": coverage_table(results),
        "comparisons": comparison_table(results),
        "rounds": round_table(results),
        "principles": principle_table(results),
        "principles_note": (HARM_NOTE if _reads_critiques(results) else "") + PRINCIPLES_NOTE,
        "pairs": pair_sentence(results),
        "prefill": percent(prefill) if prefill else "",
        "opened": _opened(results.revision.prefilled),
        "chains": shown_chains(stored),
        "answers": shown_answers(stored),
        "suites": suites.sections(stored.directory),
        "style": _style(stored),
        "command": command(stored.settings),
        "version": __version__,
        "glossary": GLOSSARY,
    }


def _reads_critiques(results: Results) -> bool:
    """Whether the critiques of some principle could be read, so that its table has what they say."""
    return any(one.flagged is not None for one in (results.revision.principles or {}).values())


def _style(stored: StoredRun) -> style.StyleSection | None:
    """The results of the style evaluation; None if the run has none."""
    results = load_style(stored.directory)
    return None if results is None else style.section(stored.directory, results)


def _facts(results: Results) -> list[tuple[str, str]]:
    constitution, seeds = results.constitution, results.seeds
    protocols = {
        "heldout": "held out: no evaluation prompt is a prompt of the method",
        "original": "original: the method's prompts are also evaluation prompts",
    }
    return [
        ("Model", f"{results.model} (a model organism)" if results.model_organism else results.model),
        *([("Instruct model", results.instruct)] if results.instruct else []),
        ("Seeds", f"{len(seeds)} ({', '.join(map(str, seeds))})"),
        ("Protocol", protocols.get(results.protocol, results.protocol)),
        ("Judge", "none: answers are unscored" if results.judge == NO_JUDGE else str(results.judge)),
        *_second_judge(results.second_judge),
        *_votes(results),
        ("Constitution", f"{constitution.name}, {counted(constitution.principles, 'principle')}"),
        *([("Interpreter", results.interpreter)] if results.interpreter else []),
        *_losses(results.losses),
        *_feedback(results.feedback or {}),
        ("Engine", results.engine),
    ]


def _losses(losses: Mapping[str, LossUsed]) -> list[tuple[str, str]]:
    """Which arms were trained with which loss."""
    arms: dict[str, list[str]] = {}
    for arm in in_order(losses):
        loss = losses[arm]
        settings = ", ".join(f"{name} {value:g}" for name, value in loss.settings.items())
        about = LOSSES[loss.name].about if loss.name in LOSSES else ""
        details = "; ".join(filter(None, (about, settings)))
        arms.setdefault(f"{loss.name} ({details})" if details else loss.name, []).append(label(arm))
    text = "; ".join(f"{', '.join(names)}: {loss}" for loss, names in arms.items())
    return [("Loss", text)] if text else []


def _feedback(feedback: Mapping[str, FeedbackFigures]) -> list[tuple[str, str]]:
    """For each arm trained on comparisons: mean confidence, probability of the letter (A), how often both orders agree,
    and how often the judge agrees."""
    rows = []
    for arm in in_order(feedback):
        figures = feedback[arm]
        agreement = ", ".join(
            f"{_with_interval(one)} of {figures.judge_decided[kind]} {kind}"
            for kind, one in figures.judge_agreement.items()
        )
        rows.append(
            (
                f"Labels of {label(arm)}",
                f"{figures.pairs} of {figures.responses} pairs compared under "
                f"{counted(figures.principles, 'principle')}; the "
                f"preferred answer has {_with_interval(figures.confidence)}, the letter (A) "
                f"{_with_interval(figures.first_letter)}; both orders agree in "
                f"{_with_interval(figures.order_agreement)}; the judge agrees where it decides: {agreement}",
            )
        )
    return rows


def _with_interval(one: Summary) -> str:
    if one.mean is None:
        return NONE
    ends = "" if one.ci95 is None else f" [{percent(one.ci95[0])}, {percent(one.ci95[1])}]"
    return f"{percent(one.mean)}{ends}"


def _second_judge(second: SecondJudge | None) -> list[tuple[str, str]]:
    """The second judge's agreement with the first, and its attack success rates; empty without a second judge."""
    if second is None:
        return []
    alphas = ", ".join(
        f"{part} {NONE if one.alpha is None else format(one.alpha, '.2f')} ({one.answers} answers)"
        for part, one in second.agreement.items()
    )
    means = {arm: figures[ATTACK].mean for arm, figures in second.arms.items() if ATTACK in figures}
    rates = ", ".join(f"{label(arm)} {percent(mean)}" for arm, mean in means.items() if mean is not None)
    text = f"{second.name}; Krippendorff's alpha with the first: {alphas or 'no answer was scored by both'}"
    return [("Second judge", f"{text}. Its attack success rate: {rates or NONE}")]


def _votes(results: Results) -> list[tuple[str, str]]:
    """The agreement of the votes; empty if every answer has one vote."""
    if not results.vote_agreement:
        return []
    alphas = ", ".join(
        f"{part} {NONE if value is None else f'{value:.2f}'}" for part, value in results.vote_agreement.items()
    )
    return [("Votes", f"{results.votes} for each answer; Krippendorff's alpha: {alphas}")]


def command(settings: RunSettings) -> str:
    """The command that repeats this run, with every setting as a flag."""
    config = settings.model_dump(mode="json", by_alias=True)
    return " ".join(("cai-base run", *(flag for name, value in _leaves(config) if (flag := _flag(name, value)))))


def _flag(name: str, value: object) -> str:
    """A setting as a flag; empty if it is not set, or is a switch that is off."""
    if value is None or value is False:
        return ""
    return f"--{name}" if value is True else f"--{name} {shlex.quote(str(value))}"


def _leaves(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


class Markdown(str):
    """Text that is already Markdown, so it is not escaped again."""

    __slots__ = ()


def escaped(text: str) -> Markdown:
    """One line of Markdown that shows exactly this text: it can contain no markup and no HTML, and end no table
    cell."""
    line = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", without_controls(" ".join(text.split())))
    return Markdown(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def fenced(text: str) -> Markdown:
    """The text as a code block, whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markdown(f"{fence}text\n{without_controls(text)}\n{fence}")


def laid_out(table: Table) -> Markdown:
    """The table in Markdown."""
    if table.empty:
        return escaped(f"{table.corner.capitalize()}: unscored.")
    rows = [
        [table.corner, *table.columns],
        ["---", *["---:" for _ in table.columns]],
        *([_explained(row.name, row.about), *(cell.text() for cell in row.cells)] for row in table.rows),
    ]
    return Markdown("\n".join(f"| {' | '.join(escaped(cell) for cell in row)} |" for row in rows))


def _explained(name: str, about: str) -> str:
    return f"{name}: {about}" if about else name


def _opened(prefilled: Prefilled) -> dict[str, str]:
    """Counts of originals with a prefilled refusal: all of them, and harmful prompts complied with in the last
    round."""
    last = prefilled.harmful_by_round[-1]
    return {"chains": str(prefilled.chains), "harmful": "" if last is None else percent(last)}
