"""Which chains and answers a reader is shown: varied by kind and outcome, the worst among them, always the same.

Every candidate belongs to the first story that fits it. The choice goes round the stories, taking from each the
candidate most unlike those already taken.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cai_base.evaluation.metrics import ATTACKS
from cai_base.inputs.prompts import HARMLESS
from cai_base.report.labels import ARMS
from cai_base.report.load import Stored
from cai_base.store import Record

ANY = "complied|refused|neither"
CHAINS, ANSWERS = 10, 8
"""How many of each are shown."""

PER_PLACE = 3
"""At most so many candidates of one story, seed and kind are held: a large run's texts need not fit in memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """Something that could be shown: `records` are one chain, or every arm's answer."""

    story: str
    seed: int
    records: Sequence[Record]

    @property
    def first(self) -> Record:
        """The record that says which prompt it is."""
        return self.records[0]

    @property
    def kind(self) -> tuple[str, str]:
        """Kind and family of the prompt."""
        return str(self.first["kind"]), str(self.first["family"])


def chains(stored: Stored) -> list[Candidate]:
    """The chains to show, in the order of their stories."""
    return choose(((_story(CHAIN_STORIES, chain), seed, [chain]) for seed, chain in stored.chains()), CHAINS)


def answers(stored: Stored) -> list[Candidate]:
    """The prompts whose answers to show side by side, with the answer of every arm in `compared(stored)`."""
    stories = _answer_stories(" and ".join(ARMS[arm] for arm in compared(stored)))
    return choose(((_story(stories, rows), seed, rows) for seed, rows in _side_by_side(stored)), ANSWERS)


def compared(stored: Stored) -> list[str]:
    """The arms whose answers are shown: SFT-only, and what became of it."""
    trained = stored.trained_arms
    return ["sft", *([("cai" if "cai" in trained else trained[-1])] if len(trained) > 1 else [])]


def choose(found: Iterable[tuple[tuple[int, str], int, Sequence[Record]]], wanted: int) -> list[Candidate]:
    """At most `wanted` of what was found, as varied as can be; each comes with its story's rank and name."""
    left: dict[tuple[int, str], list[Candidate]] = {}
    held: dict[tuple[Any, ...], int] = {}
    for (rank, story), seed, records in found:
        candidate = Candidate(story, seed, records)
        place = (story, seed, candidate.kind)
        held[place] = held.get(place, 0) + 1
        if held[place] <= PER_PLACE:
            left.setdefault((rank, story), []).append(candidate)
    taken: list[tuple[tuple[int, str], Candidate]] = []
    while len(taken) < wanted and any(left.values()):
        for story_key in sorted(left):
            if left[story_key] and len(taken) < wanted:
                best = min(left[story_key], key=lambda one: _likeness(one, [other for _, other in taken]))
                left[story_key].remove(best)
                taken.append((story_key, best))
    return [candidate for _, candidate in sorted(taken, key=lambda one: one[0])]


def _likeness(one: Candidate, taken: Sequence[Candidate]) -> tuple[int, int, int]:
    """How much of what is already taken shares its prompt, its kind, its seed."""
    return (
        sum(other.first["id"] == one.first["id"] for other in taken),
        sum(other.kind == one.kind for other in taken),
        sum(other.seed == one.seed for other in taken),
    )


def _side_by_side(stored: Stored) -> Iterator[tuple[int, list[Record]]]:
    """For every seed and prompt the answers of all compared arms."""
    for seed in stored.seeds:
        by_arm = [{answer["id"]: answer for answer in stored.answers(arm, seed)} for arm in compared(stored)]
        for name in by_arm[0]:
            if all(name in found for found in by_arm):
                yield seed, [found[name] for found in by_arm]


Story = tuple[str, Callable[[Any], bool]]


def _story(stories: Sequence[Story], item: Any) -> tuple[int, str]:
    return next((rank, name) for rank, (name, fits) in enumerate(stories) if fits(item))


def _verdict(verdict: Record | None, what: str) -> bool:
    return verdict is not None and bool(verdict[what])


def _turns(chain: Record, kinds: Sequence[str], before: str, after: str) -> bool:
    """Whether a chain of such a kind gave a pair, and goes from such an original to such a last revision.

    Each is `complied`, `refused` or `neither`, several of them with a bar between.
    """
    first, last = (_behaviour(chain["verdicts"][place]) for place in (0, -1))
    pair = chain["outcome"] == "pair" and chain["kind"] in kinds
    return pair and first in before.split("|") and last in after.split("|")


def _behaviour(verdict: Record | None) -> str | None:
    if verdict is None:
        return None
    if verdict["complied"] or verdict["refused"]:
        return "complied" if verdict["complied"] else "refused"
    return None if verdict["complied"] is None else "neither"


CHAIN_STORIES: tuple[Story, ...] = (
    ("A harmful original became harmless", lambda c: _turns(c, ATTACKS, "complied", "refused|neither")),
    ("Harmful before and after", lambda c: _turns(c, ATTACKS, "complied", "complied")),
    ("A harmless original became harmful", lambda c: _turns(c, ATTACKS, "refused|neither", "complied")),
    ("A harmless prompt, revised into a refusal", lambda c: _turns(c, HARMLESS, "complied|neither", "refused")),
    ("Gibberish in the end", lambda c: c["outcome"] == "pair" and _verdict(c["verdicts"][-1], "gibberish")),
    ("A needless refusal, revised into an answer", lambda c: _turns(c, HARMLESS, "refused", "complied")),
    ("A harmless prompt, answered in the end", lambda c: _turns(c, HARMLESS, "complied|neither", "complied")),
    ("A harmless prompt, refused before and after", lambda c: _turns(c, HARMLESS, "refused", "refused")),
    ("A harmless prompt, not answered in the end", lambda c: _turns(c, HARMLESS, ANY, "neither")),
    ("Filtered: identical", lambda c: c["outcome"] == "identical"),
    ("Filtered: truncated", lambda c: c["outcome"] == "truncated"),
    ("Filtered: off the rails", lambda c: c["outcome"] == "off the rails"),
    ("Filtered: empty", lambda c: c["outcome"] == "empty"),
    ("Harmless before and after", lambda c: _turns(c, ATTACKS, ANY, ANY)),
    ("Unscored, or a prompt of no known kind", lambda c: True),
)


def _answer_stories(everyone: str) -> tuple[Story, ...]:
    def attack(rows: Sequence[Record], *complied: bool) -> bool:
        found = (rows[0], rows[-1])
        return rows[0]["kind"] in ATTACKS and complied == tuple(_verdict(r["verdict"], "complied") for r in found)

    return (
        ("Unscored", lambda rows: any(row["verdict"] is None for row in rows)),
        ("The attack succeeds before, not after", lambda rows: attack(rows, True, False)),
        (f"The attack succeeds on {everyone}", lambda rows: attack(rows, True, True)),
        ("The attack succeeds after, not before", lambda rows: attack(rows, False, True)),
        ("A harmless prompt is refused", lambda rows: _verdict(rows[-1]["verdict"], "refused") and not _attacked(rows)),
        ("Gibberish", lambda rows: _verdict(rows[-1]["verdict"], "gibberish")),
        (
            "A harmless prompt is answered",
            lambda rows: _verdict(rows[-1]["verdict"], "complied") and not _attacked(rows),
        ),
        ("A harmless prompt is not answered", lambda rows: not _attacked(rows)),
        ("The attack fails", lambda rows: True),
    )


def _attacked(rows: Sequence[Record]) -> bool:
    return rows[0]["kind"] in ATTACKS
