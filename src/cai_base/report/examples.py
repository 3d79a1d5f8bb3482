"""Which chains and answers a reader is shown: varied by kind and outcome, the worst among them, always the same.

Every candidate belongs to the first story that fits it. The choice goes round the stories, taking from each the
candidate most unlike those already chosen.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cai_base.arms import BASELINE
from cai_base.inputs.kinds import HARMFUL, HARMLESS
from cai_base.records import Answer, Chain, Verdict
from cai_base.report.headline import main_arm
from cai_base.report.labels import label
from cai_base.report.load import StoredRun

ANY = "complied|refused|neither"
CHAINS, ANSWERS = 10, 8
"""How many of each are shown."""

PER_PLACE = 3
"""The most candidates of one story, seed and kind in memory; the texts of a large run might not fit."""

Item = TypeVar("Item", Chain, Answer)
Shown = TypeVar("Shown")


@dataclass(frozen=True, slots=True, eq=False)
class Candidate(Generic[Item]):
    """Something that could be shown: `items` are one chain, or every arm's answer to one prompt."""

    story: str
    seed: int
    items: Sequence[Item]

    @property
    def first(self) -> Item:
        """The item that says which prompt it is."""
        return self.items[0]

    @property
    def kind(self) -> tuple[str, str]:
        """Kind and family of the prompt."""
        return str(self.first.kind), str(self.first.family)


def chains(stored: StoredRun) -> list[Candidate[Chain]]:
    """The chains to show, in the order of their stories."""
    return choose(((_story(CHAIN_STORIES, chain), seed, [chain]) for seed, chain in stored.chains()), CHAINS)


def answers(stored: StoredRun) -> list[Candidate[Answer]]:
    """The prompts whose answers to show side by side, with the answer of every arm in `arms_shown(stored)`."""
    stories = _answer_stories(" and ".join(label(arm) for arm in arms_shown(stored)))
    return choose(((_story(stories, row), seed, row) for seed, row in _side_by_side(stored)), ANSWERS)


def arms_shown(stored: StoredRun) -> list[str]:
    """The arms whose answers are shown: SFT-only, and the arm that the run is about."""
    arm = main_arm(stored.results)
    return [BASELINE] if arm is None else [BASELINE, arm]


def choose(items: Iterable[tuple[tuple[int, str], int, Sequence[Item]]], wanted: int) -> list[Candidate[Item]]:
    """At most `wanted` candidates, as varied as can be; each comes with its story's rank and name, and its seed."""
    left: dict[tuple[int, str], list[Candidate[Item]]] = {}
    held: dict[tuple[str, int, tuple[str, str]], int] = {}
    for (rank, story), seed, of_item in items:
        candidate = Candidate(story, seed, of_item)
        place = (story, seed, candidate.kind)
        held[place] = held.get(place, 0) + 1
        if held[place] <= PER_PLACE:
            left.setdefault((rank, story), []).append(candidate)
    chosen: list[tuple[tuple[int, str], Candidate[Item]]] = []
    while len(chosen) < wanted and any(left.values()):
        for story_key in sorted(left):
            if left[story_key] and len(chosen) < wanted:
                best = min(left[story_key], key=lambda one: _likeness(one, [other for _, other in chosen]))
                left[story_key].remove(best)
                chosen.append((story_key, best))
    return [candidate for _, candidate in sorted(chosen, key=lambda one: one[0])]


def _likeness(one: Candidate[Item], chosen: Sequence[Candidate[Item]]) -> tuple[int, int, int]:
    """How many of those already chosen share its prompt, its kind, its seed."""
    return (
        sum(other.first.id == one.first.id for other in chosen),
        sum(other.kind == one.kind for other in chosen),
        sum(other.seed == one.seed for other in chosen),
    )


def _side_by_side(stored: StoredRun) -> Iterator[tuple[int, list[Answer]]]:
    """For every seed and prompt the answers of all arms that are shown."""
    for seed in stored.seeds:
        by_arm = [{answer.id: answer for answer in stored.answers(arm, seed)} for arm in arms_shown(stored)]
        for prompt in by_arm[0]:
            if all(prompt in answers for answers in by_arm):
                yield seed, [answers[prompt] for answers in by_arm]


Row = Sequence[Answer]
"""The arms' answers to one prompt."""


@dataclass(frozen=True, slots=True)
class Story(Generic[Shown]):
    """A name, and whether something fits it."""

    name: str
    fits: Callable[[Shown], bool]


def _story(stories: Sequence[Story[Shown]], shown: Shown) -> tuple[int, str]:
    """Rank and name of the first story that fits."""
    return next((rank, story.name) for rank, story in enumerate(stories) if story.fits(shown))


def _verdict(verdict: Verdict | None, part: str) -> bool:
    return verdict is not None and bool(getattr(verdict, part))


def _turns(chain: Chain, kinds: Sequence[str], before: str, after: str) -> bool:
    """Whether a chain of such a kind gave a pair, and goes from such an original to such a last revision.

    `before` and `after` are `complied`, `refused` or `neither`, several of them with a bar between.
    """
    first, last = (_behaviour(chain.verdicts[place]) for place in (0, -1))
    pair = chain.outcome == "pair" and chain.kind in kinds
    return pair and first in before.split("|") and last in after.split("|")


def _behaviour(verdict: Verdict | None) -> str | None:
    if verdict is None:
        return None
    if verdict.complied or verdict.refused:
        return "complied" if verdict.complied else "refused"
    return None if verdict.complied is None else "neither"


CHAIN_STORIES: tuple[Story[Chain], ...] = (
    Story("A harmful original became harmless", lambda c: _turns(c, HARMFUL, "complied", "refused|neither")),
    Story("Harmful before and after", lambda c: _turns(c, HARMFUL, "complied", "complied")),
    Story("A harmless original became harmful", lambda c: _turns(c, HARMFUL, "refused|neither", "complied")),
    Story("A harmless prompt, revised into a refusal", lambda c: _turns(c, HARMLESS, "complied|neither", "refused")),
    Story("Gibberish in the end", lambda c: c.outcome == "pair" and _verdict(c.verdicts[-1], "gibberish")),
    Story("A needless refusal, revised into an answer", lambda c: _turns(c, HARMLESS, "refused", "complied")),
    Story("A harmless prompt, answered in the end", lambda c: _turns(c, HARMLESS, "complied|neither", "complied")),
    Story("A harmless prompt, refused before and after", lambda c: _turns(c, HARMLESS, "refused", "refused")),
    Story("A harmless prompt, not answered in the end", lambda c: _turns(c, HARMLESS, ANY, "neither")),
    Story("Filtered: identical", lambda c: c.outcome == "identical"),
    Story("Filtered: truncated", lambda c: c.outcome == "truncated"),
    Story("Filtered: off the rails", lambda c: c.outcome == "off the rails"),
    Story("Filtered: empty", lambda c: c.outcome == "empty"),
    Story("Harmless before and after", lambda c: _turns(c, HARMFUL, ANY, ANY)),
    Story("Unscored, or a prompt of unknown kind", lambda c: True),
)


def _answer_stories(everyone: str) -> tuple[Story[Row], ...]:
    def attack(row: Row, *complied: bool) -> bool:
        """Whether the first arm's and the last arm's answers to an attack complied like this."""
        return _is_attack(row) and complied == tuple(_verdict(row[end].verdict, "complied") for end in (0, -1))

    def harmless(row: Row, part: str) -> bool:
        return not _is_attack(row) and _verdict(row[-1].verdict, part)

    return (
        Story("Unscored", lambda row: any(answer.verdict is None for answer in row)),
        Story("The attack succeeds before, not after", lambda row: attack(row, True, False)),
        Story(f"The attack succeeds on {everyone}", lambda row: attack(row, True, True)),
        Story("The attack succeeds after, not before", lambda row: attack(row, False, True)),
        Story("A harmless prompt is refused", lambda row: harmless(row, "refused")),
        Story("Gibberish", lambda row: _verdict(row[-1].verdict, "gibberish")),
        Story("A harmless prompt is answered", lambda row: harmless(row, "complied")),
        Story("A harmless prompt is not answered", lambda row: not _is_attack(row)),
        Story("The attack fails", lambda row: True),
    )


def _is_attack(row: Row) -> bool:
    return row[0].kind in HARMFUL
