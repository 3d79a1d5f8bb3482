"""The thirteen styles, in the embedded world and in real English: how each is requested, and its marks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self

from pydantic import Field, model_validator

from cai_base import embedded, randomness
from cai_base.evaluation.judges import GroundTruth, Judge
from cai_base.evaluation.statistics import Bounds
from cai_base.inputs.kinds import BENIGN
from cai_base.inputs.prompts import load_prompts
from cai_base.reading import Entry, Text, build, parse_toml, read_text

Kind = Literal["register", "language", "persona"]

STYLE_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(
        ("formal", "casual", "poetic", "childlike", "excited", "gloomy", "curt", "learned"),
        "register",
    ),
    **dict.fromkeys(("dialect", "shouting"), "language"),
    **dict.fromkeys(("pirate", "wizard", "grandmother"), "persona"),
}
"""The kind of every style, in the order of tables; both sets have these styles."""


@dataclass(frozen=True, slots=True)
class StyledPrompt:
    """A question with a request for a style after it.

    Attributes:
        question: the id of the question.
        text: the whole prompt, the request included.
    """

    style: str
    question: str
    text: str

    @property
    def id(self) -> str:
        """The prompt's name: the same for every arm and seed."""
        return f"{self.style}/{self.question}"


class StyleSet(Protocol):
    """Thirteen styles, and the neutral questions for them.

    Attributes:
        usual_questions: the default number of questions in each style.
        adherence: the least and the greatest adherence.
        truth: the ground-truth judge; None if the run's judge is asked.
    """

    usual_questions: int
    adherence: Bounds
    truth: Judge | None

    @property
    def questions(self) -> Mapping[str, str]:
        """Every question by its id."""
        ...

    def wishes(self, style: str) -> list[str]:
        """The wordings of requests for a style."""
        ...

    def marks(self, text: str, style: str) -> list[bool]:
        """For each mark of the style, whether the text has it."""
        ...

    def about(self, style: str) -> str | None:
        """The description of a style for a judge; None for the ground truth, which needs none."""
        return None

    def helped(self, prompt: str, text: str) -> bool | None:
        """Whether an answer in a style still helps; None if that is not known."""
        return None


class EmbeddedStyles(StyleSet):
    """The styles of the embedded model's world, which consist of their marks alone, on its benign test questions."""

    usual_questions = 6
    adherence = (0.0, 1.0)
    truth = GroundTruth()

    @cached_property
    def questions(self) -> Mapping[str, str]:
        prompts = load_prompts(embedded.data_file("test.jsonl"))
        return {prompt.id: prompt.text for prompt in prompts if prompt.kind == BENIGN}

    def wishes(self, style: str) -> list[str]:
        return embedded.style_requests(style)

    def marks(self, text: str, style: str) -> list[bool]:
        return embedded.style_marks(text, style)

    def helped(self, prompt: str, text: str) -> bool:
        """By the ground truth."""
        return embedded.truth(prompt, text).helped


class Mark(Entry):
    """A surface sign of a style: a regular expression that is present in a text, or absent from it."""

    name: Text
    present: Text | None = None
    absent: Text | None = None

    @model_validator(mode="after")
    def _one_expression(self) -> Self:
        if (self.present is None) == (self.absent is None):
            raise ValueError(f"the mark {self.name!r} needs one of 'present' and 'absent'")
        try:
            _compiled(self.present or self.absent or "")
        except re.error as error:
            raise ValueError(f"the mark {self.name!r}: no regular expression: {error}") from None
        return self

    def on(self, text: str) -> bool:
        """Whether the text bears it."""
        present = _compiled(self.present or self.absent or "").search(text) is not None
        return present == (self.present is not None)


class Style(Entry):
    """A style in real English.

    Attributes:
        about: its description for a judge.
    """

    ask: Annotated[list[Text], Field(min_length=1)]
    about: Text
    mark: Annotated[list[Mark], Field(min_length=1)]


class EnglishStyles(StyleSet):
    """Styles in real English, from `data/english/styles.toml`. A judge grades adherence from 1 to 5."""

    usual_questions = 3
    adherence = (1.0, 5.0)
    truth = None

    def __init__(self) -> None:
        path = _file(embedded.ENGLISH, "styles.toml")
        data = parse_toml(path, read_text(path, "the styles"))
        questions = data.pop("questions")
        assert isinstance(questions, list)
        self._questions = {f"question-{n}": text for n, text in enumerate(questions, start=1)}
        self.styles = {name: build(Style, table, f"{path}: {name}") for name, table in data.items()}

    @property
    def questions(self) -> Mapping[str, str]:
        return self._questions

    def wishes(self, style: str) -> list[str]:
        return self.styles[style].ask

    def marks(self, text: str, style: str) -> list[bool]:
        """An empty text bears none, not even a mark that is the absence of something."""
        return [bool(text.strip()) and mark.on(text) for mark in self.styles[style].mark]

    def about(self, style: str) -> str:
        return self.styles[style].about


@cache
def style_set(data: embedded.Data) -> StyleSet:
    """The styles that belong to a run's `data`."""
    return EmbeddedStyles() if data == embedded.DATA else EnglishStyles()


def styled_prompts(styles: StyleSet, questions: Mapping[str, str]) -> list[StyledPrompt]:
    """Every question in every style. The wording of the request is drawn once, so that all arms and seeds get the same
    prompt."""
    return [
        StyledPrompt(style, name, f"{text} {_wish(styles, style, name)}")
        for style in STYLE_KINDS
        for name, text in questions.items()
    ]


def _wish(styles: StyleSet, style: str, question: str) -> str:
    wordings = styles.wishes(style)
    return wordings[randomness.stream("style", style, question, "wish").integers(len(wordings))]


@cache
def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.IGNORECASE)


def _file(folder: str, name: str) -> Path:
    path = resources.files("cai_base") / "data" / folder / name
    assert isinstance(path, Path)
    return path
