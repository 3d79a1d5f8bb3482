"""Fluency: how likely the base model finds an answer, and which answers are broken language by that.

The base model is fluent, so an answer it finds far less likely than any of its own is hardly language: "It soap, a lamb
cloth." What it cannot say:

- Fluent is not right, and unlikely is not broken. A refusal is less likely to the base model than an answer, so arms
  are compared a token, and an answer counts as broken only `MARGIN` below nearly all of the base's own answers.
- A mean hides a short break in a long text. Only the opening, where preference training breaks language first, is
  looked at apart.
- Large models find endless repetition likely. It is looked for in the words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cai_base.dialogue import Dialogue, escape, prompt_tokens
from cai_base.engines import Datum, Engine
from cai_base.store import Record

OPENING = 8
"""Tokens of an answer's opening."""

QUANTILE = 0.01
"""So many of the base's own answers are less likely than its floor."""

MARGIN = 1.0
"""Nats a token below the floor from which an answer is broken; chosen on dev (docs/method.md)."""

REPEATED = 0.5
"""A text in which more than this share of the four-word runs have stood before has gone off the rails."""


@dataclass(frozen=True, slots=True)
class Floor:
    """What nearly all of the base's own answers are above: mean log-probabilities, nats a token.

    Attributes:
        answer: of whole answers.
        opening: of their first `OPENING` tokens.
    """

    answer: float
    opening: float


def measure(engine: Engine, dialogue: Dialogue, records: Sequence[Record]) -> None:
    """Add to each answer's record its mean log-probability a token under the base model, behind the few-shot prefix.

    `logprob` is of the whole answer, `opening_logprob` of its first `OPENING` tokens; both in nats, None for an empty
    answer. The end of the answer is not counted: a truncated one has none.
    """
    spans: list[tuple[Record, str, int]] = []
    sequences: list[Datum] = []
    for record in records:
        prompt = prompt_tokens(engine.tokenizer, dialogue.question(record["prompt"]))
        text = record["response"]
        # Text tokenised again may take more tokens than were drawn.
        tokens = engine.tokenizer.encode(f" {escape(text)}")[: engine.context_length - len(prompt)] if text else []
        for name, length in (("logprob", len(tokens)), ("opening_logprob", min(OPENING, len(tokens)))):
            record[name] = None
            if length:
                weights = (0.0,) * len(prompt) + (1.0 / length,) * length
                sequences.append(Datum((*prompt, *tokens[:length]), weights))
                spans.append((record, name, length))
    found = engine.compute_logprobs({None: sequences})[None] if sequences else []
    for (record, name, _), logprob in zip(spans, found, strict=True):
        record[name] = round(logprob, 4)


def floor(base: Iterable[Record]) -> Floor | None:
    """The floor that the base's own answers set; None if none of them was measured."""
    measured = [record for record in base if record.get("logprob") is not None]
    if not measured:
        return None
    quantiles = (
        float(np.quantile([r[name] for r in measured], QUANTILE, method="lower"))
        for name in ("logprob", "opening_logprob")
    )
    return Floor(*quantiles)


def marked(records: Iterable[Record], floor: Floor | None, margin: float = MARGIN) -> list[Record]:
    """The records, each with `broken`: whether it is broken language; None where there is nothing to tell it from."""
    return [record | {"broken": _broken(record, floor, margin)} for record in records]


def _broken(record: Record, floor: Floor | None, margin: float) -> bool | None:
    if floor is None or record.get("logprob") is None:
        return None
    return (
        record["logprob"] < floor.answer - margin
        or record["opening_logprob"] < floor.opening - margin
        or off_the_rails(record["response"])
    )


def off_the_rails(text: str) -> bool:
    """Whether a text repeats itself without end: more than half of its four-word runs have stood before."""
    words = text.split()
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return len(runs) >= 8 and len(set(runs)) < (1 - REPEATED) * len(runs)
