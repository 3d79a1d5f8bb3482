"""Figures of the revision chains and of the comparisons for feedback, from a run's stored files."""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cai_base import embedded, paths
from cai_base.arms import NO_PRINCIPLE, PLACEBO, Arm
from cai_base.embedded import EMBEDDED
from cai_base.evaluation.statistics import among, mean, summary
from cai_base.evaluation.statistics.crossed import Array
from cai_base.inputs import Inputs
from cai_base.inputs.kinds import HARMFUL, HARMLESS, PROMPT_KINDS
from cai_base.method.comparing import probability
from cai_base.method.pairs import count_filtered
from cai_base.records import (
    Chain,
    ControlUsed,
    FeedbackFigures,
    Pair,
    Prefilled,
    PrincipleFigures,
    RevisionFigures,
    Summary,
    TwoResponses,
    Verdict,
)
from cai_base.run.stored import each_record, records_of
from cai_base.settings.choices import InterpreterChoice
from cai_base.settings.schema import Revision
from cai_base.store import Run

SHARE = (0.0, 1.0)


def control(
    run: Run,
    arm: Arm,
    seeds: Sequence[int],
    refusals: int,
    revision: Revision,
    interpreter: InterpreterChoice,
    inputs: Inputs,
) -> ControlUsed:
    """The data from which a control was made.

    Args:
        refusals: how many of the written answers are refusals, for an arm in which some are replaced.
    """
    if arm.replaces:
        return ControlUsed(refusals=refusals)
    own = {PLACEBO: inputs.placebo, NO_PRINCIPLE: inputs.no_principle}.get(arm.constitution or "")
    if own is None:
        return ControlUsed()
    examples = inputs.placebo_examples if arm.constitution == PLACEBO else inputs.critique_examples
    return ControlUsed(
        constitution=own.name,
        worked_critiques=len(examples),
        refusal_prefill=revision.refusal_prefill,
        revision=revision_figures(run, seeds, revision.rounds, interpreter, arm.owner),
    )


def revision_figures(
    run: Run, seeds: Sequence[int], rounds: int, interpreter: InterpreterChoice, owner: str | None = None
) -> RevisionFigures:
    """The figures of revision chains.

    Args:
        owner: the folder of the arm that the chains belong to; None for the run's own chains.
    """
    # The embedded model writes critiques in the wordings of its world, so one that finds harm is known.
    critiques_are_known = interpreter.base.model == EMBEDDED and not interpreter.other
    free, prefilled = _Rounds(rounds), _Rounds(rounds)
    outcomes: Counter[str] = Counter()
    truncated = 0
    principles: dict[str, _OfPrinciple] = {}
    for chain in (one for seed in seeds for one in each_record(run, paths.chains(seed, owner), Chain)):
        outcomes[chain.outcome] += 1
        truncated += chain.truncated
        (free if chain.refusal_opener is None else prefilled).add(chain)
        for number, one in enumerate(chain.rounds):
            principles.setdefault(one.principle, _OfPrinciple()).add(chain, number, critiques_are_known)
    lengths = array("d"), array("d")
    for pair in (one for seed in seeds for one in each_record(run, paths.pairs(seed, owner), Pair)):
        lengths[0].append(pair.chosen_tokens)
        lengths[1].append(pair.rejected_tokens)
    return RevisionFigures(
        chains=outcomes.total(),
        pairs=len(lengths[0]),
        filtered=count_filtered(outcomes.elements()),
        harmful_by_round=free.means("complied"),
        helpful_by_round=free.means("helpfulness"),
        refused_by_round=free.means("refused"),
        prefilled=Prefilled(chains=prefilled.chains, harmful_by_round=prefilled.means("complied")),
        principle_counts={name: len(principles[name].changed) for name in sorted(principles)},
        principles={name: principles[name].figures(critiques_are_known) for name in sorted(principles)},
        response_tokens={"chosen": mean(lengths[0]), "rejected": mean(lengths[1])},
        truncated=truncated,
    )


class _OfPrinciple:
    """What the rounds under one principle did, chain by chain."""

    def __init__(self) -> None:
        self.changed, self.flagged, self.before, self.after = array("d"), array("d"), array("d"), array("d")

    def add(self, chain: Chain, number: int, critiques_are_known: bool) -> None:
        """Count a round of a chain."""
        texts = chain.responses[number : number + 2]
        self.changed.append(texts[1] != texts[0])
        if critiques_are_known:
            self.flagged.append(embedded.finds_harm(chain.rounds[number].critique))
        if chain.kind not in HARMFUL or chain.refusal_opener is not None:
            return
        before, after = chain.verdicts[number : number + 2]
        if before is None or after is None or before.complied is None or after.complied is None:
            return
        self.before.append(before.complied)
        self.after.append(after.complied)

    def figures(self, critiques_are_known: bool) -> PrincipleFigures:
        """The figures of all rounds."""
        flagged = {"flagged": mean(self.flagged)} if critiques_are_known else {}
        return PrincipleFigures(
            **flagged,
            drawn=len(self.changed),
            changed=mean(self.changed),
            judged=len(self.before),
            harmful_before=mean(self.before),
            harmful_after=mean(self.after),
        )


class _Rounds:
    """Parts of the verdicts on the originals and on the revisions of each round, chain by chain."""

    PARTS: Mapping[str, Sequence[str]] = {"complied": HARMFUL, "helpfulness": HARMLESS, "refused": HARMLESS}

    def __init__(self, rounds: int) -> None:
        self.chains = 0
        self._values = {part: [array("d") for _ in range(rounds + 1)] for part in self.PARTS}

    def add(self, chain: Chain) -> None:
        """Count a chain's verdicts."""
        self.chains += 1
        for part, kinds in self.PARTS.items():
            if chain.kind in kinds:
                for values, verdict in zip(self._values[part], chain.verdicts, strict=True):
                    value = None if verdict is None else getattr(verdict, part)
                    if value is not None:
                        values.append(value)

    def means(self, part: str) -> tuple[float | None, ...]:
        """The mean of a part for the originals and for each round."""
        return tuple(map(mean, self._values[part]))


def feedback_figures(run: Run, arm: Arm, seeds: Sequence[int], principles: int, inputs: Inputs) -> FeedbackFigures:
    """Figures on how an arm's pairs of answers were labelled.

    Args:
        principles: the most comparison requests for each pair.
    """
    per_seed = [records_of(run, paths.responses(seed, arm.owner), TwoResponses) for seed in seeds]
    every = [two for of_seed in per_seed for two in of_seed]
    requests = [[one.name, one.text] for one in inputs.comparison_requests]

    def cells(value: Callable[[TwoResponses], float | None]) -> Array:
        return _cells(per_seed, [prompt.id for prompt in inputs.prompts], value)

    def over_pairs(value: Callable[[TwoResponses], float | None]) -> Summary:
        return summary(cells(value), SHARE)

    agreements = {"harmful": HARMFUL, "harmless": HARMLESS}
    return FeedbackFigures(
        requests=hashlib.sha256(json.dumps(requests).encode()).hexdigest(),
        principles=min(principles, len(requests)),
        responses=len(every),
        pairs=sum(two.outcome == "pair" for two in every),
        filtered=count_filtered(two.outcome for two in every),
        confidence=over_pairs(lambda two: max(first := probability(two.comparisons), 1 - first)),
        first_letter=over_pairs(
            lambda two: float(np.mean([(one.first_as_a + 1 - one.first_as_b) / 2 for one in two.comparisons]))
        ),
        order_agreement=over_pairs(
            lambda two: float(np.mean([(one.first_as_a >= 0.5) == (one.first_as_b >= 0.5) for one in two.comparisons]))
        ),
        judge_agreement={
            name: among(cells(lambda two, kinds=kinds: _agrees(two) if two.kind in kinds else None), SHARE)  # type: ignore[misc]
            for name, kinds in agreements.items()
        },
        judge_decided={
            name: sum(two.kind in kinds and two.comparisons != () and _better(two) is not None for two in every)
            for name, kinds in agreements.items()
        },
    )


def _cells(
    per_seed: Sequence[Sequence[TwoResponses]], prompts: Sequence[str], value: Callable[[TwoResponses], float | None]
) -> Array:
    """A value of every compared pair `[seeds, prompts]`, without the prompts that have none."""
    cells = np.full((len(per_seed), len(prompts)), np.nan)
    places = {prompt: place for place, prompt in enumerate(prompts)}
    for row, of_seed in zip(cells, per_seed, strict=True):
        for two in of_seed:
            if two.comparisons:
                one = value(two)
                row[places[two.id]] = np.nan if one is None else one
    return cells[:, ~np.isnan(cells).all(axis=0)]


def _agrees(two: TwoResponses) -> float | None:
    """Whether the label prefers the answer that the judge finds better; None if the judge finds neither better."""
    better = _better(two)
    return None if better is None else float((probability(two.comparisons) >= 0.5) == (better == 0))


def _better(two: TwoResponses) -> int | None:
    """The index of the answer that the judge finds better; None if it finds neither better."""
    harm = None if two.kind is None else PROMPT_KINDS[two.kind].harm
    merits = [None if verdict is None else _merit(verdict, harm) for verdict in two.verdicts]
    if len(merits) != len(two.responses) or None in merits or merits[0] == merits[1]:
        return None
    return 0 if merits[0] > merits[1] else 1  # type: ignore[operator]


def _merit(verdict: Verdict, harm: str | None) -> tuple[float, ...] | None:
    """The judge's rating of an answer: on a harmful prompt, not complying; on a harmless prompt, helping."""
    if harm == "harmful":
        return None if verdict.complied is None else (float(not verdict.complied),)
    if verdict.helpfulness is None:
        return None
    return (float(not verdict.refused), float(verdict.helpfulness))
