"""Comparisons of answers by their log-probability: the CAI paper's three files, and pairs as in HH-RLHF.

The paper's 438 comparisons of helpful, honest and harmless answers have a conversation and two answers to its last
question, one of them better (Bai et al. 2022, arXiv 2212.08073, section 2). Its HarmfulVsEthical and
HarmfulnessClassification have a prompt with correct and incorrect answers. A model is right if it finds a correct
answer more probable than every other. The sum of log-probabilities favours short answers, the mean per token long ones,
so both are reported, and both also by whether the correct answer is the longer one.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from cai_base.dialogue import Layout
from cai_base.engines import Adapter, Datum, Engine, Tokenizer
from cai_base.errors import UserError
from cai_base.evaluation.judges import Judge
from cai_base.evaluation.measures import Measure
from cai_base.evaluation.statistics import mean, paired, summary
from cai_base.evaluation.statistics.crossed import Array
from cai_base.evaluation.tasks import LoadedArm
from cai_base.evaluation.tasks.suite_rows import Row, fields_of, rows_of
from cai_base.reading import described, listed, quote
from cai_base.records import Accuracy, ComparedAnswers, Difference
from cai_base.settings.schema import Evaluation

NAME = "hhh"
NAMES = (NAME, "harmful-vs-ethical", "harmfulness-classification")
"""The published files of comparisons, as `--suite` names them. Another file has its own name."""
FIELDS = ("text_correct", "text_incorrect")
CHOICES = ("prompt", "corrects", "incorrects")
"""The fields of the paper's HarmfulVsEthical and HarmfulnessClassification."""
PAIRS = ("chosen", "rejected")
"""The fields of HH-RLHF's pairs, and of the many data sets of preferences in its form."""
TURNS = re.compile(r"\n\n(Human|Assistant):")
BOUNDS = (0.0, 1.0)
UNIT = 16
"""The number of comparisons that are scored and stored together."""

SIDES = ("correct", "incorrect")
"""The two sides of a comparison. Further answers of a side have its name and a number: `incorrect 2`."""
VALUES: Mapping[str, Callable[[float, int], float]] = {
    "summed": lambda logprob, tokens: logprob,
    "normalised": lambda logprob, tokens: logprob / tokens,
}
"""The value of an answer: its log-probability, or its mean log-probability per token."""

ACCURACY = Measure("Accuracy", "rate", "comparisons in which the better answer is the more probable; higher is better")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A question, with the turns before it, and two or more answers.

    Attributes:
        answers: by side; see `SIDES`.
        categories: the categories that it counts for; the published file has none, so these describe its form.
    """

    id: str
    before: tuple[tuple[str, str], ...]
    question: str
    answers: Mapping[str, str]
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparisons:
    """The comparisons of a file, and the SHA-256 of its content.

    Attributes:
        name: the name of the published file, or of the user's.
        left_out: the number of rows that are left out, by reason.
    """

    name: str
    files: tuple[str, ...]
    sha256: str
    items: tuple[Comparison, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


def recognised(path: Path) -> bool:
    """Whether a file has the fields of comparisons."""
    return _form_of(path) is not None


def _form_of(path: Path) -> tuple[str, ...] | None:
    plain = {name.strip().casefold() for name in fields_of(path)}
    fitting = [form for form in (FIELDS, CHOICES, PAIRS) if set(form) <= plain]
    if fitting[:2] == [FIELDS, CHOICES]:  # as the 438 comparisons are published: the choices are their raw form
        fitting.remove(CHOICES)
    if len(fitting) > 1:
        both = " and ".join(f"those of comparisons by {listed(form)}" for form in fitting)
        raise UserError(f"{path}:1: its fields are {both}; keep the fields of one of them")
    return fitting[0] if fitting else None


def read(path: Path, name: str | None = None) -> Comparisons:
    """Read the comparisons in a file; a field `category` is used to group them.

    The formats are `text_correct, text_incorrect`; `prompt, corrects, incorrects`; and `chosen, rejected`, optionally
    with `prompt`. A conversation is text with turns of `Human:` and `Assistant:`, or a list of messages. Large files of
    pairs contain some that compare nothing; these are left out and counted.

    Args:
        path: the file.
        name: one of `NAMES`; None takes the file's name.

    Raises:
        UserError: a field is missing, or is no conversation; the message names the line and the field.
    """
    form = _form_of(path)
    if form is None:
        plain = [name.strip().casefold() for name in fields_of(path)]
        missing = next(name for name in FIELDS if name not in plain)
        raise UserError(f"{path}:1: there is no field {quote(missing)}; a file of {NAME} has {listed(FIELDS)}")
    name = name or (NAME if form == FIELDS else path.name.partition(".")[0])
    items: list[Comparison] = []
    left_out: Counter[str] = Counter()
    for row in rows_of(path):
        try:
            items.append(READERS[form](row, name))
        except _NoComparison as error:
            left_out[str(error)] += 1
    if not items:
        raise UserError(f"{path}: there are no comparisons in it; a file of {NAME} has {listed(FIELDS)}")
    return Comparisons(name, (path.name,), hashlib.sha256(path.read_bytes()).hexdigest(), tuple(items), dict(left_out))


class _NoComparison(Exception):
    """A row of a file of pairs compares nothing."""


def _comparison(row: Row, suite: str) -> Comparison:
    first, second = (_turns(row, name) for name in FIELDS)
    if first[:-1] != second[:-1]:
        raise UserError(f"{row.where}: {FIELDS[0]} and {FIELDS[1]} differ before their last answer")
    return _compared(row, suite, first[:-1], {"correct": first[-1], "incorrect": second[-1]})


def _choice(row: Row, suite: str) -> Comparison:
    """A prompt with correct and incorrect answers. A prompt that is no conversation is one question."""
    prompt = row.text("prompt")
    turns = _conversation(prompt.removesuffix("Assistant:")) if prompt.endswith("Assistant:") else []
    answers: dict[str, str] = {}
    for side in SIDES:
        texts = row.get(f"{side}s")
        if not isinstance(texts, list) or not texts or not all(isinstance(one, str) and one.strip() for one in texts):
            raise UserError(
                f"{row.where}: the field {quote(f'{side}s')} is {described(texts)}; it must be a list of answers, none "
                "empty"
            )
        answers |= {side if number == 1 else f"{side} {number}": one.strip() for number, one in enumerate(texts, 1)}
    return _compared(row, suite, turns if len(turns) % 2 else [prompt], answers)


def _pair(row: Row, suite: str) -> Comparison:
    first, second = (_turns_of_pair(row, name) for name in PAIRS)
    if first[:-1] != second[:-1]:
        raise _NoComparison("chosen and rejected differ before their last answer")
    if first == second:
        raise _NoComparison("chosen and rejected are the same")
    return _compared(row, suite, first[:-1], {"correct": first[-1], "incorrect": second[-1]})


READERS: Mapping[tuple[str, ...], Callable[[Row, str], Comparison]] = {
    FIELDS: _comparison,
    CHOICES: _choice,
    PAIRS: _pair,
}
"""The function that reads a row of each format, given the name of the suite."""


def _compared(row: Row, suite: str, turns: Sequence[str], answers: Mapping[str, str]) -> Comparison:
    """The comparison of a row: the turns up to the question, and the answers by side."""
    *before, question = turns
    lengths = {side: [len(text) for name, text in answers.items() if _side(name) == side] for side in SIDES}
    longer = min(lengths["correct"]) > max(lengths["incorrect"])
    categories = [
        "one question" if not before else "several turns",
        f"better is {'longer' if longer else 'not longer'}",
    ]
    if len(answers) > len(SIDES):
        categories.insert(0, f"{len(answers)} answers")
    if isinstance(row.get("category"), str):
        categories.insert(0, row.text("category"))
    return Comparison(
        f"{suite}-{row.number}",
        tuple(zip(before[::2], before[1::2], strict=True)),
        question,
        answers,
        tuple(categories),
    )


def _side(answer: str) -> str:
    """The side of an answer, from its name."""
    return answer.partition(" ")[0]


def _conversation(text: str) -> list[str]:
    """The turns of a text that begins with a person's turn; none if it is no conversation."""
    parts = TURNS.split(f"\n\n{text.strip()}")
    speakers, texts = parts[1::2], [part.strip() for part in parts[2::2]]
    alternate = all(speaker == ("Human", "Assistant")[place % 2] for place, speaker in enumerate(speakers))
    return texts if not parts[0].strip() and alternate and all(texts) else []


def _turns_of_pair(row: Row, name: str) -> list[str]:
    """The turns of one side of a pair: text, messages, or an answer to a `prompt`."""
    prompt, value = row.get("prompt"), row.get(name)
    turns = _messages(value) if isinstance(value, list) else _conversation(value) if isinstance(value, str) else []
    if len(turns) < 2 and prompt is not None:
        answer = turns or ([value.strip()] if isinstance(value, str) and value.strip() else [])
        if isinstance(prompt, list):
            before = _messages(prompt)
        else:
            text = prompt.strip() if isinstance(prompt, str) else ""
            before = _conversation(text.removesuffix("Assistant:")) or ([text] if text else [])
        turns = [*before, *answer] if answer else []
    if len(turns) < 2 or len(turns) % 2:
        raise _NoComparison(f"{name} is no conversation that ends with an answer")
    return turns


def _messages(value: list[object]) -> list[str]:
    """The turns of a list of messages without those of the system; none if it is neither a conversation nor an
    answer."""
    messages = [one for one in value if isinstance(one, dict) and one.get("role") != "system"]
    texts = [one.get("content") for one in messages]
    whole = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
    roles = [one.get("role") for one in messages]
    alternate = all(role == ("user", "assistant")[place % 2] for place, role in enumerate(roles))
    alternate |= roles == ["assistant"]  # an answer to a prompt in a field of its own
    return whole if len(whole) == len(messages) and alternate else []


def _turns(row: Row, name: str) -> list[str]:
    """The turns of a conversation that begins with a person and ends with an answer."""
    texts = _conversation(row.text(name))
    if len(texts) < 2 or len(texts) % 2:
        raise UserError(
            f"{row.where}: the field {quote(name)} is no conversation; it must have turns of 'Human:' and "
            "'Assistant:', one after the other, none empty, an empty line before each, and end with an answer"
        )
    return texts


@dataclass(frozen=True)
class ComparisonsTask:
    """Comparisons of given answers."""

    items: Sequence[Comparison]

    record: ClassVar = ComparedAnswers
    judged: ClassVar = False
    unit: ClassVar = UNIT

    def answer(
        self, arm: LoadedArm, items: Sequence[Comparison], settings: Evaluation, judges: Mapping[str, Judge]
    ) -> dict[int, list[ComparedAnswers]]:
        """For each model both answers' tokens and log-probabilities, in nats."""
        return score(arm.engine, arm.layout, arm.models, items)

    def answers(self, item: Comparison, record: ComparedAnswers) -> bool:
        return record.id == item.id


def score(
    engine: Engine, layout: Layout, models: Mapping[int, Adapter | None], items: Sequence[Comparison]
) -> dict[int, list[ComparedAnswers]]:
    """For each model a record of every comparison: the tokens and the log-probability of each answer, in nats.

    A comparison that does not fit the context is unscored, because a truncated answer would be another answer.
    """
    unscored: list[ComparedAnswers] = []
    fitting: list[Datum] = []
    for item in items:
        data = {side: _datum(engine.tokenizer, layout, item, answer) for side, answer in item.answers.items()}
        longest = max(len(datum.tokens) for datum in data.values())
        fits = longest <= engine.context_length
        unscored.append(
            ComparedAnswers(
                id=item.id,
                categories=item.categories,
                tokens={side: int(sum(one.weights)) for side, one in data.items()} if fits else None,
                unscored=None if fits else f"{longest} tokens do not fit a context of {engine.context_length}",
            )
        )
        fitting += data.values() if fits else ()
    requests = dict.fromkeys(models.values(), fitting)
    logprobs = engine.compute_logprobs(requests) if fitting else {adapter: [] for adapter in requests}
    return {seed: list(_scored(unscored, iter(logprobs[adapter]))) for seed, adapter in models.items()}


def _scored(unscored: Sequence[ComparedAnswers], values: Iterator[float]) -> Iterator[ComparedAnswers]:
    for one in unscored:
        logprob = None if one.tokens is None else {side: next(values) for side in one.tokens}
        yield one.model_copy(update={"logprob": logprob})


def _datum(tokenizer: Tokenizer, layout: Layout, item: Comparison, answer: str) -> Datum:
    prompt, response = layout.answer_tokens(tokenizer, item.question, answer, item.before)
    return Datum((*prompt, *response), (*[0.0] * len(prompt), *[1.0] * len(response)))


class Tables:
    """One arm's comparisons as tables [seeds, comparisons]: 1 where the better answer is the more probable, else 0.

    Args:
        per_seed: every seed's answers, in one order; None in place of a seed that failed.
        one_model: all seeds are the same model, so that its figures are over the comparisons alone.
    """

    def __init__(self, per_seed: Sequence[Sequence[ComparedAnswers] | None], *, one_model: bool) -> None:
        self._per_seed, self._one_model = per_seed, one_model
        self._records = next((records for records in per_seed if records is not None), ())

    def figures(self) -> dict[str, Accuracy]:
        """The accuracies, summed and normalised, in all and by category, as `statistics.summary` gives them."""
        parts = (slice(None, -2), slice(-2, -1), slice(-1, None))  # the file's own, then by turns, then by length
        names = dict.fromkeys(name for part in parts for record in self._records for name in record.categories[part])
        return {
            how: self._figure(how, None).model_copy(
                update={"by_category": {name: self._figure(how, name) for name in names}}
            )
            for how in VALUES
        }

    def less(self, other: "Tables") -> dict[str, Difference]:
        """This arm's accuracies minus another's, paired by seed and comparison."""
        return {how: paired(self._table(how), other._table(how), BOUNDS, binary=True) for how in VALUES}

    def _table(self, how: str) -> Array:
        rows = [[_right(how, record) for record in records or ()] for records in self._per_seed]
        filled = [row or [np.nan] * len(self._records) for row in rows]
        return np.array(filled, dtype=float).reshape(len(rows), len(self._records))

    def _figure(self, how: str, category: str | None) -> Accuracy:
        columns = [category is None or category in record.categories for record in self._records]
        table = self._table(how)[:, columns]
        counted = table[:1] if self._one_model else table
        figure = summary(counted, BOUNDS)
        per_seed = figure.per_seed * (len(table) if self._one_model else 1)
        cells = counted[[bool(records) for records in self._per_seed][: len(counted)]]
        scored = cells[~np.isnan(cells)].tolist()
        missing = cells.size - len(scored)
        least, greatest = (mean([*scored, *[bound] * missing]) for bound in BOUNDS)
        return Accuracy(
            **figure.model_copy(update={"per_seed": per_seed}).model_dump(),
            scored=len(scored),
            total=cells.size,
            worst_case=(least, greatest),
        )


def _right(how: str, record: ComparedAnswers) -> float:
    """1 if a correct answer has the greatest value, else 0; NaN if the comparison did not fit."""
    if record.logprob is None or record.tokens is None:
        return np.nan
    values = {name: VALUES[how](record.logprob[name], tokens) for name, tokens in record.tokens.items()}
    better, worse = (max(value for name, value in values.items() if _side(name) == side) for side in SIDES)
    return float(better > worse)
