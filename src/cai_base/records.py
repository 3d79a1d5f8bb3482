"""What a run stores, typed: one class for each kind of record, and the contents of every results file.

A record is read from and written to JSON as its fields stand here, in this order; a field that was not set is left out.
`docs/results.schema.json` is generated from `RESULTS_FILES`: `python -m cai_base.records > docs/results.schema.json`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

Interval = tuple[float, float]
"""Lower and upper end."""


class Stored(BaseModel):
    """A record: immutable, no unknown fields, no not-a-number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def dump(self) -> dict[str, Any]:
        """The record as JSON values, without the fields that were not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


# Judging


@dataclass(frozen=True, slots=True)
class Part:
    """What a part of the verdict can be, and which rubrics give it.

    Attributes:
        bounds: the least and the greatest value of a number; None for yes or no.
        needed_for: the tasks of rubrics that must give it.
        allowed_for: the tasks of rubrics that may give it.
    """

    bounds: Interval | None = None
    needed_for: tuple[str, ...] = ()
    allowed_for: tuple[str, ...] = ()


class Verdict(Stored):
    """A judge's answer about a response. A part is None where this judge was not asked for it, or did not answer.

    A new part is a new field here: which rubrics give it, and what it can be, stands beside it.

    Attributes:
        complied: the response does what the prompt asks, at least in part; for a harmful prompt, the attack succeeded.
        refused: it declines.
        helpfulness: 1 (no help) to 5.
        gibberish: it is not language.
        harm: how much harm it could do, 0 to 1.
        style_adherence: 1 (not in the style asked for) to 5, or 0 and 1 where the truth is known.
    """

    complied: Annotated[bool | None, Part(needed_for=("attack",), allowed_for=("over-refusal",))] = None
    refused: Annotated[bool | None, Part(needed_for=("attack", "over-refusal"))] = None
    helpfulness: Annotated[int | float | None, Part((1.0, 5.0), needed_for=("helpfulness",))] = None
    gibberish: Annotated[bool | None, Part(allowed_for=("attack", "over-refusal", "style"))] = None
    harm: Annotated[int | float | None, Part((0.0, 1.0), allowed_for=("attack",))] = None
    style_adherence: Annotated[int | float | None, Part((1.0, 5.0), needed_for=("style",))] = None


VERDICT_PARTS: Mapping[str, Part] = {
    name: part for name, field in Verdict.model_fields.items() for part in field.metadata if isinstance(part, Part)
}
"""Every part of the verdict by its name."""


class Vote(Stored):
    """One time that a model was asked to judge: what it answered, or its words and why they are no answer."""

    rubric: str
    vote: int
    answer: dict[str, str | bool | int | float] | None = None
    verdict: dict[str, bool | int | float] | None = None
    unscored: str | None = None
    raw: str | None = None


class Judgement(Stored):
    """What became of one response.

    Attributes:
        verdict: None if nothing of it is scored.
        unscored: why there is no verdict, or why parts of it are missing; None if none is.
        said: of a model that judged, every vote.
    """

    verdict: Verdict | None
    unscored: str | None = None
    said: tuple[Vote, ...] = ()

    def fields(self) -> dict[str, object]:
        """What was set, as fields of the record of an answer."""
        return {name: getattr(self, name) for name in self.model_fields_set}


# What the phases store


class Round(Stored):
    """One round of a revision chain."""

    principle: str
    critique: str
    revision: str


Outcome = Literal["pair", "identical", "empty", "truncated", "off the rails"]
"""What becomes of a revision chain: a preference pair, or why it gives none."""


class Chain(Stored):
    """A revision chain, whole, with a verdict on the original and on every round's revision.

    Attributes:
        refusal_opener: what the original was made to begin with, if anything.
        truncated: how many of its responses reached the length limit.
        sampled_tokens: tokens drawn for all its texts.
        outcome: `pair`, or why it gives no preference pair.
    """

    id: str
    kind: str | None
    family: str | None
    prompt: str
    refusal_opener: str | None
    original: str
    rounds: tuple[Round, ...]
    truncated: int
    sampled_tokens: int
    outcome: Outcome
    verdicts: tuple[Verdict | None, ...] = ()
    unscored: tuple[str | None, ...] = ()

    @property
    def responses(self) -> tuple[str, ...]:
        """The original and the revision of every round."""
        return (self.original, *(one.revision for one in self.rounds))


class Pair(Stored):
    """A preference pair in TRL's columns, and where it came from.

    Attributes:
        held_out: never trained on.
        swapped: of a shuffled pair, whether chosen and rejected changed places.
    """

    prompt: str
    chosen: str
    rejected: str
    id: str
    kind: str | None
    principles: tuple[str, ...]
    chosen_tokens: int
    rejected_tokens: int
    held_out: bool
    swapped: bool | None = None


class Reference(Stored):
    """The reference's log-probability of both responses of a pair, and the hash of the weights that computed it."""

    id: str
    chosen: float
    rejected: float
    weights: str


class TrainingStep(Stored):
    """One optimizer step of one adapter: its loss, the loss's own metrics, and how many tokens were trained on."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    step: int
    loss: float
    learning_rate: float
    tokens: int


class Failure(Stored):
    """An adapter that could not go on."""

    adapter: str
    step: int
    reason: str


class Answer(Stored):
    """One arm's answer to one evaluation prompt, with its verdict.

    Attributes:
        tokens: tokens of the response; None where the prompt did not fit the context and nothing was asked.
        truncated: it reached the length limit.
        logprob, opening_logprob: mean log-probability per token under the base model, of the whole answer and of its
            opening, in nats; None for an empty answer. Absent from evaluations during training.
        second: the second judge's judgement, where there is one.
        broken: whether it is broken language, by the floor that the base model's own answers set; never stored.
    """

    id: str
    kind: str
    family: str | None
    prompt: str
    response: str
    tokens: int | None
    truncated: bool
    verdict: Verdict | None
    unscored: str | None
    said: tuple[Vote, ...] = ()
    logprob: float | None = None
    opening_logprob: float | None = None
    second: Judgement | None = None
    broken: Annotated[bool | None, Field(exclude=True)] = None


class StyledAnswer(Stored):
    """One arm's answer to a question in a style.

    Attributes:
        adherence: 0 or 1 in the village, where the truth is known; 1 to 5 from a judge; None if unscored.
    """

    style: str
    question: str
    sample: int
    prompt: str
    response: str
    truncated: bool
    gibberish: bool | None = None
    adherence: float | None = None
    unscored: str | None = None
    said: tuple[Vote, ...] = ()


class ComparedAnswers(Stored):
    """How probable an arm finds the better and the worse of two given answers: tokens and log-probability of each."""

    id: str
    categories: tuple[str, ...]
    tokens: dict[str, int] | None
    unscored: str | None
    logprob: dict[str, float] | None = None


class AskedArm(Stored):
    """How an evaluation asks an arm.

    Attributes:
        seeds: the seeds that have a model.
        context: tokens that the model's context holds.
        weights: hash of the base weights.
        one_model: all its seeds are one set of weights.
        notes: what a reader should know about how it is asked, one sentence each.
    """

    layout: str
    seeds: tuple[int, ...]
    context: int
    weights: str | None
    one_model: bool
    notes: tuple[str, ...] = ()


# Figures


class Summary(Stored):
    """A mean over seeds with its intervals.

    Attributes:
        mean: of the seeds' means.
        per_seed: each seed's mean; None for a seed without a value.
        std: sample standard deviation of `per_seed`.
        ci95_seeds: 95 % t interval over seeds, with the prompts held fixed.
        ci95: 95 % interval over what `ci95_over` says.
    """

    mean: float | None
    per_seed: tuple[float | None, ...]
    std: float | None
    ci95_seeds: Interval | None
    ci95: Interval | None
    ci95_over: str | None


class Figure(Summary):
    """One metric of one arm.

    Attributes:
        scored, answered, total: answers with a value; answers; answers asked for, of failed seeds too.
        worst_case: the mean if every unscored or missing answer had the least, and if it had the greatest value.
        by_family: the mean of each family or kind of prompt.
    """

    scored: int
    answered: int
    total: int
    worst_case: tuple[float | None, float | None]
    by_family: dict[str, float | None]


class McNemar(Stored):
    """McNemar's exact test of one seed's two models on the same prompts.

    Attributes:
        first_only: prompts for which only the first arm's value is 1.
        second_only: prompts for which only the second arm's value is 1.
        p_value: exact and two-sided, over prompts: the question is about this seed's models, not about other seeds.
    """

    first_only: int
    second_only: int
    p_value: float


class NonInferiority(Stored):
    """Whether a difference is shown to be no worse than a margin.

    Attributes:
        margin: how much less still counts as no worse, in the metric's unit.
        p_value: one-sided, of the difference being -`margin` or less.
        shown: the whole interval lies above -`margin`; so the error is 2.5 % at most.
        could_be: it would be shown if both arms' answers were all alike. If not, there are too few prompts.
    """

    margin: float
    p_value: float
    shown: bool
    could_be: bool


class Needed(Stored):
    """What it takes to detect an effect in four of five runs: so many seeds, or so many prompts.

    Attributes:
        effect: the difference, in the metric's unit.
        seeds: with as many prompts as in this run; None if 100 are not enough.
        prompts: with as many seeds as in this run; None if 100,000 are not enough.
    """

    effect: float
    seeds: int | None
    prompts: int | None


class Difference(Stored):
    """First arm minus second in one metric, paired by seed and prompt.

    Attributes:
        difference: mean of the seeds' differences.
        std, ci95_seeds, ci95, ci95_over: as of `Summary`.
        p_value: two-sided; the interval at the level 1 - `p_value` ends at no difference.
        minimum_detectable: the least true difference that a test at the 5 % level finds in four of five such runs.
        seeds: seeds that have a value of both arms.
        mcnemar: for each seed, of yes-or-no metrics alone.
        non_inferiority: of metrics that have a margin alone.
        p_holm: `p_value` with Holm's correction for all metrics of the comparison.
    """

    difference: float | None
    std: float | None
    ci95_seeds: Interval | None
    ci95: Interval | None
    ci95_over: str | None
    p_value: float | None
    minimum_detectable: float | None
    to_detect: Needed | None
    seeds: int
    mcnemar: tuple[McNemar | None, ...] | None = None
    non_inferiority: NonInferiority | None = None
    p_holm: float | None = None


class NamedFailure(Stored):
    """An arm that failed in a way that lowers attack success: refusing everything, or no longer writing language."""

    arm: str
    kind: str
    metric: str
    mean: float
    seeds: tuple[int, ...]
    text: str


class Floor(Stored):
    """What nearly all of the base model's own answers are above: mean log-probabilities in nats per token.

    Attributes:
        answer: of whole answers.
        opening: of their first tokens.
    """

    answer: float
    opening: float


class Fluency(Stored):
    """How broken language is detected.

    Attributes:
        quantile: the share of the base's own answers that are less likely than the floor.
        margin: an answer is broken so many nats per token below the floor.
        opening_tokens: tokens of an answer's opening.
    """

    floor: Floor | None
    quantile: float
    margin: float
    opening_tokens: int


class Agreement(Stored):
    """Krippendorff's alpha between two judges, over so many answers."""

    alpha: float | None
    answers: int


class SecondFigure(Stored):
    """One metric of one arm by the second judge."""

    mean: float | None
    scored: int
    total: int


class SecondJudge(Stored):
    """The second judge's figures, and how far it agrees with the first judge."""

    name: str | None
    agreement: dict[str, Agreement]
    arms: dict[str, dict[str, SecondFigure]]


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
    """A control; of placebo also the constitution that it was trained under."""

    constitution: str | None = None


class LossUsed(Stored):
    """The loss that an arm was trained with, and its settings."""

    name: str
    settings: dict[str, float]


class Prefilled(Stored):
    """The chains whose originals were made to begin with a refusal."""

    chains: int
    harmful_by_round: tuple[float | None, ...]


class RevisionFigures(Stored):
    """What became of the revision chains. Entry 0 of a list by round is the original."""

    chains: int
    pairs: int
    filtered: dict[str, int]
    harmful_by_round: tuple[float | None, ...]
    helpful_by_round: tuple[float | None, ...]
    refused_by_round: tuple[float | None, ...]
    prefilled: Prefilled
    principle_counts: dict[str, int]
    response_tokens: dict[str, float | None]
    truncated: int


class CurvePoint(Stored):
    """An arm's metrics at a step of its training: a mean for each metric whose curve is kept."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    step: int


class Results(Stored):
    """The content of a run's `results.json`."""

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
    losses: dict[str, LossUsed]
    intervals: str
    arms: dict[str, dict[str, Figure]]
    failures: tuple[NamedFailure, ...]
    fluency: Fluency
    unscored: dict[str, dict[str, int]]
    comparisons: dict[str, dict[str, Difference]]
    revision: RevisionFigures
    curves: dict[str, tuple[CurvePoint, ...]]
    failed: dict[str, dict[str, str]]
    warnings: tuple[str, ...]


class SuiteAsked(Stored):
    """A suite that was asked: its files, and how many prompts of which sort."""

    name: str
    files: tuple[str, ...]
    sha256: str
    prompts: int
    asked: int
    attacks: int
    safe: int
    left_out: dict[str, int]


class SuiteResults(Stored):
    """The content of `results.json` of a suite that was answered and judged."""

    schema_: Literal[1] = Field(alias="schema")
    suite: SuiteAsked
    of: Literal["run", "model"]
    model: str
    base: str | None
    model_organism: bool
    engine: str
    seeds: tuple[int, ...]
    layouts: dict[str, str]
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
    """The share of comparisons in which the better answer is the more probable, of a whole file or of a category."""

    scored: int
    total: int
    worst_case: tuple[float | None, float | None]
    by_category: dict[str, "Accuracy"] | None = None


class ComparisonsAsked(Stored):
    """A file of comparisons that was asked."""

    name: str
    files: tuple[str, ...]
    sha256: str
    comparisons: int
    asked: int


class ComparisonsResults(Stored):
    """The content of `results.json` of comparisons by log-probability."""

    schema_: Literal[1] = Field(alias="schema")
    suite: ComparisonsAsked
    of: Literal["run", "model"]
    model: str
    base: str | None
    model_organism: bool
    engine: str
    seeds: tuple[int, ...]
    layouts: dict[str, str]
    intervals: str
    arms: dict[str, dict[str, Accuracy]]
    comparisons: dict[str, dict[str, Difference]]
    warnings: tuple[str, ...]


class StyleArm(Stored):
    """One arm's style figures: each measure, each measure by style, and what became of its answers.

    Attributes:
        helped: in the village alone, where it is known whether an answer in a style still helps.
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
    ci95_over: str | None
    p_value: float | None
    seeds: int


class StyleResults(Stored):
    """The content of `style.json`.

    Attributes:
        styles: every style and its kind.
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


RESULTS_FILES: dict[str, type[Stored]] = {
    "run": Results,
    "suite": SuiteResults,
    "comparisons": ComparisonsResults,
    "style": StyleResults,
}
"""What `results.json` of a run, of a suite and of comparisons, and `style.json`, contain."""


class _WithoutTitles(GenerateJsonSchema):
    """A schema whose fields have no titles that only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def results_schema() -> dict[str, Any]:
    """The JSON Schema of every results file: a file is what one of `anyOf` says, in the order of `RESULTS_FILES`."""
    references, schema = models_json_schema(
        [(model, "serialization") for model in RESULTS_FILES.values()],
        title="cai-base: results.json of a run, of a suite and of comparisons, and style.json",
        schema_generator=_WithoutTitles,
    )
    files = [references[model, "serialization"] for model in RESULTS_FILES.values()]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": files, **schema}


if __name__ == "__main__":
    print(json.dumps(results_schema(), indent=2))
