"""Pairwise helpfulness: an arm's answers to benign prompts beside SFT's, shown to a judge in both orders.

A grade from 1 to 5 is at its ceiling where nearly every answer gets 5; a comparison still tells two such answers apart.
The judge may call a tie. Nothing is sampled: both answers are stored ones. No figure of an arm by itself depends on it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cai_base.arms import BASELINE
from cai_base.evaluation.judges import Judge, Response
from cai_base.evaluation.statistics import mean, summary
from cai_base.inputs.kinds import BENIGN
from cai_base.inputs.prompts import Prompt
from cai_base.records import Answer, Judgement, PairwiseFigures, PairwiseVerdict

NAME = "pairwise helpfulness"
"""The name of the task, and of its work in a run's manifest."""

Answers = Callable[[int, str], Iterable[Answer]]
"""The stored answers of a seed and an arm."""


@dataclass(frozen=True, slots=True)
class PairwiseTask:
    """The arms and prompts of a run whose answers are compared.

    Attributes:
        arms: each is compared with the baseline.
        prompts: the benign evaluation prompts.
    """

    arms: tuple[str, ...]
    seeds: Sequence[int]
    prompts: tuple[Prompt, ...]

    @classmethod
    def of(cls, arms: Sequence[str], seeds: Sequence[int], prompts: Sequence[Prompt]) -> "PairwiseTask":
        """The task for a run with these evaluated arms, seeds and evaluation prompts."""
        compared = tuple(name for name in arms if name != BASELINE)
        return cls(compared, seeds, tuple(prompt for prompt in prompts if prompt.kind == BENIGN))

    @property
    def blank(self) -> list[Response]:
        """What the judge is asked of each prompt, with empty texts in place of the answers."""
        return [Response.beside(prompt.text, "", "") for prompt in self.prompts]

    @property
    def times(self) -> int:
        """How often, at most, it is asked that: for every arm and seed in both orders."""
        return 2 * len(self.arms) * len(self.seeds)

    def verdicts(self, answers: Answers, judge: Judge) -> list[PairwiseVerdict]:
        """The judge's comparison of every arm's answers with the baseline's to the same prompt from the same seed.

        A seed without answers of either is left out.
        """
        places: list[tuple[int, str, str]] = []
        responses: list[Response] = []
        prompts = {prompt.id: prompt.text for prompt in self.prompts}
        for arm in self.arms:
            for seed in self.seeds:
                theirs = {answer.id: answer.response for answer in answers(seed, BASELINE)}
                for answer in answers(seed, arm):
                    if answer.id in theirs and answer.id in prompts:
                        both = (answer.response, theirs[answer.id])
                        places.append((seed, arm, answer.id))
                        responses += [Response.beside(prompts[answer.id], *order) for order in (both, both[::-1])]
        each = iter(judge.judge(responses))
        return [_verdict(place, next(each), next(each)) for place in places]

    def figures(self, verdicts: Sequence[PairwiseVerdict]) -> dict[str, PairwiseFigures]:
        """By arm, how often its answers are preferred; nothing if nothing was compared."""
        prompts = [prompt.id for prompt in self.prompts]
        return {
            arm: _figures([one for one in verdicts if one.arm == arm], self.seeds, prompts)
            for arm in dict.fromkeys(one.arm for one in verdicts)
        }


def _verdict(place: tuple[int, str, str], first: Judgement, second: Judgement) -> PairwiseVerdict:
    """Both orders as preferences for the arm's answer, which the second order shows second."""
    as_first = None if first.verdict is None else first.verdict.preferred
    as_second = None if second.verdict is None else second.verdict.preferred
    seed, arm, prompt = place
    reasons = dict.fromkeys(one.unscored for one in (first, second) if one.unscored)
    verdict = PairwiseVerdict(
        seed=seed,
        arm=arm,
        id=prompt,
        shown_first=None if as_first is None else float(as_first),
        shown_second=None if as_second is None else 1 - float(as_second),
        unscored="; ".join(reasons) or None,
    )
    votes = (*first.votes, *second.votes)
    return verdict.model_copy(update={"votes": votes}) if votes else verdict


def _figures(verdicts: Sequence[PairwiseVerdict], seeds: Sequence[int], prompts: Sequence[str]) -> PairwiseFigures:
    cells = np.full((len(seeds), len(prompts)), np.nan)
    for one in verdicts:
        if one.preferred is not None:
            cells[seeds.index(one.seed), prompts.index(one.id)] = one.preferred
    scored = [one.preferred for one in verdicts if one.preferred is not None]
    outcomes = Counter(one.outcome for one in verdicts)
    first_shown = [
        (one.shown_first + 1 - one.shown_second) / 2
        for one in verdicts
        if one.shown_first is not None and one.shown_second is not None
    ]
    return PairwiseFigures(
        compared_with=BASELINE,
        preferred=summary(cells, (0.0, 1.0)),
        wins=outcomes["win"],
        ties=outcomes["tie"],
        losses=outcomes["loss"],
        first_shown=mean(first_shown),
        scored=len(scored),
        total=len(verdicts),
    )
