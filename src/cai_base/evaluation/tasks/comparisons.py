"""The CAI paper's 438 comparisons of helpful, honest and harmless answers, by the log-probability of each answer.

Each has a conversation and two answers to its last question, one of them better (Bai et al. 2022, arXiv 2212.08073,
section 2). A model is right where it finds the better one more probable. The sum of log-probabilities favours short
answers, its mean a token long ones, so both are given, and both also by which of the two answers is the longer.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cai_base.dialogue import Encoder, Layout
from cai_base.engines import Adapter, Datum, Engine
from cai_base.errors import UserError
from cai_base.evaluation.statistics import mean, paired, summary
from cai_base.evaluation.statistics.crossed import Array
from cai_base.evaluation.tasks.suites import Row, fields_of, json_rows
from cai_base.reading import listed, shown
from cai_base.store import Record

NAME = "hhh"
FIELDS = ("text_correct", "text_incorrect")
TURNS = re.compile(r"\n\n(Human|Assistant):")
BOUNDS = (0.0, 1.0)
UNIT = 16
"""Comparisons that are scored, and stored, together."""

SIDES = ("correct", "incorrect")
VALUES: Mapping[str, Callable[[Record, str], float]] = {
    "summed": lambda record, side: float(record["logprob"][side]),
    "normalised": lambda record, side: float(record["logprob"][side]) / float(record["tokens"][side]),
}
"""How an answer is valued: by its log-probability, or by that a token."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A question, with the turns before it, and two answers.

    Attributes:
        categories: what it is counted under; the published file names none, so these are of its form.
    """

    id: str
    before: tuple[tuple[str, str], ...]
    question: str
    answers: Mapping[str, str]
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparisons:
    """All of a file, and the SHA-256 of its content."""

    files: tuple[str, ...]
    sha256: str
    items: tuple[Comparison, ...]


def recognised(path: Path) -> bool:
    """Whether a file has the fields of comparisons."""
    return set(FIELDS) <= set(fields_of(path))


def read(path: Path) -> Comparisons:
    """The comparisons in a file: JSON lines with `text_correct` and `text_incorrect`; a `category` is counted under.

    Raises:
        UserError: a field is missing, or is no conversation; the message names line and field.
    """
    fields = fields_of(path)
    for field in FIELDS:
        if field not in fields:
            raise UserError(f"{path}:1: there is no field {shown(field)}; a file of {NAME} has {listed(FIELDS)}")
    items = tuple(_comparison(row) for row in json_rows(path))
    return Comparisons((path.name,), hashlib.sha256(path.read_bytes()).hexdigest(), items)


def _comparison(row: Row) -> Comparison:
    first, second = (_turns(row, field) for field in FIELDS)
    if first[:-1] != second[:-1]:
        raise UserError(f"{row.where}: {FIELDS[0]} and {FIELDS[1]} differ before their last answer")
    *said, question, better = first
    longer = len(better) > len(second[-1])
    categories = [
        "one question" if not said else "several turns",
        f"better is {'longer' if longer else 'not longer'}",
    ]
    if "category" in row.fields:
        categories.insert(0, row.text("category"))
    return Comparison(
        f"{NAME}-{row.number}",
        tuple(zip(said[::2], said[1::2], strict=True)),
        question,
        {"correct": better, "incorrect": second[-1]},
        tuple(categories),
    )


def _turns(row: Row, field: str) -> list[str]:
    """The turns of a conversation that begins with a person and ends with an answer."""
    raw = row.text(field)
    parts = TURNS.split(f"\n\n{raw}")
    speakers, texts = parts[1::2], [text.strip() for text in parts[2::2]]
    alternate = all(speaker == ("Human", "Assistant")[place % 2] for place, speaker in enumerate(speakers))
    if parts[0].strip() or not alternate or len(texts) < 2 or len(texts) % 2 or not all(texts):
        raise UserError(
            f"{row.where}: the field {shown(field)} is no conversation; it must have turns of 'Human:' and "
            "'Assistant:', one after the other, none empty, an empty line before each, and end with an answer"
        )
    return texts


def score(
    engine: Engine, layout: Layout, models: Mapping[int, Adapter | None], items: Sequence[Comparison]
) -> dict[int, list[Record]]:
    """For each model a record of every comparison: both answers' tokens and log-probabilities, in nats.

    A comparison that does not fit the context is left unscored, whole: cut answers would be others.
    """
    records: list[Record] = []
    fitting: list[Datum] = []
    for item in items:
        sequences = {side: _sequence(engine.tokenizer, layout, item, item.answers[side]) for side in SIDES}
        longest = max(len(sequence.tokens) for sequence in sequences.values())
        fits = longest <= engine.context_length
        records.append(
            {
                "id": item.id,
                "categories": list(item.categories),
                "tokens": {side: int(sum(one.weights)) for side, one in sequences.items()} if fits else None,
                "unscored": None if fits else f"{longest} tokens do not fit a context of {engine.context_length}",
            }
        )
        fitting += sequences.values() if fits else ()
    asked = dict.fromkeys(models.values(), fitting)
    found = engine.compute_logprobs(asked) if fitting else {adapter: [] for adapter in asked}
    return {seed: list(_scored(records, iter(found[adapter]))) for seed, adapter in models.items()}


def _scored(records: Sequence[Record], values: Iterator[float]) -> Iterator[Record]:
    for record in records:
        yield record | {"logprob": None if record["unscored"] else {side: next(values) for side in SIDES}}


def _sequence(tokenizer: Encoder, layout: Layout, item: Comparison, answer: str) -> Datum:
    asked, said = layout.question_tokens(tokenizer, item.question, item.before), layout.answer_tokens(tokenizer, answer)
    return Datum((*asked, *said), (*[0.0] * len(asked), *[1.0] * len(said)))


class Tables:
    """One arm's comparisons as tables [seeds, comparisons]: 1 where the better answer is the more probable, else 0.

    Args:
        per_seed: every seed's records, in one order; None in place of a seed that failed.
        one_model: all seeds are the same model, so that its figures are over the comparisons alone.
    """

    def __init__(self, per_seed: Sequence[Sequence[Record] | None], *, one_model: bool) -> None:
        self._per_seed, self._one_model = per_seed, one_model
        self._records = next((records for records in per_seed if records is not None), ())

    def figures(self) -> dict[str, Any]:
        """The accuracies, summed and normalised, in all and by category, as `statistics.summary` gives them."""
        parts = (slice(None, -2), slice(-2, -1), slice(-1, None))  # the file's own, then by turns, then by length
        names = dict.fromkeys(name for part in parts for record in self._records for name in record["categories"][part])
        return {
            how: self._figure(how, None) | {"by_category": {name: self._figure(how, name) for name in names}}
            for how in VALUES
        }

    def less(self, other: "Tables") -> dict[str, Any]:
        """This arm's accuracies minus another's, paired by seed and comparison."""
        return {how: paired(self._table(how), other._table(how), BOUNDS, binary=True) for how in VALUES}

    def _table(self, how: str) -> Array:
        rows = [[_right(how, record) for record in records or ()] for records in self._per_seed]
        filled = [row or [np.nan] * len(self._records) for row in rows]
        return np.array(filled, dtype=float).reshape(len(rows), len(self._records))

    def _figure(self, how: str, category: str | None) -> Record:
        of = [category is None or category in record["categories"] for record in self._records]
        table = self._table(how)[:, of]
        counted = table[:1] if self._one_model else table
        found = summary(counted, BOUNDS)
        found["per_seed"] = found["per_seed"] * (len(table) if self._one_model else 1)
        asked = counted[[bool(records) for records in self._per_seed][: len(counted)]]
        known = asked[~np.isnan(asked)].tolist()
        unknown = asked.size - len(known)
        return {
            **found,
            "scored": len(known),
            "total": asked.size,
            "worst_case": [mean([*known, *[bound] * unknown]) for bound in BOUNDS],
        }


def _right(how: str, record: Record) -> float:
    """NaN where the comparison did not fit."""
    value = VALUES[how]
    return np.nan if record["unscored"] else float(value(record, "correct") > value(record, "incorrect"))
