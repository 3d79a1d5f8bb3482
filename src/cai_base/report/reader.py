"""The reader on a run's page: searches and filters all evaluation answers and all revision chains.

The texts are in the page as JSON, in an element that browsers do not execute. The page's only script shows them as
text, and the page's Content-Security-Policy allows that script by its hash. Without scripts the page shows the examples
only. Many texts are compressed, so that the page of ten thousand chains can be sent by mail.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, TypedDict

from cai_base.arms import in_order
from cai_base.inputs.kinds import HARMFUL
from cai_base.records import Answer, Chain
from cai_base.report.labels import kind_label, label, marks
from cai_base.report.load import StoredRun
from cai_base.report.plotting import Picture

LARGEST = 18_000_000
"""The most bytes of text in a page, which opens in seconds."""
PACKED = 2_000_000
"""More bytes of text than these are compressed: the texts of a smaller page can be searched for in the file."""


@dataclass(frozen=True, slots=True)
class Reader:
    """The reader's part of the page.

    Attributes:
        data: the items as JSON that is safe inside a page (it has no `<`), or compressed.
        packed: whether `data` is that JSON as gzip makes it, in base64, which has no `<` either.
        readings: the values of the figures, likewise.
        script: the page's script, for the reader and for values under the pointer.
        left_out: the number of items that do not fit.
    """

    data: str
    packed: bool
    readings: str
    script: str
    left_out: int

    @property
    def policy(self) -> str:
        """The source in a Content-Security-Policy that allows this script and no other."""
        return policy_of(self.script)


def policy_of(script: str) -> str:
    """The source in a Content-Security-Policy that allows a script and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def page_script() -> str:
    """The only script of a page that this version writes."""
    templates = files("cai_base.report").joinpath("templates")
    return "".join(templates.joinpath(name).read_text(encoding="utf-8") for name in ("reader.js", "readings.js"))


class _Text(TypedDict):
    """A response with its verdict in words."""

    text: str
    marks: list[tuple[str, str]]


class _About(TypedDict):
    """The prompt of an item; `kind` is in words."""

    id: str
    seed: int
    kind: str
    prompt: str


class _Prompt(_About):
    """A prompt with the answers of all arms."""

    what: Literal["answers"]
    answers: dict[str, _Text]


class _Round(_Text):
    """A revision with what led to it."""

    principle: str
    critique: str


class _Chain(_About):
    """A revision chain; `ended` is the round in which harm ended, see `_ended`."""

    what: Literal["chains"]
    outcome: str
    opener: str | None
    ended: int | None
    original: _Text
    rounds: list[_Round]


def read(stored: StoredRun, pictures: Sequence[Picture] = (), largest: int = LARGEST) -> Reader:
    """The reader of a run, with as many items as fit: seed by seed, all answers before all chains.

    Args:
        pictures: the page's figures, whose values the script shows under the pointer.
        largest: the most bytes of JSON.
    """
    chosen: list[str] = []
    size = left_out = 0
    for item in _items(stored):
        if size <= largest:
            text = _as_json(item)
            size += len(text.encode()) + 1
        if size > largest:
            left_out += 1
        else:
            chosen.append(text)
    head = {
        "arms": {arm: label(arm) for arm in in_order(stored.results.arms)},
        "principles": dict(stored.principles),
    }
    figures = {one.name: one.readings for one in pictures if one.readings is not None}
    data = f'{{"head":{_as_json(head)},"items":[{",".join(chosen)}]}}'
    packed = size > PACKED
    if packed:
        data = base64.b64encode(zlib.compress(data.encode(), 6, wbits=31)).decode()  # gzip's form without a time
    return Reader(data, packed, _as_json(figures), page_script(), left_out)


def _items(stored: StoredRun) -> Iterator[_Prompt | _Chain]:
    arms = in_order(stored.results.arms)
    for seed in stored.seeds:
        by_prompt: dict[str, dict[str, Answer]] = {}
        for arm in arms:
            for answer in stored.answers(arm, seed):
                by_prompt.setdefault(answer.id, {})[arm] = answer
        for answers in by_prompt.values():
            yield _prompt(seed, answers)
    for seed, chain in stored.chains():
        yield _chain(seed, chain)


def _prompt(seed: int, answers: dict[str, Answer]) -> _Prompt:
    """A prompt with the answers of all arms."""
    first = next(iter(answers.values()))
    texts: dict[str, _Text] = {
        arm: {"text": one.response, "marks": marks(one.kind, one.verdict, one.unscored, one.truncated)}
        for arm, one in answers.items()
    }
    return {"what": "answers", **_about(seed, first), "answers": texts}


def _chain(seed: int, chain: Chain) -> _Chain:
    """A chain: the original, then each round with its principle, critique and revision, all with their verdicts."""
    verdicts = [
        marks(chain.kind, verdict, unscored) for verdict, unscored in zip(chain.verdicts, chain.unscored, strict=True)
    ]
    return {
        "what": "chains",
        **_about(seed, chain),
        "outcome": chain.outcome,
        "opener": chain.refusal_opener,
        "ended": _ended(chain),
        "original": {"text": chain.original, "marks": verdicts[0] if verdicts else []},
        "rounds": [
            {
                "principle": one.principle,
                "critique": one.critique,
                "text": one.revision,
                "marks": verdicts[number] if verdicts else [],
            }
            for number, one in enumerate(chain.rounds, start=1)
        ],
    }


def _ended(chain: Chain) -> int | None:
    """The round from which on no response complied, for an original that complied with a prompt of a harmful kind.

    None if the last response complied too, or if a response after the last that complied is unscored.
    """
    complied = [None if verdict is None else verdict.complied for verdict in chain.verdicts]
    if chain.kind not in HARMFUL or not complied or not complied[0]:
        return None
    last = max(number for number, one in enumerate(complied) if one)
    after = complied[last + 1 :]
    return last + 1 if after and None not in after else None


def _about(seed: int, item: Answer | Chain) -> _About:
    return {"id": item.id, "seed": seed, "kind": kind_label(item), "prompt": item.prompt}


def _as_json(value: object) -> str:
    """JSON that can neither close the HTML element around it nor open another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "backslashreplace").decode()
