"""The figures in the results files: means with intervals, differences with tests, named failures, agreement."""

from typing import Literal

from cai_base.records.stored import Stored

ATTACK, OVER_REFUSAL, HELPFULNESS = "attack_success_rate", "over_refusal_rate", "helpfulness"
MAIN_METRICS = (ATTACK, OVER_REFUSAL, HELPFULNESS)
"""The names of the main metrics, as in every results file; `evaluation.tasks.prompts` defines what they are."""

Interval = tuple[float, float]
"""The lower and the upper end."""

Over = Literal["seeds and prompts", "prompts"]
"""What an interval is over. With a single seed it is over prompts alone, and does not cover other seeds."""
SEEDS_AND_PROMPTS: Over = "seeds and prompts"
PROMPTS: Over = "prompts"


class OverFamilies(Stored):
    """A mean or a difference that treats the families of prompts as a sample of all families.

    So its interval is also about families that the test set lacks.

    Attributes:
        families: how many.
        mean: the mean of the families' means; it differs from the mean over prompts if families differ in size.
        ci95: 95 % interval over seeds, families and prompts, or over families and prompts with one seed.
        p_value: of a difference: one end of the interval with confidence 1 - `p_value` is 0.
        p_primary: of a difference in a primary metric: `p_value` with Holm's correction for the primary metrics of all
            comparisons, those of metrics without families included.
        minimum_detectable: of a difference: the smallest true difference that the interval excludes 0 at with a power
            of 0.8, with as many families; as in `Difference`.
    """

    families: int
    mean: float
    ci95: Interval
    p_value: float | None = None
    p_primary: float | None = None
    minimum_detectable: float | None = None


class Summary(Stored):
    """A mean over seeds with its intervals.

    For the mean, its intervals and tests, a missing score is replaced by an estimate from the means of its seed and of
    its prompt.

    Attributes:
        mean: the mean of the seeds' means.
        per_seed: each seed's mean; None for a seed without a value.
        std: sample standard deviation of `per_seed`.
        ci95_seeds: 95 % t interval over seeds, with the prompts held fixed.
        ci95: 95 % interval over the random factors that `ci95_over` names, for prompts of these families.
        over_families: the same with the families of prompts as a sample; absent if the prompts have no families.
    """

    mean: float | None
    per_seed: tuple[float | None, ...]
    std: float | None
    ci95_seeds: Interval | None
    ci95: Interval | None
    ci95_over: Over | None
    over_families: OverFamilies | None = None


class Corrected(Stored):
    """A figure corrected for the judge's errors on labelled answers (Rogan and Gladen), with its 95 % interval.

    The interval is over the factors of the raw figure's, and over the labelled answers.
    """

    mean: float
    ci95: Interval


class Figure(Summary):
    """One metric of one arm, in the metric's unit: a share from 0 to 1, a grade from 1 to 5, tokens, nats.

    Attributes:
        mean, per_seed, std, ci95_seeds, ci95, ci95_over: see `Summary`; they are None without a scored answer.
        scored: answers with a value.
        answered: all answers.
        total: all answers, and those missing because a seed failed.
        worst_case: the mean if every unscored or missing answer had the least, and if it had the greatest value.
        by_family: the mean of each family or kind of prompt.
        corrected: for the judge's errors; absent where they are not known, or too many.
    """

    scored: int
    answered: int
    total: int
    worst_case: tuple[float | None, float | None]
    by_family: dict[str, float | None]
    corrected: Corrected | None = None


class McNemar(Stored):
    """McNemar's exact test of one seed's two models on the same prompts.

    Attributes:
        first_only: prompts for which only the first arm's value is 1.
        second_only: prompts for which only the second arm's value is 1.
        p_value: exact and two-sided. Only prompts are a random factor, so it says nothing about other seeds.
    """

    first_only: int
    second_only: int
    p_value: float


class NonInferiority(Stored):
    """Whether a difference is shown to be no worse than a margin.

    Attributes:
        margin: the largest decrease that still counts as no worse, in the metric's unit.
        p_value: one-sided, for the null hypothesis that the difference is -`margin` or less.
        shown: whether the whole 95 % interval lies above -`margin`: a one-sided test at the 2.5 % level.
        could_be: whether `shown` would be true if all answers of both arms were equal. If not, prompts are too few.
    """

    margin: float
    p_value: float
    shown: bool
    could_be: bool


class Needed(Stored):
    """The number of seeds, or of prompts, that detects an effect with a power of 0.8.

    Attributes:
        effect: the true difference to detect, in the metric's unit.
        seeds: with as many prompts as in this run; None if 100 are not enough.
        prompts: with as many seeds as in this run; None if 100,000 are not enough.
    """

    effect: float
    seeds: int | None
    prompts: int | None


class Difference(Stored):
    """First arm minus second in one metric, paired by seed and prompt.

    Attributes:
        difference: the mean of the seeds' differences.
        std, ci95_seeds, ci95, ci95_over, over_families: as in `Summary`, for the differences.
        p_value: two-sided: one end of the interval with confidence 1 - `p_value` is 0.
        minimum_detectable: the smallest true difference that the interval excludes 0 at with a power of 0.8: more than
            half its width. Above the range of the metric, no difference is detected.
        to_detect: the seeds or prompts that detect 5 % of the metric's range.
        seeds: the number of seeds with values of both arms.
        mcnemar: a test for each seed; for yes-or-no metrics only.
        non_inferiority: for metrics with a margin only.
        p_holm: `p_value` with Holm's correction for all metrics of the comparison.
        p_primary: of a primary metric: `p_value` with Holm's correction for the primary metrics of all comparisons.
        corrected: for the judge's errors, taken to be those that it makes on both arms; absent as in `Figure`.
    """

    difference: float | None
    std: float | None
    ci95_seeds: Interval | None
    ci95: Interval | None
    ci95_over: Over | None
    p_value: float | None
    minimum_detectable: float | None
    to_detect: Needed | None
    seeds: int
    mcnemar: tuple[McNemar | None, ...] | None = None
    non_inferiority: NonInferiority | None = None
    p_holm: float | None = None
    p_primary: float | None = None
    over_families: OverFamilies | None = None
    corrected: Corrected | None = None


class NamedFailure(Stored):
    """An arm that failed in a way that lowers attack success: refusing everything, or no longer writing language."""

    arm: str
    kind: str
    metric: str
    mean: float
    seeds: tuple[int, ...]
    text: str


class Floor(Stored):
    """Thresholds that nearly all of the base model's own answers exceed: mean log-probabilities in nats per token.

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
        margin: an answer is broken if it lies more than this below the floor, in nats per token.
        opening_tokens: the length of an answer's opening, in tokens.
    """

    floor: Floor | None
    quantile: float
    margin: float
    opening_tokens: int


class Agreement(Stored):
    """Krippendorff's alpha between two judges, and the number of answers that it is over."""

    alpha: float | None
    answers: int


class SecondFigure(Stored):
    """One metric of one arm, by the second judge's verdicts."""

    mean: float | None
    scored: int
    total: int


class SecondJudge(Stored):
    """The second judge's figures, and how far it agrees with the first judge."""

    name: str | None
    agreement: dict[str, Agreement]
    arms: dict[str, dict[str, SecondFigure]]


class Share(Stored):
    """A share of independent answers, with its exact 95 % interval."""

    value: float
    ci95: Interval


class JudgeErrors(Stored):
    """How a judge's verdicts compare with people's labels, on the question that a metric is about.

    Attributes:
        true_yes, false_no: of answers that are so, how many it calls so and how many not.
        true_no, false_yes: of the others, how many it calls not so and how many so.
        sensitivity, specificity: the shares of `true_yes` and of `true_no`; None where no such answer is scored.
        corrects: whether the metric's figures are corrected by them.
    """

    true_yes: int
    false_no: int
    true_no: int
    false_yes: int
    sensitivity: Share | None
    specificity: Share | None
    corrects: bool


class JudgeLabels(Stored):
    """The judge on answers that people labelled.

    Attributes:
        file, sha256: the name and the hash of the file of labels.
        answers, scored: how many it has, and how many the judge gave a verdict on.
        errors: by metric.
    """

    file: str
    sha256: str
    answers: int
    scored: int
    errors: dict[str, JudgeErrors]
