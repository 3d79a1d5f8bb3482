"""Checks of a results file that its field types do not cover: every arm and metric is known, and none is missing.

An arm or a metric that this version does not know is an error here, since no table could show it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from cai_base.arms import ARMS, BASE, BASELINE, SFT, arm, comparisons, named, pair_name
from cai_base.errors import UserError
from cai_base.evaluation.measures import Metric
from cai_base.evaluation.tasks.comparisons import VALUES
from cai_base.evaluation.tasks.prompts import CURVES, METRICS
from cai_base.reading import RESTORE
from cai_base.records import (
    ComparisonsResults,
    Difference,
    Figure,
    Results,
    SecondJudge,
    StyleResults,
    SuiteResults,
)
from cai_base.settings.engines import ENGINES
from cai_base.settings.judges import JUDGE_KINDS, JudgeName
from cai_base.settings.schema import LOSSES, RunSettings


def check_arms(file: Path, names: Iterable[str]) -> None:
    """Raise UserError if an arm is unknown."""
    for name in names:
        try:
            arm(name)
        except UserError as error:
            raise UserError(f"{file}: arms: {error}") from None


def check_figures(file: Path, results: Results | SuiteResults) -> None:
    """Check the arms, their metrics and their comparisons.

    Raises:
        UserError: an arm or a metric is unknown, the arms differ in their metrics, a metric lacks a value for a seed,
            or a comparison is missing.
    """
    for field in ("seeds", "arms"):
        if not getattr(results, field):
            raise UserError(f"{file}: {field}: must not be empty; {RESTORE}")
    names = list(next(iter(results.arms.values())))
    check_arms(file, results.arms)
    for name, figures in results.arms.items():
        for metric, figure in figures.items():
            if metric not in METRICS:
                raise UserError(
                    f"{file}: arms.{name}: the metric {metric!r} is unknown to this version, so no table could show "
                    f"it; the metrics are {', '.join(METRICS)}"
                )
            _check_values(file, f"arms.{name}.{metric}", METRICS[metric], figure)
            if len(figure.per_seed) != len(results.seeds):
                raise UserError(
                    f"{file}: arms.{name}.{metric}.per_seed: must have a value for each of {len(results.seeds)} seeds; "
                    f"{RESTORE}"
                )
        _check_metrics(file, f"arms.{name}", figures, names)
    _check_families(file, results.arms)
    _check_known(file, "engine", results.engine, ENGINES)
    check_judge_names(file, results.judge, results.second_judge)
    check_pairs(file, results.arms, results.comparisons)
    for pair, differences in results.comparisons.items():
        _check_metrics(file, f"comparisons.{pair}", differences, names)
        for metric, difference in differences.items():
            _check_interval(file, f"comparisons.{pair}.{metric}", difference)
    for phase, reasons in results.failed.items():
        _check_known(file, "failed", phase, [one.folder for one in ARMS.values() if one.folder])
        for seed in reasons:
            _check_known(file, f"failed.{phase}", seed, [str(one) for one in results.seeds])
    for failure in results.failures:
        if failure.arm not in results.arms:
            raise UserError(f"{file}: failures: the arm {failure.arm!r} has no figures; {RESTORE}")


def check_judge_names(file: Path, judge: str | None, second: SecondJudge | None = None) -> None:
    """Raise UserError if a judge is of an unknown kind, or the second one judged an unknown arm."""
    for field, name in (("judge", judge), ("second_judge.name", None if second is None else second.name)):
        if name is not None:
            _check_known(file, field, JudgeName(name).kind_name, JUDGE_KINDS)
    if second is not None:
        check_arms(file, second.arms)


def _check_values(file: Path, field: str, metric: Metric, figure: Figure) -> None:
    """Raise UserError if a mean is outside the limits of its metric, or an interval's ends are in the wrong order."""
    means = {
        "mean": figure.mean,
        **{f"per_seed.{place}": value for place, value in enumerate(figure.per_seed)},
        **{f"by_family.{name}": value for name, value in figure.by_family.items()},
    }
    for name, value in means.items():
        if value is not None and not metric.allows(value):
            raise UserError(f"{file}: {field}.{name}: {value:g} is not a possible {metric.label.lower()}; {RESTORE}")
    _check_interval(file, field, figure)


def _check_interval(file: Path, field: str, figure: Figure | Difference) -> None:
    if (figure.ci95 is None) != (figure.ci95_over is None):
        raise UserError(f"{file}: {field}.ci95_over: must be there if ci95 is, and only then; {RESTORE}")
    for name, ends in (("ci95", figure.ci95), ("ci95_seeds", figure.ci95_seeds)):
        if ends is not None and ends[0] > ends[1]:
            raise UserError(f"{file}: {field}.{name}: its lower end is above its upper end; {RESTORE}")


def _check_families(file: Path, arms: Mapping[str, Mapping[str, Figure]]) -> None:
    """Raise UserError unless all arms with answers have the same prompt families."""
    families: dict[str, set[str]] = {}
    for name, figures in arms.items():
        for metric, figure in figures.items():
            if figure.answered and set(figure.by_family) != families.setdefault(metric, set(figure.by_family)):
                raise UserError(
                    f"{file}: arms.{name}.{metric}.by_family: must have the same families as the other arms; {RESTORE}"
                )


def _check_metrics(
    file: Path, field: str, figures: Mapping[str, Figure] | Mapping[str, Difference], names: list[str]
) -> None:
    if set(figures) != set(names):
        other = ", ".join(sorted(set(figures) ^ set(names)))
        raise UserError(
            f"{file}: {field}: every arm and comparison must have the same metrics; only some have {other}; {RESTORE}"
        )


def check_pairs(file: Path, arms: Mapping[str, object], pairs: Iterable[str]) -> None:
    """Raise UserError unless the arms are known and `pairs` are exactly the comparisons that belong to them."""
    check_arms(file, arms)
    expected = {pair_name(first, second) for first, second in comparisons(arms)}
    other = sorted(expected ^ set(pairs))
    if other:
        problem = "is missing" if other[0] in expected else "is not a comparison of these arms"
        raise UserError(f"{file}: comparisons: {other[0]!r} {problem}; {RESTORE}")


def check_comparisons(file: Path, results: ComparisonsResults) -> None:
    """Raise UserError unless every arm has both accuracies, of the same categories, and no comparison is missing."""
    check_pairs(file, results.arms, results.comparisons)
    accuracies = [(name, value, arm.get(value)) for name, arm in results.arms.items() for value in VALUES]
    categories = {value: None if one is None else set(one.by_category or ()) for _, value, one in reversed(accuracies)}
    for name, value, one in accuracies:
        if one is None or set(one.by_category or ()) != categories[value]:
            raise UserError(f"{file}: arms.{name}.{value}: must have the same categories as the other arms; {RESTORE}")
    if not accuracies:
        raise UserError(f"{file}: arms: must not be empty; {RESTORE}")


def check_style(file: Path, results: StyleResults) -> None:
    """Raise UserError if an arm is unknown, or a comparison is not of these arms."""
    check_arms(file, results.arms)
    check_judge_names(file, results.judge)
    pairs = {pair_name(first, second) for first in results.arms for second in results.arms}
    for pair in results.comparisons:
        if pair not in pairs:
            raise UserError(f"{file}: comparisons: {pair!r} is not a comparison of these arms; {RESTORE}")


def _check_known(file: Path, field: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise UserError(f"{file}: {field}: {name!r} is unknown to this version; it knows {', '.join(known)}")


def check_run(file: Path, results: Results) -> None:
    """Raise UserError if one of a run's arms, curves or revision rounds is missing, or a name is unknown."""
    for name in (BASE, BASELINE):
        if name not in results.arms:
            raise UserError(f"{file}: arms: {name!r} is missing; every other arm is compared with it; {RESTORE}")
    _check_known(file, "protocol", results.protocol, get_args(RunSettings.model_fields["protocol"].annotation))
    for name, loss in results.losses.items():
        _check_known(file, "losses", name, results.arms)
        _check_known(file, f"losses.{name}.name", loss.name, ("nll", *LOSSES))
    for name, compared in (results.pairwise or {}).items():
        _check_known(file, "pairwise", name, results.arms)
        _check_known(file, f"pairwise.{name}.compared_with", compared.compared_with, results.arms)
    for name in results.controls:
        _check_known(file, "controls", name, named("control"))
    folders = {ARMS[name].folder for name in results.arms if ARMS[name].curve}
    for phase in sorted({SFT} | set(results.curves)):
        if phase not in folders or not results.curves.get(phase):
            raise UserError(f"{file}: curves.{phase}: must be the points of an arm that was trained; {RESTORE}")
    for phase, points in results.curves.items():
        for point in points:
            values = point.model_extra or {}
            for metric in values:
                _check_known(file, f"curves.{phase}", metric, CURVES)
            for metric in CURVES:
                if not isinstance(values.get(metric, ""), int | float | None):
                    raise UserError(f"{file}: curves.{phase}: {metric} must be a number at every step; {RESTORE}")
    revision = results.revision
    lengths = {len(revision.harmful_by_round), len(revision.helpful_by_round), len(revision.refused_by_round)}
    if len(lengths) > 1 or not revision.prefilled.harmful_by_round:
        raise UserError(f"{file}: revision: every list by round must have a value for each round; {RESTORE}")
    for side in ("chosen", "rejected"):
        if side not in revision.response_tokens:
            raise UserError(f"{file}: revision.response_tokens: {side} is missing; {RESTORE}")
