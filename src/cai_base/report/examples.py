"""Chooses the chains and answers that the page shows: varied in kind and outcome, the worst among them.

Every candidate belongs to the first pattern of outcomes that matches it. The choice takes one candidate of each pattern
in turn, the one most unlike those already chosen. It is deterministic.
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
"""How many chains and how many prompts with answers are shown."""

PER_PLACE = 3
"""The most candidates of one pattern, seed and kind in memory; the texts of a large run might not fit."""

Item = TypeVar("Item", Chain, Answer)
Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True, eq=False)
class Candidate(Generic[Item]):
    """An example that could be shown: `items` is one chain, or every arm's answer to one prompt."""

    pattern: str
    seed: int
    items: Sequence[Item]

    @property
    def first(self) -> Item:
        """The first item; all items have the same prompt."""
        return self.items[0]

    @property
    def kind(self) -> tuple[str, str]:
        """Kind and family of the prompt."""
        return str(self.first.kind), str(self.first.family)


def chains(stored: StoredRun) -> list[Candidate[Chain]]:
    """The chains to show, in the order of their patterns."""
    return choose(((_pattern(CHAIN_PATTERNS, chain), seed, [chain]) for seed, chain in stored.chains()), CHAINS)


def answers(stored: StoredRun) -> list[Candidate[Answer]]:
    """The prompts to show, each with the answers of all arms in `arms_shown(stored)`."""
    patterns = _answer_patterns(" and ".join(label(arm) for arm in arms_shown(stored)))
    return choose(((_pattern(patterns, row), seed, row) for seed, row in _side_by_side(stored)), ANSWERS)


def arms_shown(stored: StoredRun) -> list[str]:
    """The arms whose answers are shown: SFT-only, and the arm that the run is about."""
    arm = main_arm(stored.results)
    return [BASELINE] if arm is None else [BASELINE, arm]


def choose(items: Iterable[tuple[tuple[int, str], int, Sequence[Item]]], limit: int) -> list[Candidate[Item]]:
    """Choose at most `limit` varied candidates from items given as ((rank and name of the pattern), seed, items)."""
    left: dict[tuple[int, str], list[Candidate[Item]]] = {}
    counts: dict[tuple[str, int, tuple[str, str]], int] = {}
    for (rank, pattern), seed, of_item in items:
        candidate = Candidate(pattern, seed, of_item)
        place = (pattern, seed, candidate.kind)
        counts[place] = counts.get(place, 0) + 1
        if counts[place] <= PER_PLACE:
            left.setdefault((rank, pattern), []).append(candidate)
    chosen: list[tuple[tuple[int, str], Candidate[Item]]] = []
    while len(chosen) < limit and any(left.values()):
        for key in sorted(left):
            if left[key] and len(chosen) < limit:
                best = min(left[key], key=lambda one: _likeness(one, [other for _, other in chosen]))
                left[key].remove(best)
                chosen.append((key, best))
    return [candidate for _, candidate in sorted(chosen, key=lambda one: one[0])]


def _likeness(one: Candidate[Item], chosen: Sequence[Candidate[Item]]) -> tuple[int, int, int]:
    """How many of the chosen candidates have the same prompt, the same kind and the same seed."""
    return (
        sum(other.first.id == one.first.id for other in chosen),
        sum(other.kind == one.kind for other in chosen),
        sum(other.seed == one.seed for other in chosen),
    )


def _side_by_side(stored: StoredRun) -> Iterator[tuple[int, list[Answer]]]:
    """For every seed and prompt, the answers of the arms that the page shows."""
    for seed in stored.seeds:
        by_arm = [{answer.id: answer for answer in stored.answers(arm, seed)} for arm in arms_shown(stored)]
        for prompt in by_arm[0]:
            if all(prompt in answers for answers in by_arm):
                yield seed, [answers[prompt] for answers in by_arm]


Row = Sequence[Answer]
"""The arms' answers to one prompt."""


@dataclass(frozen=True, slots=True)
class Pattern(Generic[Subject]):
    """A pattern of outcomes: its name, and whether a chain or a row of answers matches it."""

    name: str
    matches: Callable[[Subject], bool]


def _pattern(patterns: Sequence[Pattern[Subject]], subject: Subject) -> tuple[int, str]:
    """Rank and name of the first pattern that matches."""
    return next((rank, pattern.name) for rank, pattern in enumerate(patterns) if pattern.matches(subject))


def _verdict(verdict: Verdict | None, part: str) -> bool:
    return verdict is not None and bool(getattr(verdict, part))


def _turns(chain: Chain, kinds: Sequence[str], before: str, after: str) -> bool:
    """Whether a chain of one of these kinds gave a pair, and its original and last revision behave as given.

    `before` and `after` are `complied`, `refused` or `neither`; alternatives are separated by a bar.
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


CHAIN_PATTERNS: tuple[Pattern[Chain], ...] = (
    Pattern("A harmful original became harmless", lambda c: _turns(c, HARMFUL, "complied", "refused|neither")),
    Pattern("Harmful before and after", lambda c: _turns(c, HARMFUL, "complied", "complied")),
    Pattern("A harmless original became harmful", lambda c: _turns(c, HARMFUL, "refused|neither", "complied")),
    Pattern("A harmless prompt, revised into a refusal", lambda c: _turns(c, HARMLESS, "complied|neither", "refused")),
    Pattern("Gibberish in the end", lambda c: c.outcome == "pair" and _verdict(c.verdicts[-1], "gibberish")),
    Pattern("A needless refusal, revised into an answer", lambda c: _turns(c, HARMLESS, "refused", "complied")),
    Pattern("A harmless prompt, answered in the end", lambda c: _turns(c, HARMLESS, "complied|neither", "complied")),
    Pattern("A harmless prompt, refused before and after", lambda c: _turns(c, HARMLESS, "refused", "refused")),
    Pattern("A harmless prompt, not answered in the end", lambda c: _turns(c, HARMLESS, ANY, "neither")),
    Pattern("Filtered: identical", lambda c: c.outcome == "identical"),
    Pattern("Filtered: truncated", lambda c: c.outcome == "truncated"),
    Pattern("Filtered: off the rails", lambda c: c.outcome == "off the rails"),
    Pattern("Filtered: empty", lambda c: c.outcome == "empty"),
    Pattern("Harmless before and after", lambda c: _turns(c, HARMFUL, ANY, ANY)),
    Pattern("Unscored", lambda c: None in (c.verdicts[0], c.verdicts[-1])),
    Pattern("Partly unscored, or a prompt of unknown kind", lambda c: True),
)


def _answer_patterns(arm_names: str) -> tuple[Pattern[Row], ...]:
    def attack(row: Row, *complied: bool) -> bool:
        """Whether the prompt is an attack, and whether the first and the last arm complied are these two values."""
        return _is_attack(row) and complied == tuple(_verdict(row[end].verdict, "complied") for end in (0, -1))

    def harmless(row: Row, part: str) -> bool:
        return not _is_attack(row) and _verdict(row[-1].verdict, part)

    return (
        Pattern("Unscored", lambda row: any(answer.verdict is None for answer in row)),
        Pattern("The attack succeeds before, not after", lambda row: attack(row, True, False)),
        Pattern(f"The attack succeeds on {arm_names}", lambda row: attack(row, True, True)),
        Pattern("The attack succeeds after, not before", lambda row: attack(row, False, True)),
        Pattern("A harmless prompt is refused", lambda row: harmless(row, "refused")),
        Pattern("Gibberish", lambda row: _verdict(row[-1].verdict, "gibberish")),
        Pattern("A harmless prompt is answered", lambda row: harmless(row, "complied")),
        Pattern("A harmless prompt is not answered", lambda row: not _is_attack(row)),
        Pattern("The attack fails", lambda row: True),
    )


def _is_attack(row: Row) -> bool:
    return row[0].kind in HARMFUL
