"""The contents of the results files: `results.json` of a run, of a suite and of comparisons, and `style.json`."""

from typing import Literal

from pydantic import ConfigDict, Field

from cai_base.records.figures import (
    Difference,
    Figure,
    Fluency,
    Interval,
    JudgeLabels,
    NamedFailure,
    Over,
    SecondJudge,
    Summary,
)
from cai_base.records.stored import Stored


class RubricUsed(Stored):
    """A rubric's name and the hash of its content."""

    name: str
    sha256: str


class ConstitutionUsed(Stored):
    """A constitution's name, number of principles and the hash of its content."""

    name: str
    principles: int
    sha256: str


class ControlUsed(Stored):
    """A control; where it has revision chains of its own, their constitution and what stood before their requests.

    Attributes:
        worked_critiques: the number of worked critiques before every request.
        refusal_prefill: the share of originals that were sampled after a refusal opener.
        revision: the figures of its chains.
        refusals: of the control of that name, how many of the written answers were refusals.
    """

    constitution: str | None = None
    worked_critiques: int | None = None
    refusal_prefill: float | None = None
    revision: "RevisionFigures | None" = None
    refusals: int | None = None


class FeedbackFigures(Stored):
    """How an arm's pairs of answers were labelled by comparison.

    Attributes:
        requests: the hash of the comparison requests.
        principles: how many labelled each pair.
        responses: pairs of answers that were sampled.
        pairs: those that were compared.
        filtered: the others, by reason.
        confidence: mean probability of the answer that was preferred; 0.5 is none.
        first_letter: mean probability of (A) over single comparisons; 0.5 means no position bias.
        order_agreement: share of pairs of comparisons whose two orders prefer the same answer.
        judge_agreement: share of pairs in which the label prefers the answer that the judge finds better, of those in
            which it finds one better, by what the prompt asks for.
        judge_decided: the number of those pairs.
    """

    requests: str
    principles: int
    responses: int
    pairs: int
    filtered: dict[str, int]
    confidence: Summary
    first_letter: Summary
    order_agreement: Summary
    judge_agreement: dict[str, Summary]
    judge_decided: dict[str, int]


class PairwiseFigures(Stored):
    """How often an arm's answers to benign prompts are preferred to the baseline's, for their help alone.

    Attributes:
        compared_with: the baseline.
        preferred: mean preference for the arm's answer: 1 preferred, 0 not, a tie one half; 0.5 is no difference.
        wins, ties, losses: the numbers of answers. A win is preferred in both orders, or in one with a tie in the
            other; a loss is the same for the baseline's answer; all others are ties, also contradictory orders.
        first_shown: mean preference for the answer that is shown first, whichever it is; 0.5 is no position bias.
        scored: answers compared in both orders.
        total: all that were to be compared.
    """

    compared_with: str
    preferred: Summary
    wins: int
    ties: int
    losses: int
    first_shown: float | None
    scored: int
    total: int


class LossUsed(Stored):
    """The loss that an arm was trained with, and its settings."""

    name: str
    settings: dict[str, float]


class Prefilled(Stored):
    """The chains whose originals were prefilled with the beginning of a refusal."""

    chains: int
    harmful_by_round: tuple[float | None, ...]


class PrincipleFigures(Stored):
    """What the rounds under one principle did; a share is None if there was nothing to take it over.

    Attributes:
        drawn: rounds under it.
        flagged: share of their critiques that find harm; absent where critiques cannot be read without a model.
        changed: share of them in which the revision differs from the response before it.
        judged: rounds about harmful prompts with a verdict on the response before and after; chains whose original was
            prefilled with a refusal are left out.
        harmful_before, harmful_after: share of those whose response complies.
    """

    drawn: int
    flagged: float | None = None
    changed: float | None
    judged: int
    harmful_before: float | None
    harmful_after: float | None


class RevisionFigures(Stored):
    """The figures of the revision chains. Entry 0 of a list by round is the original.

    Attributes:
        principles: the figures of every principle that was drawn.
    """

    chains: int
    pairs: int
    filtered: dict[str, int]
    harmful_by_round: tuple[float | None, ...]
    helpful_by_round: tuple[float | None, ...]
    refused_by_round: tuple[float | None, ...]
    prefilled: Prefilled
    principle_counts: dict[str, int]
    principles: dict[str, PrincipleFigures] | None = None
    response_tokens: dict[str, float | None]
    truncated: int


class CurvePoint(Stored):
    """An arm's metrics at a step of its training: a mean for each metric whose curve is stored."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    step: int


class Unseen(Stored):
    """Attack success on families of jailbreaks that the method never saw, beside those that it did.

    Attributes:
        families: that were taken out of the method's prompts.
        arms: by arm, `unseen` and `seen`.
        comparisons: by pair of arms, `unseen` and `seen`.
    """

    families: tuple[str, ...]
    arms: dict[str, dict[str, Figure]]
    comparisons: dict[str, dict[str, Difference]]


class Results(Stored):
    """The content of a run's `results.json`.

    Attributes:
        interpreter: the model that critiqued, revised and compared, where it was not each seed's own SFT adapter.
        feedback: by arm, how its pairs were labelled by comparison, where any were.
        judge_labels: the judge on labelled answers; absent where none were given.
        unseen: absent where no family was held out.
        pairwise: by arm; absent where the judge does not compare.
    """

    schema_: Literal[1] = Field(alias="schema")
    model: str
    model_organism: bool
    engine: str
    instruct: str | None
    judge: str | None
    second_judge: SecondJudge | None
    votes: int
    vote_agreement: dict[str, float | None]
    rubrics: dict[str, RubricUsed]
    protocol: str
    seeds: tuple[int, ...]
    controls: dict[str, ControlUsed]
    constitution: ConstitutionUsed
    interpreter: str | None = None
    judge_labels: JudgeLabels | None = None
    losses: dict[str, LossUsed]
    intervals: str
    arms: dict[str, dict[str, Figure]]
    failures: tuple[NamedFailure, ...]
    fluency: Fluency
    unscored: dict[str, dict[str, int]]
    comparisons: dict[str, dict[str, Difference]]
    revision: RevisionFigures
    feedback: dict[str, FeedbackFigures] | None = None
    curves: dict[str, tuple[CurvePoint, ...]]
    unseen: Unseen | None = None
    pairwise: dict[str, PairwiseFigures] | None = None
    failed: dict[str, dict[str, str]]
    warnings: tuple[str, ...]


class SuiteFiles(Stored):
    """The suite of an evaluation and its files."""

    name: str
    files: tuple[str, ...]
    sha256: str


class SuiteAsked(SuiteFiles):
    """A suite of prompts, and its numbers of prompts by sort.

    Attributes:
        attacks: prompts that the attack success rate is a mean over.
        apart: further harmful prompts, which are counted by their category and not in that rate.
        safe: harmless prompts.
    """

    prompts: int
    subset: int = Field(alias="asked", description="how many of them were put to the models")
    attacks: int
    apart: int
    safe: int
    left_out: dict[str, int]


class ComparisonsAsked(SuiteFiles):
    """A suite of comparisons, and their number."""

    comparisons: int
    subset: int = Field(alias="asked", description="how many of them were put to the models")


class SuiteHead(Stored):
    """The head of the results of a suite, of prompts or of comparisons."""

    schema_: Literal[1] = Field(alias="schema")
    suite: SuiteFiles
    of: Literal["run", "model"]
    model: str
    base: str | None
    model_organism: bool
    engine: str
    seeds: tuple[int, ...]
    layouts: dict[str, str]


class SuiteResults(SuiteHead):
    """The content of `results.json` for a suite of prompts."""

    suite: SuiteAsked
    judge: str | None
    second_judge: SecondJudge | None
    votes: int
    vote_agreement: dict[str, float | None]
    rubrics: dict[str, RubricUsed]
    intervals: str
    arms: dict[str, dict[str, Figure]]
    failures: tuple[NamedFailure, ...]
    unscored: dict[str, dict[str, int]]
    comparisons: dict[str, dict[str, Difference]]
    failed: dict[str, dict[str, str]]
    warnings: tuple[str, ...]


class Accuracy(Summary):
    """The share of comparisons in which the better answer is the more probable one, over a file or over a category."""

    scored: int
    total: int
    worst_case: tuple[float | None, float | None]
    by_category: dict[str, "Accuracy"] | None = None


class ComparisonsResults(SuiteHead):
    """The content of `results.json` for comparisons by log-probability."""

    suite: ComparisonsAsked
    intervals: str
    arms: dict[str, dict[str, Accuracy]]
    comparisons: dict[str, dict[str, Difference]]
    warnings: tuple[str, ...]


class StyleArm(Stored):
    """One arm's style figures: each measure, each measure by style, and the numbers of its answers.

    Attributes:
        helped: whether an answer in a style still helps; only in the embedded world, where this is known.
    """

    adherence: Summary
    markers: Summary
    distinctiveness: Summary
    diversity: Summary
    gibberish: Summary
    helped: Summary | None = None
    by_style: dict[str, dict[str, float | None]]
    answers: int
    scored: int
    truncated: int
    unscored: dict[str, int]


class StyleAnswer(Stored):
    """Whether full CAI keeps more style than the instruct model."""

    question: str
    answer: str
    comparison: str
    measure: str
    difference: float | None
    ci95: Interval | None
    ci95_over: Over | None
    p_value: float | None
    seeds: int


class StyleResults(Stored):
    """The content of `style.json`.

    Attributes:
        styles: the kind of every style.
        chance: the distinctiveness of a model that ignores styles.
    """

    schema_: Literal[1] = Field(alias="schema")
    model: str
    model_organism: bool
    data: str
    judge: str | None
    styles: dict[str, str]
    questions: dict[str, str]
    samples: int
    seeds: tuple[int, ...]
    adherence_range: tuple[float, float]
    chance: float
    intervals: str
    arms: dict[str, StyleArm]
    comparisons: dict[str, dict[str, Difference]]
    keeps_more_style: StyleAnswer | None
