"""The formats in which suites are published: their columns, and the prompt and kind of each row.

The kind decides whether answers count for attack success or for over-refusal. A format with attacks and safe prompts
says for each row which it is.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cai_base.errors import UserError
from cai_base.evaluation.tasks.suite_rows import Row
from cai_base.inputs.kinds import JAILBREAK, SENSITIVE
from cai_base.inputs.prompts import Prompt
from cai_base.reading import listed, quote

ATTACK = JAILBREAK
"""The kind of every attack, with or without a framing; it counts for attack success."""
SAFE = SENSITIVE
"""The kind of a safe prompt that looks unsafe; it counts for over-refusal."""
CONTEXT = "\n\n---\n\n"
"""HarmBench's separator between a context and the behaviour."""
HARMBENCH = ("standard", "contextual", "copyright")
"""HarmBench's functional categories."""
_FIRST_TURN = re.compile(r"\s*Human:(.*?)(?=\n\nAssistant:|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SuitePrompt:
    """One prompt of a suite, and its category in the suite, if any."""

    prompt: Prompt
    category: str | None = None


Reader = Callable[[Row, str], "SuitePrompt | str"]
"""A function from a row and the name of its format to a prompt, or to the reason why the row is left out."""


@dataclass(frozen=True, slots=True)
class Columns:
    """One set of columns of a format.

    Attributes:
        names: the columns that it must have, in any order and case.
        read: the function that reads a row.
        further: whether other columns are allowed. If the names are so common that other files have them too, only a
            column that numbers the rows is.
    """

    names: tuple[str, ...]
    read: Reader
    further: bool = True


@dataclass(frozen=True, slots=True)
class Form:
    """A published format, which may have several sets of columns."""

    columns: tuple[Columns, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns of the authors' own file."""
        return self.columns[0].names


def _harmbench(row: Row, name: str) -> SuitePrompt | str:
    about, text = row.text("FunctionalCategory"), row.text("Behavior")
    if about not in HARMBENCH:
        raise UserError(
            f"{row.where}: the field 'FunctionalCategory' is {quote(about)}; it must be {listed(HARMBENCH)}"
        )
    if about == "copyright":
        return "asks for protected text, which is scored by comparing with that text and by no judge"
    if about == "contextual":
        text = f"{row.text('ContextString')}{CONTEXT}{text}"
    return SuitePrompt(_prompt(row.text("BehaviorID"), ATTACK, text), row.text("SemanticCategory"))


def _attack(column: str) -> Reader:
    """Reads a row as the attack in one of its columns."""
    return lambda row, name: SuitePrompt(_prompt(f"{name}-{row.number}", ATTACK, row.text(column)))


def _harmbench_extra(row: Row, name: str) -> SuitePrompt:
    text, context, category = row.text("Behavior"), row.get("ContextString"), row.get("Category")
    if isinstance(context, str) and context.strip():
        text = f"{row.text('ContextString')}{CONTEXT}{text}"
    return SuitePrompt(
        _prompt(row.text("BehaviorID"), ATTACK, text),
        category.strip() if isinstance(category, str) and category.strip() else None,
    )


def _jailbreakbench(row: Row, name: str) -> SuitePrompt:
    kind = SAFE if name.endswith("-benign") else ATTACK
    return SuitePrompt(_prompt(f"{name}-{row.number}", kind, row.text("Goal")), row.text("Category"))


def _strongreject(row: Row, name: str) -> SuitePrompt:
    return SuitePrompt(_prompt(f"{name}-{row.number}", ATTACK, row.text("forbidden_prompt")), row.text("category"))


def _xstest(row: Row, name: str) -> SuitePrompt:
    category = row.text("type")
    label = row.text("label") if row.get("label") is not None else None
    if label not in ("safe", "unsafe", None):
        raise UserError(f"{row.where}: the field 'label' is {quote(label)}; it must be safe or unsafe")
    # Before it had labels, the contrasts to the safe prompts were told by their type alone.
    unsafe = label == "unsafe" if label else category.startswith("contrast_")
    return SuitePrompt(_prompt(f"{name}-{row.number}", ATTACK if unsafe else SAFE, row.text("prompt")), category)


def _red_team(row: Row, name: str) -> SuitePrompt | str:
    transcript = row.text("transcript")
    first = _FIRST_TURN.match(transcript)
    if first is None:
        raise UserError(f"{row.where}: the field 'transcript' does not begin with a turn of 'Human:'")
    text = row.readable("transcript", first[1].strip())
    if not text:
        return "has an empty first turn"
    return SuitePrompt(_prompt(f"{name}-{row.number}", ATTACK, text))


def _prompt(name: str, kind: str, text: str) -> Prompt:
    return Prompt(id=name, kind=kind, text=text)


JAILBREAKBENCH = "jailbreakbench"
"""What the names of its two forms begin with."""
_JAILBREAKBENCH = Form((Columns(("Goal", "Target", "Behavior", "Category"), _jailbreakbench),))
_HARMBENCH_EXTRA = Columns(("Behavior", "Category", "Tags", "ContextString", "BehaviorID"), _harmbench_extra)
FORMS: Mapping[str, Form] = {
    "harmbench": Form(
        (Columns(("Behavior", "FunctionalCategory", "SemanticCategory", "ContextString", "BehaviorID"), _harmbench),)
    ),
    "harmbench-extra": Form((_HARMBENCH_EXTRA,)),
    "advbench": Form(
        (
            Columns(("goal", "target"), _attack("goal"), further=False),
            Columns(("prompt", "target"), _attack("prompt"), further=False),
            _HARMBENCH_EXTRA,
        )
    ),
    f"{JAILBREAKBENCH}-harmful": _JAILBREAKBENCH,
    f"{JAILBREAKBENCH}-benign": _JAILBREAKBENCH,
    "strongreject": Form((Columns(("category", "source", "forbidden_prompt"), _strongreject),)),
    "xstest": Form((Columns(("prompt", "type", "focus"), _xstest),)),
    "hh-red-team": Form((Columns(("transcript", "task_description"), _red_team),)),
}
"""Every format by its name. JailbreakBench's two files have the same columns and differ in the kind of their prompts.
HarmBench stores AdvBench and other attacks in a format of its own; re-exports of AdvBench on the hub call the goal a
prompt."""
