"""The figures of `results.json`, computed from an arm's stored answers by the metrics of the task `prompts`.

A new metric is an entry of `tasks.prompts.METRICS`: tables, pages, figures, comparisons, coverage and logs are derived
from it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cai_base.errors import UserError
from cai_base.evaluation.measures import Metric
from cai_base.evaluation.scoring import Scorable
from cai_base.evaluation.statistics import holm, mean, paired, scaled, summary
from cai_base.evaluation.statistics.crossed import Array
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.inputs.kinds import JAILBREAK
from cai_base.reading import listed, quote, suggestion
from cai_base.records import HELPFULNESS, Difference, Figure, Interval
from cai_base.settings.schema import Evaluation

PerSeed = Sequence[Sequence[Scorable] | None]
"""Every seed's answers of one arm; None in place of a seed that failed."""


def check_primary(names: Sequence[str]) -> None:
    """Raise UserError if these are not names of metrics, each once."""
    for place, name in enumerate(names):
        if name not in METRICS:
            remedy = suggestion(name, METRICS) or f"the metrics are {listed(list(METRICS))}"
            raise UserError(f"--evaluation.primary {quote(name)}: is not a metric; {remedy}")
        if name in names[:place]:
            raise UserError(f"--evaluation.primary: {name} occurs twice; name each metric once")


def figures(
    per_seed: PerSeed, kinds: Sequence[str] = (), *, one_model: bool = False, names: Iterable[str] = METRICS
) -> dict[str, Figure]:
    """Every metric of one arm, or those of these names.

    Args:
        kinds: the kind of every evaluation prompt, the same for each seed. The prompts that a failed seed did not
            answer are counted in `total` and in the worst case, not in `answered`.
        one_model: all seeds sample from the same weights, as for the base model.
    """
    return {name: _figure(METRICS[name], per_seed, kinds, one_model) for name in names}


def margins(settings: Evaluation) -> dict[str, float]:
    """The non-inferiority margin of each metric that is tested for non-inferiority, in the metric's unit."""
    return {HELPFULNESS: settings.helpfulness_margin}


def means(answers: Iterable[Scorable]) -> dict[str, float]:
    """The mean of every metric that some answer has a value of, over the answers of one arm. Each is read once."""
    values: dict[str, list[float]] = {name: [] for name in METRICS}
    for answer in answers:
        for name, metric in METRICS.items():
            if answer.kind in metric.kinds and (value := metric.value(answer)) is not None:
                values[name].append(value)
    return {name: value for name, of_metric in values.items() if (value := mean(of_metric)) is not None}


def without_empty_optional(arms: Mapping[str, Mapping[str, Figure]]) -> dict[str, dict[str, Figure]]:
    """The arms without the optional metrics of which no arm has a scored answer."""
    names = [
        name
        for name, metric in METRICS.items()
        if not metric.optional or any(arm[name].scored for arm in arms.values())
    ]
    return {arm: {name: by_metric[name] for name in names} for arm, by_metric in arms.items()}


def _figure(metric: Metric, per_seed: PerSeed, kinds: Sequence[str], one_model: bool) -> Figure:
    of_mean = _of_kinds(per_seed, metric.kinds)
    answers = [answer for of_seed in of_mean if of_seed is not None for answer in of_seed]
    separate = [a for of_seed in _of_kinds(per_seed, metric.families) if of_seed is not None for a in of_seed]
    missing = of_mean.count(None) * sum(kind in metric.kinds for kind in kinds)
    prompts = _prompts(of_mean)
    over_seeds = summary(
        _table(metric, of_mean, prompts),
        metric.range,
        one_model=one_model,
        families=_families(metric, prompts, of_mean),
    )
    return Figure(
        **over_seeds.model_copy(update={"ci95": _possible(metric, over_seeds.ci95)}).model_dump(exclude_unset=True),
        scored=len(_values(metric, answers)),
        answered=len(answers),
        total=len(answers) + missing,
        worst_case=_worst_case(metric, answers, missing),
        by_family=_by_family(metric, [*answers, *separate]),
    )


def _possible(metric: Metric, interval: Interval | None) -> Interval | None:
    """The part of an interval that is possible: the t interval of a length may reach below 0."""
    if interval is None:
        return None
    least, greatest = metric.bounds or metric.limits
    return max(interval[0], least), min(interval[1], greatest)


def _of_kinds(per_seed: PerSeed, kinds: Sequence[str]) -> list[list[Scorable] | None]:
    """The answers to prompts of these kinds."""
    return [None if answers is None else [a for a in answers if a.kind in kinds] for answers in per_seed]


def _prompts(*arms: PerSeed) -> list[str]:
    """The ids of all prompts that any seed of these arms answered, in the order of first occurrence."""
    return list(dict.fromkeys(a.id for per_seed in arms for answers in per_seed for a in answers or ()))


def _families(metric: Metric, prompts: Sequence[str], *arms: PerSeed) -> list[str]:
    """The family of every prompt, for a metric whose prompts have families; else none.

    A prompt without a family beside others that have one counts as a family of its own.
    """
    if metric.kinds != (JAILBREAK,):
        return []
    by_prompt = {a.id: a.family for per_seed in arms for answers in per_seed for a in answers or ()}
    return [by_prompt[prompt] or prompt for prompt in prompts]


def _table(metric: Metric, per_seed: PerSeed, prompts: Sequence[str]) -> Array:
    """The metric's values [seeds, prompts], NaN where there is none."""
    rows = [{answer.id: metric.value(answer) for answer in answers or ()} for answers in per_seed]
    cells = [[row.get(prompt) for prompt in prompts] for row in rows]
    return np.array(cells, dtype=float).reshape(len(rows), len(prompts))


def _values(metric: Metric, answers: Sequence[Scorable]) -> list[float]:
    return [value for value in map(metric.value, answers) if value is not None]


def _worst_case(metric: Metric, answers: Sequence[Scorable], missing: int) -> tuple[float | None, float | None]:
    """The mean if every unscored or missing answer had the least, and if it had the greatest possible value."""
    values = _values(metric, answers)
    unknown = len(answers) - len(values) + missing
    if metric.bounds is None:
        measured = None if unknown else mean(values)
        return measured, measured
    least, greatest = metric.bounds
    return mean([*values, *[least] * unknown]), mean([*values, *[greatest] * unknown])


def _by_family(metric: Metric, answers: Sequence[Scorable]) -> dict[str, float | None]:
    families: dict[str, list[Scorable]] = {}
    for answer in answers:
        families.setdefault(answer.family or answer.kind, []).append(answer)
    return {name: mean(_values(metric, of_family)) for name, of_family in families.items()}


def of_families(per_seed: PerSeed, families: Sequence[str], *, among: bool) -> PerSeed:
    """The answers to jailbreak prompts of these families or, if not `among`, of all others."""
    return [
        None if answers is None else [a for a in answers if a.kind == JAILBREAK and (a.family in families) == among]
        for answers in per_seed
    ]


def unscored_by_reason(per_seed: PerSeed) -> dict[str, int]:
    """How many of an arm's answers lack a verdict or a part of one, by reason."""
    counts = Counter(answer.unscored for answers in per_seed for answer in answers or () if answer.unscored)
    return dict(sorted(counts.items()))


def compare(
    first: PerSeed,
    second: PerSeed,
    names: Iterable[str],
    margins: Mapping[str, float],
    *,
    one_model: tuple[bool, bool] = (False, False),
) -> dict[str, Difference]:
    """First arm minus second, metric by metric, paired by seed and prompt, with p values corrected across the metrics.

    Args:
        names: the metrics to compare.
        margins: the non-inferiority margin of each metric that is tested for non-inferiority, in the metric's unit.
        one_model: of each arm, whether all its seeds sample from the same weights, as for the base model.
    """
    differences = {name: _difference(METRICS[name], first, second, margins.get(name), one_model) for name in names}
    corrected = holm([difference.p_value for difference in differences.values()])
    return {
        name: difference.model_copy(update={"p_holm": p})
        for (name, difference), p in zip(differences.items(), corrected, strict=True)
    }


def correct_primary(
    comparisons: Sequence[Mapping[str, Difference]], primary: Sequence[str]
) -> list[dict[str, Difference]]:
    """The comparisons, with the p values of the primary metrics corrected over all of them (Holm).

    With families of prompts as a sample they are corrected once more, with the p values over families in the place of
    those that have one.
    """
    places = [(place, name) for place, by_metric in enumerate(comparisons) for name in primary if name in by_metric]
    differences = [comparisons[place][name] for place, name in places]
    samples = [difference.over_families for difference in differences]
    plain = [difference.p_value for difference in differences]
    over_families = [p if sample is None else sample.p_value for p, sample in zip(plain, samples, strict=True)]
    corrected = [dict(by_metric) for by_metric in comparisons]
    for (place, name), sample, p, p_over in zip(places, samples, holm(plain), holm(over_families), strict=True):
        update: dict[str, object] = {"p_primary": p}
        if sample is not None:
            update["over_families"] = sample.model_copy(update={"p_primary": p_over})
        corrected[place][name] = corrected[place][name].model_copy(update=update)
    return corrected


def compare_means(
    first: Sequence[PerSeed],
    second: Sequence[PerSeed],
    scale: int,
    margins: Mapping[str, float],
    *,
    one_model: tuple[Sequence[bool], Sequence[bool]],
) -> dict[str, Difference]:
    """The mean of some arms minus the mean of others, every metric, paired by seed and prompt.

    A prompt counts for a seed if every arm has a value for it.

    Args:
        first, second: the arms' answers, all with the same seeds.
        scale: the differences are multiplied by it.
        margins: as for `compare`; not used where `scale` is not 1.
        one_model: of each arm, whether all its seeds sample from the same weights, as for the base model.
    """
    single = scale == len(first) == len(second) == 1
    all_one = all(one_model[0]), all(one_model[1])
    differences = {}
    for name, metric in METRICS.items():
        sides = [[_of_kinds(arm, metric.kinds) for arm in arms] for arms in (first, second)]
        prompts = _prompts(*(arm for side in sides for arm in side))
        minuend, subtrahend = (
            np.mean(
                [
                    _varying(_table(metric, arm, prompts), one and not every)
                    for arm, one in zip(side, ones, strict=True)
                ],
                axis=0,
            )
            for side, ones, every in zip(sides, one_model, all_one, strict=True)
        )
        margin = margins.get(name) if scale == 1 else None
        families = _families(metric, prompts, *(arm for side in sides for arm in side))
        binary = metric.binary and single
        one = paired(minuend, subtrahend, metric.range, binary, margin, families, one_model=all_one)
        differences[name] = scaled(one, scale)
    return differences


def _varying(table: Array, of_one_model: bool) -> Array:
    """The table with only what varies between seeds: of one model's samples each prompt's mean over those scored."""
    if not of_one_model:
        return table
    scored = ~np.isnan(table)
    means = np.divide(
        np.nansum(table, axis=0), scored.sum(axis=0), where=scored.any(axis=0), out=np.full(table.shape[1], np.nan)
    )
    return np.where(scored, means, np.nan)


def _difference(
    metric: Metric, first: PerSeed, second: PerSeed, margin: float | None, one_model: tuple[bool, bool]
) -> Difference:
    first, second = _of_kinds(first, metric.kinds), _of_kinds(second, metric.kinds)
    prompts = _prompts(first, second)
    tables = _table(metric, first, prompts), _table(metric, second, prompts)
    families = _families(metric, prompts, first, second)
    return paired(*tables, metric.range, metric.binary, margin, families, one_model=one_model)
