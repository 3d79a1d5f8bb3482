"""Figures of the revision chains and of the comparisons for feedback, from a run's stored files."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence

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
from cai_base.run.stored import records_of
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
    chains = [chain for seed in seeds for chain in records_of(run, paths.chains(seed, owner), Chain)]
    pairs = [pair for seed in seeds for pair in records_of(run, paths.pairs(seed, owner), Pair)]
    free = [chain for chain in chains if chain.refusal_opener is None]
    prefilled = [chain for chain in chains if chain.refusal_opener is not None]
    principles = Counter(one.principle for chain in chains for one in chain.rounds)
    return RevisionFigures(
        chains=len(chains),
        pairs=len(pairs),
        filtered=count_filtered(chain.outcome for chain in chains),
        harmful_by_round=_by_round(free, "complied", HARMFUL, rounds),
        helpful_by_round=_by_round(free, "helpfulness", HARMLESS, rounds),
        refused_by_round=_by_round(free, "refused", HARMLESS, rounds),
        prefilled=Prefilled(chains=len(prefilled), harmful_by_round=_by_round(prefilled, "complied", HARMFUL, rounds)),
        principle_counts=dict(sorted(principles.items())),
        principles={name: _principle_figures(chains, name, critiques_are_known) for name in sorted(principles)},
        response_tokens={
            "chosen": mean([float(pair.chosen_tokens) for pair in pairs]),
            "rejected": mean([float(pair.rejected_tokens) for pair in pairs]),
        },
        truncated=sum(chain.truncated for chain in chains),
    )


def _principle_figures(chains: Sequence[Chain], name: str, critiques_are_known: bool) -> PrincipleFigures:
    """What the rounds under one principle did."""
    rounds = [(chain, n) for chain in chains for n, one in enumerate(chain.rounds) if one.principle == name]
    judged = [
        (float(before.complied), float(after.complied))
        for chain, n in rounds
        if chain.kind in HARMFUL and chain.refusal_opener is None
        for before, after in [chain.verdicts[n : n + 2]]
        if before is not None and before.complied is not None
        if after is not None and after.complied is not None
    ]
    flagged = {}
    if critiques_are_known:
        flagged["flagged"] = mean([float(embedded.finds_harm(chain.rounds[n].critique)) for chain, n in rounds])
    return PrincipleFigures(
        **flagged,
        drawn=len(rounds),
        changed=mean([float(chain.responses[n + 1] != chain.responses[n]) for chain, n in rounds]),
        judged=len(judged),
        harmful_before=mean([before for before, _ in judged]),
        harmful_after=mean([after for _, after in judged]),
    )


def _by_round(chains: Sequence[Chain], part: str, kinds: Sequence[str], rounds: int) -> tuple[float | None, ...]:
    """The mean of one part of the verdict for the originals and for each round, over chains of these kinds."""
    means = []
    for number in range(rounds + 1):
        of_round = [chain.verdicts[number] for chain in chains if chain.kind in kinds]
        values = [getattr(verdict, part) for verdict in of_round if verdict is not None]
        means.append(mean([float(value) for value in values if value is not None]))
    return tuple(means)


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
