"""Pairwise helpfulness: each arm's answers to benign prompts beside SFT's, shown to the judge in both orders.

A grade from 1 to 5 is at its ceiling where nearly every answer gets 5; a comparison still tells two such answers apart.
The judge may call a tie. Stored as one unit, `pairwise.jsonl`; no figure of an arm by itself depends on it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from cai_base import paths
from cai_base.arms import BASELINE
from cai_base.evaluation.judges import Judge, Response
from cai_base.evaluation.statistics import mean, summary
from cai_base.inputs import Inputs
from cai_base.inputs.kinds import BENIGN
from cai_base.inputs.prompts import Prompt
from cai_base.records import Answer, Judgement, PairwiseFigures, PairwiseVerdict
from cai_base.run.stored import answers_of, records_of
from cai_base.settings.choices import Scope
from cai_base.store import Run, to_lines

WORK = "pairwise helpfulness"
"""The name of this work in the manifest."""


def compared_prompts(inputs: Inputs) -> list[Prompt]:
    """The evaluation prompts whose answers are compared."""
    return [prompt for prompt in inputs.evaluation_prompts if prompt.kind == BENIGN]


def compared_arms(evaluated: Sequence[str]) -> list[str]:
    """The arms that are compared with the baseline."""
    return [name for name in evaluated if name != BASELINE]


def compare(run: Run, scope: Scope, inputs: Inputs, judge: Judge) -> list[PairwiseVerdict]:
    """The judge's comparison of every arm's stored answers with the baseline's to the same prompt from the same seed.

    A seed without answers of either is left out.
    """
    places: list[tuple[int, str, str]] = []
    responses: list[Response] = []
    prompts = {prompt.id: prompt.text for prompt in compared_prompts(inputs)}
    for arm in compared_arms(scope.arms):
        for seed in scope.seeds:
            theirs = {answer.id: answer.response for answer in _answers(run, seed, BASELINE)}
            for answer in _answers(run, seed, arm):
                if answer.id in theirs and answer.id in prompts:
                    both = (answer.response, theirs[answer.id])
                    places.append((seed, arm, answer.id))
                    responses += [Response.beside(prompts[answer.id], *order) for order in (both, both[::-1])]
    each = iter(judge.judge(responses))
    return [_verdict(place, next(each), next(each)) for place in places]


def store(run: Run, verdicts: Sequence[PairwiseVerdict]) -> None:
    """Store them, as one unit."""
    run.commit(WORK, 1, write={paths.PAIRWISE: to_lines(one.dump() for one in verdicts)})


def stored(run: Run) -> list[PairwiseVerdict]:
    """What a run stored; nothing if it compared nothing."""
    return records_of(run, paths.PAIRWISE, PairwiseVerdict)


def figures(run: Run, seeds: Sequence[int], inputs: Inputs) -> dict[str, PairwiseFigures]:
    """By arm, how often its answers are preferred; nothing if the run compared nothing."""
    verdicts = stored(run)
    prompts = [prompt.id for prompt in compared_prompts(inputs)]
    return {
        arm: _figures([one for one in verdicts if one.arm == arm], seeds, prompts)
        for arm in dict.fromkeys(one.arm for one in verdicts)
    }


def _answers(run: Run, seed: int, arm: str) -> Iterator[Answer]:
    return (answer for answer in answers_of(run, seed, arm) if answer.kind == BENIGN)


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
