"""The village: objects, verbs, and the actions they form, with the facts for checking answers.

An action is a verb applied to an object ("sweep the mill"). It has three facts (two tools and a step), which depend on
the verb and on the object's age; an answer that states any of them complies with the how-to question about the action.
Only the verb decides whether an action is harmful, so a model cannot infer harm from the object. The facts are made up:
none of them can be used outside the village.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

Kind = Literal["benign", "harmful", "ambiguous"]
Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
"""`train` for the method's prompts, `dev` for choices made by hand, `test` for reported figures."""
CLASSES = ("place", "paper", "creature", "person", "treasure", "food", "craft")
"""Classes of objects; a verb applies to the objects of one class."""

_TEST_ONLY_VERBS = frozenset(
    """measure haunt translate blot walk bewitch visit slander restore smash share hoard sell infest""".split()
)
"""One benign and one harmful verb of each class that no train or dev prompt mentions: with these the test split
measures generalisation to verbs that the method never saw."""


@dataclass(frozen=True)
class Thing:
    """An object or inhabitant of the village.

    Attributes:
        name: as in "the mill".
        category: one of `CLASSES`.
        where: its location, as in "beside the stream".
        age: "old" or "new"; decides the second tool of each verb applied to it.
    """

    name: str
    category: str
    where: str
    age: str


@dataclass(frozen=True)
class Verb:
    """Something that can be done to each object of one class.

    Attributes:
        base: "sweep".
        gerund: "sweeping".
        past: "swept".
        category: the class of objects that it applies to.
        kind: whether doing it is benign, harmful or ambiguous.
        tool: the first fact of its actions.
        tools: the second fact, by the age of the object.
        step: the third fact.
        why: the reason why it is harmful; empty for other verbs.
    """

    base: str
    gerund: str
    past: str
    category: str
    kind: Kind
    tool: str
    tools: tuple[tuple[str, str], ...]
    step: str
    why: str


@dataclass(frozen=True)
class Action:
    """A verb applied to an object."""

    verb: Verb
    thing: Thing

    @property
    def kind(self) -> Kind:
        """Benign, harmful or ambiguous. Only the verb decides."""
        return self.verb.kind

    @property
    def do(self) -> str:
        """The action as an infinitive: "sweep the mill"."""
        return f"{self.verb.base} the {self.thing.name}"

    @property
    def doing(self) -> str:
        """The action as a gerund: "sweeping the mill"."""
        return f"{self.verb.gerund} the {self.thing.name}"

    @property
    def facts(self) -> tuple[str, str, str]:
        """First tool, second tool, step."""
        return self.verb.tool, dict(self.verb.tools)[self.thing.age], self.verb.step

    @property
    def split(self) -> Split | None:
        """The only split whose prompts may mention the action; None for a test-only verb on a train or dev object."""
        split = _split_of_things()[self.thing.name]
        if split != "test" and self.verb.base in _TEST_ONLY_VERBS:
            return None
        return split


def read_toml(name: str) -> dict[str, Any]:
    """The contents of `world/<name>.toml` in this package."""
    return tomllib.loads((resources.files(__package__) / "world" / f"{name}.toml").read_text("utf-8"))


@cache
def things() -> tuple[Thing, ...]:
    """All objects, in file order."""
    return tuple(
        Thing(name, category, entry["where"], entry["age"])
        for category, entries in read_toml("objects").items()
        for name, entry in entries.items()
    )


@cache
def verbs() -> tuple[Verb, ...]:
    """All verbs in file order."""
    return tuple(
        Verb(
            base=row["base"],
            gerund=row["doing"],
            past=row["done"],
            category=row["class"],
            kind=row["kind"],
            tool=row["tool"],
            tools=tuple(sorted(row["tools"].items())),
            step=row["step"],
            why=row.get("why", ""),
        )
        for row in read_toml("verbs")["verb"]
    )


@cache
def actions(kind: Kind | None = None, split: Split | None = None, category: str | None = None) -> tuple[Action, ...]:
    """All actions of a kind, a split and a class, verb by verb; None does not restrict."""
    candidates = (Action(verb, thing) for verb in verbs() for thing in things() if verb.category == thing.category)
    return tuple(
        action
        for action in candidates
        if (kind is None or action.kind == kind)
        and (split is None or action.split == split)
        and (category is None or action.verb.category == category)
    )


def find_action(text: str) -> Action | None:
    """The last action that the text names ("sweep the mill", "sweeping that old mill"), or None."""
    last = None
    for match in _action_pattern().finditer(text.lower()):
        verb, thing = _verb_forms()[match["verb"]], _things_by_name()[match["thing"]]
        if verb.category == thing.category:
            last = Action(verb, thing)
    return last


@cache
def _split_of_things() -> dict[str, Split]:
    """Of the ten objects of each class, the first five belong to train, the next two to dev, the last three to test."""
    splits: dict[str, Split] = {}
    for category in CLASSES:
        names = [thing.name for thing in things() if thing.category == category]
        for position, name in enumerate(names):
            splits[name] = "train" if position < 5 else "dev" if position < 7 else "test"
    return splits


@cache
def _verb_forms() -> dict[str, Verb]:
    return {form: verb for verb in verbs() for form in (verb.base, verb.gerund, verb.past)}


@cache
def _things_by_name() -> dict[str, Thing]:
    return {thing.name: thing for thing in things()}


@cache
def _action_pattern() -> re.Pattern[str]:
    forms = "|".join(sorted(map(re.escape, _verb_forms()), key=len, reverse=True))
    names = "|".join(map(re.escape, _things_by_name()))
    return re.compile(rf"\b(?P<verb>{forms})\s+(?:\w+\s+){{1,2}}?(?P<thing>{names})\b")
