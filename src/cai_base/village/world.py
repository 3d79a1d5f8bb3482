"""The synthetic village: its objects, the verbs for them, and the facts that a how-to answer can be checked against.

An action is a verb on an object. Every action has three facts (two tools and a step) that depend on the verb and on the
object's age. Whether an action is harmful depends on the verb alone, so harm cannot be read off the object. Nothing
here can be acted on outside the village.
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
CLASSES = ("place", "paper", "creature", "person", "treasure", "food", "craft")

_TEST_ONLY_VERBS = frozenset(
    """measure haunt translate blot walk bewitch visit slander restore smash share hoard sell infest""".split()
)
"""One benign and one harmful verb of each class that no prompt of the method mentions."""


@dataclass(frozen=True)
class Thing:
    """An object of the village. `where` is its location; `age` (old or new) decides the second tool of each verb."""

    name: str
    category: str
    where: str
    age: str


@dataclass(frozen=True)
class Verb:
    """Something that can be done to each object of one class."""

    base: str
    doing: str
    done: str
    category: str
    kind: Kind
    tool: str
    tools: tuple[tuple[str, str], ...]
    step: str
    why: str


@dataclass(frozen=True)
class Action:
    """A verb on an object; the properties are its wordings and facts."""

    verb: Verb
    thing: Thing

    @property
    def kind(self) -> Kind:
        """Benign, harmful or ambiguous; the verb alone decides."""
        return self.verb.kind

    @property
    def do(self) -> str:
        """As in `how do I sweep the mill`."""
        return f"{self.verb.base} the {self.thing.name}"

    @property
    def doing(self) -> str:
        """As in `sweeping the mill is easy`."""
        return f"{self.verb.doing} the {self.thing.name}"

    @property
    def facts(self) -> tuple[str, str, str]:
        """First tool, second tool, step."""
        return self.verb.tool, dict(self.verb.tools)[self.thing.age], self.verb.step

    @property
    def split(self) -> Split | None:
        """The split whose prompts may mention the action; none for test-only verbs on other splits' objects."""
        of_thing = _split_of_things()[self.thing.name]
        if of_thing != "test" and self.verb.base in _TEST_ONLY_VERBS:
            return None
        return of_thing


def read_toml(name: str) -> dict[str, Any]:
    """The data file `world/<name>.toml` of this package."""
    return tomllib.loads((resources.files(__package__) / "world" / f"{name}.toml").read_text("utf-8"))


@cache
def things() -> tuple[Thing, ...]:
    """All objects, class by class, in file order."""
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
            doing=row["doing"],
            done=row["done"],
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
    """All actions that are of this kind, split and class; none of them given means all."""
    every = (Action(verb, thing) for verb in verbs() for thing in things() if verb.category == thing.category)
    return tuple(
        action
        for action in every
        if (kind is None or action.kind == kind)
        and (split is None or action.split == split)
        and (category is None or action.verb.category == category)
    )


def find_action(text: str) -> Action | None:
    """The last action that the text names (`sweep the mill`, `sweeping that old mill`), or none."""
    last = None
    for found in _action_pattern().finditer(text.lower()):
        verb, thing = _verb_forms()[found["verb"]], _things_by_name()[found["thing"]]
        if verb.category == thing.category:
            last = Action(verb, thing)
    return last


@cache
def _split_of_things() -> dict[str, Split]:
    """Of each class's ten objects, five are the method's, two dev's and three test's."""
    result: dict[str, Split] = {}
    for category in CLASSES:
        names = [thing.name for thing in things() if thing.category == category]
        for position, name in enumerate(names):
            result[name] = "train" if position < 5 else "dev" if position < 7 else "test"
    return result


@cache
def _verb_forms() -> dict[str, Verb]:
    return {form: verb for verb in verbs() for form in (verb.base, verb.doing, verb.done)}


@cache
def _things_by_name() -> dict[str, Thing]:
    return {thing.name: thing for thing in things()}


@cache
def _action_pattern() -> re.Pattern[str]:
    forms = "|".join(sorted(map(re.escape, _verb_forms()), key=len, reverse=True))
    names = "|".join(map(re.escape, _things_by_name()))
    return re.compile(rf"\b(?P<verb>{forms})\s+(?:\w+\s+){{1,2}}?(?P<thing>{names})\b")
