"""Computes `style.json` from the stored answers in styles. Equal evaluations give equal bytes."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from cai_base import arms
from cai_base.evaluation.judges.load import judge_name
from cai_base.evaluation.statistics import mean, paired, summary
from cai_base.evaluation.statistics.crossed import Array
from cai_base.evaluation.tasks.style_sets import STYLE_KINDS
from cai_base.evaluation.tasks.styles import StylesTask
from cai_base.records import Difference, StyleAnswer, StyleArm, StyledAnswer, StyleResults
from cai_base.run.results import shared as shared_results
from cai_base.run.results.shared import EvaluationContext

KEEPS = arms.pair_name(arms.FULL, arms.INSTRUCT)
"""The comparison that answers the question of every style evaluation."""
QUESTION = "Does base-derived CAI keep more style than the instruct model?"
INTERVALS = (
    "95 % intervals over seeds and styled prompts (a question in a style), as crossed factors; over prompts only with "
    "one seed, and for the base model and the instruct model, which are one set of weights each. "
    "A difference from one of them varies between seeds as the trained arm does"
)


def collect(
    about: EvaluationContext, answers: Mapping[str, Sequence[Sequence[StyledAnswer] | None]], task: StylesTask
) -> StyleResults:
    """The content of `style.json`.

    Args:
        answers: of every arm by seed; None for a seed that failed.
    """
    tables = {arm: task.tables(per_seed) for arm, per_seed in answers.items()}
    differences = {
        arms.pair_name(a, b): {
            name: paired(
                tables[a][name],
                tables[b][name],
                bounds,
                one_model=(arms.arm(a).one_model, arms.arm(b).one_model),
            )
            for name, bounds in task.measures.items()
        }
        for a, b in _comparisons(list(answers))
    }
    return StyleResults(
        **shared_results.head(about.model, about.seeds),
        data=about.data,
        judge=judge_name(about.judges["judge"].judge) if task.styles.truth is None else task.styles.truth.name,
        styles=dict(STYLE_KINDS),
        questions=dict(task.questions),
        samples=task.samples,
        adherence_range=task.measures["adherence"],
        chance=1 / len(STYLE_KINDS),
        intervals=INTERVALS,
        arms={
            name: _arm(task, tables[name], [one for of_seed in per_seed for one in of_seed or ()], arms.arm(name))
            for name, per_seed in answers.items()
        },
        comparisons=differences,
        keeps_more_style=keeps_more_style(differences.get(KEEPS)),
    )


def _comparisons(names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of arms to compare.

    The usual comparisons; each trained arm with the base model it came from; each arm that is not a control with the
    models that were tuned elsewhere.
    """
    present = [arms.arm(name) for name in names]
    pairs = arms.comparisons(names)
    pairs += [(one.name, start) for start in arms.named("start") if start in names for one in present if one.curve]
    elsewhere = [name for name in arms.named("other") if name in names]
    pairs += [(one.name, other) for other in elsewhere for one in present if one.group in ("start", "trained")]
    return list(dict.fromkeys(pairs))


def keeps_more_style(differences: Mapping[str, Difference] | None) -> StyleAnswer | None:
    """Whether full CAI keeps more style than the instruct model, judged by the interval of the difference in
    adherence."""
    if differences is None:
        return None
    difference = differences["adherence"]
    interval = difference.ci95
    if interval is None:
        answer = "unscored" if difference.difference is None else "no interval"
    else:
        answer = "yes" if interval[0] > 0 else "no, less" if interval[1] < 0 else "cannot be told"
    return StyleAnswer(
        question=QUESTION,
        answer=answer,
        comparison=KEEPS,
        measure="adherence",
        difference=difference.difference,
        ci95=interval,
        ci95_over=difference.ci95_over,
        p_value=difference.p_value,
        seeds=difference.seeds,
    )


def _arm(task: StylesTask, tables: Mapping[str, Array], answers: Sequence[StyledAnswer], arm: arms.Arm) -> StyleArm:
    columns = {style: [n for n, prompt in enumerate(task.prompts) if prompt.style == style] for style in STYLE_KINDS}
    summaries = {name: summary(table, task.measures[name], one_model=arm.one_model) for name, table in tables.items()}
    return StyleArm.model_validate(
        {
            **summaries,
            "by_style": {
                style: {name: _mean(table[:, of_style]) for name, table in tables.items()}
                for style, of_style in columns.items()
            },
            "answers": len(answers),
            "scored": sum(one.adherence is not None for one in answers),
            "truncated": sum(one.truncated for one in answers),
            "unscored": dict(sorted(Counter(one.unscored for one in answers if one.unscored).items())),
        }
    )


def _mean(cells: Array) -> float | None:
    return mean(cells[~np.isnan(cells)].tolist())
