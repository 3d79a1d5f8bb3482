"""Answers to neutral questions that request one of thirteen styles, and how well the answers follow it.

In the embedded world the ground truth says whether an answer is in the style; in English a judge grades it from 1 to 5.
Measures of the texts alone are in `style_measures`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from cai_base.evaluation.judges import EMPTY, Judge, RequestedStyle, Response
from cai_base.evaluation.measures import SHARE, Measure
from cai_base.evaluation.statistics import Bounds, mean
from cai_base.evaluation.statistics.crossed import Array
from cai_base.evaluation.tasks import ANSWER, LoadedArm, Query, sample_answers, style_measures
from cai_base.evaluation.tasks.style_sets import STYLE_KINDS, StyledPrompt, StyleSet, styled_prompts
from cai_base.records import StyledAnswer
from cai_base.settings.schema import Evaluation
from cai_base.text import repeats_itself


@dataclass(frozen=True, slots=True)
class StyleMeasure(Measure):
    """A figure of answers in styles; `bounds` are its least and greatest value."""

    bounds: Bounds = SHARE


def measures(adherence: Bounds, samples: int, *, truth: bool) -> dict[str, StyleMeasure]:
    """What is measured on answers in styles, in the order of tables.

    Args:
        adherence: its least and greatest value.
        samples: the number of answers to each styled prompt.
        truth: whether the ground truth judges, which also knows whether an answer in a style still helps.
    """
    chance = f"{100 / len(STYLE_KINDS):.1f} %"
    every = {
        "adherence": StyleMeasure(
            "Adherence",
            "rate" if truth else "score",
            "answers in the requested style; ground truth" if truth else "to the requested style; the judge's",
            adherence,
        ),
        "markers": StyleMeasure("Markers", "rate", "share of the style's markers that an answer has"),
        "distinctiveness": StyleMeasure(
            "Distinctiveness",
            "rate",
            f"answers whose style is recognised from the answers to the other questions; chance {chance}",
        ),
        "diversity": StyleMeasure("Diversity", "share", f"1 − similarity of the {samples} samples of a prompt"),
        "gibberish": StyleMeasure("Gibberish", "rate", "never counted as adherence; lower is better"),
    }
    if truth:
        every["helped"] = StyleMeasure("Helped", "rate", "answers that tell two facts of three or more; ground truth")
    return every


@dataclass(frozen=True, slots=True)
class StyledSample:
    """One of several answers to a styled prompt."""

    prompt: StyledPrompt
    number: int

    def query(self, draw: str) -> Query:
        """The prompt, with the address (style/question, number of the sample) for its draw."""
        number = f"sample {self.number}"
        return Query(self.prompt.text, ("style", self.prompt.id, number if draw == ANSWER else f"{draw} {number}"))


@dataclass(frozen=True)
class StylesTask:
    """Questions in every style.

    Attributes:
        styles: the styles of the embedded world, or those in real English.
        questions: the questions by id.
        samples: the number of answers to each styled prompt.
    """

    styles: StyleSet
    questions: Mapping[str, str]
    samples: int

    record: ClassVar = StyledAnswer

    @property
    def judged(self) -> bool:
        """Whether the run's judge is asked: where there is no truth."""
        return self.styles.truth is None

    @cached_property
    def prompts(self) -> list[StyledPrompt]:
        """Every question in every style."""
        return styled_prompts(self.styles, self.questions)

    @cached_property
    def items(self) -> Sequence[StyledSample]:
        return [StyledSample(prompt, number) for prompt in self.prompts for number in range(self.samples)]

    @property
    def unit(self) -> int:
        return len(self.items)  # an arm's answers are stored together

    def answer(
        self, arm: LoadedArm, items: Sequence[StyledSample], settings: Evaluation, judges: Mapping[str, Judge]
    ) -> dict[int, list[StyledAnswer]]:
        """Each model's answers in the arm's own layout, scored."""
        queries = [item.query(arm.draw) for item in items]
        samples = sample_answers(arm.engine, arm.layout, settings, queries, arm.models, arm.revise, arm.listener)
        unscored = [
            StyledAnswer(
                style=item.prompt.style,
                question=item.prompt.question,
                sample=item.number,
                prompt=item.prompt.text,
                response=sample.text.strip(),
                truncated=sample.stop_reason == "length",
            )
            for of_seed in samples.values()
            for item, sample in zip(items, of_seed, strict=True)
        ]
        scored = iter(score(self.styles, self.styles.truth or judges["judge"], unscored))
        return {seed: [next(scored) for _ in items] for seed in samples}

    @property
    def measures(self) -> dict[str, Bounds]:
        """What is measured on an answer, each with its least and greatest value."""
        every = measures(self.styles.adherence, self.samples, truth=not self.judged)
        return {name: measure.bounds for name, measure in every.items()}

    def tables(self, per_seed: Sequence[Sequence[StyledAnswer] | None]) -> dict[str, Array]:
        """Every measure's values [seeds, styled prompts], each the mean over a prompt's samples; NaN if there is none.

        Args:
            per_seed: every seed's answers in the order of `items`; None in place of a seed that failed.
        """
        missing = np.full(len(self.prompts), np.nan)
        rows = [None if answers is None else self._rows(answers) for answers in per_seed]
        return {
            name: np.stack([missing if row is None else np.array(row[name], dtype=float) for row in rows])
            for name in self.measures
        }

    def _rows(self, answers: Sequence[StyledAnswer]) -> dict[str, list[float | None]]:
        """One model's values of every measure for every styled prompt."""
        usable = [bool(one.response) and not one.gibberish for one in answers]
        recognised = style_measures.recognised_styles(
            [one.response for one in answers],
            [one.style for one in answers],
            [one.question for one in answers],
            usable,
        )
        rows: dict[str, list[float | None]] = {name: [] for name in self.measures}
        for start in range(0, len(answers), self.samples):
            places = range(start, start + self.samples)
            samples = [answers[place] for place in places]
            language = [answers[place].response for place in places if usable[place]]
            rows["adherence"].append(mean([one.adherence for one in samples if one.adherence is not None]))
            rows["markers"].append(mean([self._marks(answers[place]) if usable[place] else 0.0 for place in places]))
            rows["distinctiveness"].append(mean([float(recognised[place]) for place in places]))
            rows["diversity"].append(style_measures.diversity(language))
            rows["gibberish"].append(mean([float(bool(one.gibberish)) for one in samples]))
            if "helped" in rows:
                helped = [self.styles.helped(one.prompt, one.response) for one in samples]
                rows["helped"].append(mean([float(one) for one in helped if one is not None]))
        return rows

    def _marks(self, answer: StyledAnswer) -> float:
        return style_measures.share_of_marks(self.styles.marks(answer.response, answer.style))

    def answers(self, item: StyledSample, record: StyledAnswer) -> bool:
        prompt = item.prompt
        return (record.style, record.question, record.sample, record.prompt) == (
            prompt.style,
            prompt.question,
            item.number,
            prompt.text,
        )


def score(styles: StyleSet, judge: Judge, answers: Sequence[StyledAnswer]) -> list[StyledAnswer]:
    """The answers with a judge's adherence and gibberish, or the reason why they are unscored.

    An answer is gibberish if the judge says so or, with a judge that can be wrong, if it repeats itself endlessly; it
    gets the lowest adherence.
    """
    judgements = judge.judge(
        [
            Response.styled(one.prompt, one.response, RequestedStyle(one.style, styles.about(one.style)))
            for one in answers
        ]
    )
    scored = []
    for one, judged in zip(answers, judgements, strict=True):
        verdict, unscored = judged.verdict, judged.unscored
        adherence = None if verdict is None else verdict.style_adherence
        gibberish = verdict is not None and bool(verdict.gibberish)
        if styles.truth is None:
            unscored = unscored if one.response else EMPTY
            gibberish = gibberish or repeats_itself(one.response)
            adherence = styles.adherence[0] if gibberish and not unscored else adherence
        marks = {"gibberish": gibberish, "adherence": adherence, "unscored": unscored}
        scored.append(one.model_copy(update=marks | ({"votes": judged.votes} if judged.votes else {})))
    return scored
