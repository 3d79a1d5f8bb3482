"""The figures in the results files: means with intervals, differences with tests, named failures, agreement."""

from cai_base.records.stored import Stored

Interval = tuple[float, float]
"""Lower and upper end."""


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
