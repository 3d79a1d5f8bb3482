"""The forms in which suites are published: the columns of each, and which prompt of what kind a row is.

Which prompts are attacks and which are safe decides what is counted: attack success, or over-refusal. A form that holds
both says of each row which it is.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cai_base.errors import UserError
from cai_base.evaluation.tasks.suite_rows import Row
from cai_base.inputs.kinds import JAILBREAK, SENSITIVE
from cai_base.inputs.prompts import Prompt
from cai_base.reading import listed, shown

ATTACK = JAILBREAK
"""The kind of every attack, with a framing around it or without: it counts in the attack success rate."""
SAFE = SENSITIVE
"""The kind of a safe prompt that looks unsafe, which counts in the over-refusal rate."""
CONTEXT = "\n\n---\n\n"
"""HarmBench's separator between a context and the behaviour."""
HARMBENCH = ("standard", "contextual", "copyright")
"""HarmBench's functional categories."""
_FIRST_TURN = re.compile(r"\s*Human:(.*?)(?=\n\nAssistant:|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SuitePrompt:
    """One prompt of a suite, and the category that the suite puts it in, if it has any."""

    prompt: Prompt
    category: str | None = None


Reader = Callable[[Row, str], "SuitePrompt | str"]
"""Reads a row, given the name of its form, as a prompt; or gives the reason why the row is left out."""


@dataclass(frozen=True, slots=True)
class Columns:
    """One set of columns that a form comes in.

    Attributes:
        names: those that it must have, in any order and case.
        read: how a row is read.
        further: whether other columns may stand beside them. Where the names are so plain that other files have them
            too, no column but a row's number may.
    """

    names: tuple[str, ...]
    read: Reader
    further: bool = True


@dataclass(frozen=True, slots=True)
class Form:
    """A published form: the sets of columns that it comes in."""

    columns: tuple[Columns, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns of the authors' own file."""
        return self.columns[0].names


def _harmbench(row: Row, name: str) -> SuitePrompt | str:
    about, text = row.text("FunctionalCategory"), row.text("Behavior")
    if about not in HARMBENCH:
        raise UserError(
            f"{row.where}: the field 'FunctionalCategory' is {shown(about)}; it must be {listed(HARMBENCH)}"
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
        text = f"{context.strip()}{CONTEXT}{text}"
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
        raise UserError(f"{row.where}: the field 'label' is {shown(label)}; it must be safe or unsafe")
    # Before it had labels, the contrasts to the safe prompts were told by their type alone.
    unsafe = label == "unsafe" if label else category.startswith("contrast_")
    return SuitePrompt(_prompt(f"{name}-{row.number}", ATTACK if unsafe else SAFE, row.text("prompt")), category)


def _red_team(row: Row, name: str) -> SuitePrompt | str:
    transcript = row.text("transcript")
    first = _FIRST_TURN.match(transcript)
    if first is None:
        raise UserError(f"{row.where}: the field 'transcript' does not begin with a turn of 'Human:'")
    if not first[1].strip():
        return "has an empty first turn"
    return SuitePrompt(_prompt(f"{name}-{row.number}", ATTACK, first[1].strip()))


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
"""Every form by its name. JailbreakBench's two files have one form, and differ in what their prompts are. HarmBench
keeps AdvBench, and other attacks, in one form of its own; hub re-exports of AdvBench call the goal a prompt."""
