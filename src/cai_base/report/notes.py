"""Notes beside the main table, a sentence each: what intervals are over, and what the run could detect."""

from cai_base.arms import ARMS, BASELINE, pair_name
from cai_base.evaluation.judges.refusal_phrases import ABOUT, RefusalPhrases
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.records import ATTACK, HELPFULNESS, SEEDS_AND_PROMPTS, Results, Share, SuiteResults
from cai_base.report.headline import main_arm
from cai_base.report.labels import label
from cai_base.report.numbers import NONE, RATE, interval, number, percent
from cai_base.report.tables import CORRECTED, difference_cell, known_metrics, main_table, metrics_of
from cai_base.settings.judges import NO_JUDGE
from cai_base.text import counted, one_line

T_QUANTILES = {2: "12.7", 3: "4.3"}
"""The t quantile of a 95 % interval over few seeds; with ten it is 2.3."""


def notes(results: Results) -> list[str]:
    """The notes beside the main table: the intervals, non-inferiority in helpfulness, unseen families and power."""
    return [
        *unknown(results),
        *judge_note(results.judge, None if results.second_judge is None else results.second_judge.name),
        interval_note(results),
        *_judge_labels(results),
        *_unseen(results),
        *_no_less_helpful(results),
        *_pairwise(results),
        *_power(results),
    ]


def unknown(results: Results | SuiteResults) -> list[str]:
    """Without a judge, the metrics of which nothing is known, and how to measure them; empty with a judge."""
    names = [metric.label for name, metric in metrics_of(results).items() if name not in known_metrics(results)]
    if not names:
        return []
    return [
        f"Not known without a judge: {', '.join(names)}. To measure them without training again: cai-base evaluate "
        "RUN --suite NAME|FILE --judge gguf:FILE (or hf:FOLDER, openai:MODEL; refusal-phrases only counts refusals and "
        "needs no model). The page then has its figures."
    ]


def judge_note(*judges: str | None) -> list[str]:
    """What a judge that only matches phrases cannot tell; empty if none of these judges is one."""
    return [ABOUT] if RefusalPhrases.name in judges else []


def _judge_labels(results: Results) -> list[str]:
    """How well the judge does on people's labels, and which rates are corrected for that."""
    labels = results.judge_labels
    if labels is None:
        return []
    known = {METRICS[name].label: one for name, one in labels.errors.items() if one.corrects}
    rest = [METRICS[name].label for name, one in labels.errors.items() if not one.corrects]
    errors = "; ".join(
        f"{name}: sensitivity {_share(one.sensitivity)}, specificity {_share(one.specificity)}"
        for name, one in known.items()
    )
    head = f"The judge scored {labels.scored} of the {labels.answers} labelled answers of {one_line(labels.file)}"
    corrected = (
        f"{head}. {errors}. Rows marked {CORRECTED} are the rates without these errors (Rogan and Gladen), if the "
        "judge errs on these answers as on the labelled ones."
    )
    why = "labels of both kinds are missing, or the judge does not tell them apart"
    return [
        *([corrected] if known else [f"{head}."]),
        *([f"Not corrected ({why}): {', '.join(rest)}."] if rest else []),
    ]


def _share(one: Share | None) -> str:
    return NONE if one is None else f"{percent(one.value)} {interval(RATE, one.ci95)}"


def _unseen(results: Results) -> list[str]:
    """The difference in attack success on held-out families and on the others."""
    arm = main_arm(results)
    if results.unseen is None or arm is None:
        return []
    compared = results.unseen.comparisons[pair_name(arm, BASELINE)]
    cells = {part: difference_cell(RATE, compared[part]).text() for part in ("unseen", "seen")}
    return [
        f"Families held out of the method's prompts ({', '.join(results.unseen.families)}): the difference in attack "
        f"success is {cells['unseen']} points on them and {cells['seen']} on the others."
    ]


def warnings(results: Results) -> list[str]:
    """The warnings to show. Without a judge the headline says what preflight's checks of judge and base rate say."""
    repeats = ("preflight, judge warned", "preflight, rate warned") if results.judge == NO_JUDGE else ()
    return [warning for warning in results.warnings if not warning.startswith(repeats)]


def interval_note(results: Results | SuiteResults) -> str:
    """What the intervals are over, or why there are none."""
    paired = " A difference is taken over the seeds that both arms have." if results.failed else ""
    over = _intervals_over(results)
    if not over:
        return f"There are no intervals: nothing is scored, or there is only one prompt.{paired}"
    if SEEDS_AND_PROMPTS in over:
        paired += _few_seeds(results)
    if over == {SEEDS_AND_PROMPTS}:
        return (
            "Brackets: 95 % confidence intervals over seeds and over prompts of these kinds and families. "
            f"Differences are paired by seed and prompt.{paired}"
        )
    of_one_model = "95 % Clopper-Pearson intervals over prompts (t for lengths and fluency)"
    if SEEDS_AND_PROMPTS not in over:
        return f"One seed. Brackets: {of_one_model}; with another seed, training may end elsewhere.{paired}"
    return (
        "Brackets: 95 % confidence intervals over seeds and over prompts of these kinds and families; for an arm "
        f"that is one model, such as the base model, {of_one_model}. Differences are paired by seed and prompt.{paired}"
    )


def brackets(results: Results) -> str:
    """What the intervals are over, in one short sentence, where no notes follow."""
    over = _intervals_over(results)
    if not over:
        return "There are no intervals."
    if SEEDS_AND_PROMPTS not in over:
        return "Brackets: 95 % confidence intervals over prompts, of one seed."
    one_model = "; for an arm that is one model, over prompts" if len(over) > 1 else ""
    return f"Brackets: 95 % confidence intervals over seeds and prompts{one_model}."


def _few_seeds(results: Results | SuiteResults) -> str:
    """Why intervals over two or three seeds are wide; empty for more."""
    quantile = T_QUANTILES.get(len(results.seeds))
    if quantile is None:
        return ""
    return (
        f" With {len(results.seeds)} seeds they are wide wherever seeds differ, because so few tell little about how "
        f"much seeds vary: the t quantile is {quantile}, with ten seeds 2.3."
    )


def _intervals_over(results: Results | SuiteResults) -> set[str | None]:
    """What the intervals of the main table are over; empty if there are none."""
    if not any(cell.interval for row in main_table(results).rows for cell in row.cells):
        return set()
    arms: set[str | None] = {one.ci95_over for figures in results.arms.values() for one in figures.values() if one.ci95}
    pairs: set[str | None] = {
        one.ci95_over for compared in results.comparisons.values() for one in compared.values() if one.ci95
    }
    return arms | pairs


def _no_less_helpful(results: Results) -> list[str]:
    """For each arm that started from SFT, whether non-inferiority in helpfulness is shown, given the margin."""
    metric = METRICS[HELPFULNESS]
    sentences = []
    for arm in results.arms:
        compared = results.comparisons.get(pair_name(arm, BASELINE), {}).get(HELPFULNESS)
        test = None if compared is None else compared.non_inferiority
        if compared is None or compared.ci95 is None or test is None or ARMS[arm].group != "trained":
            continue
        low = number(metric, compared.ci95[0], signed=True)
        verdict = f"{'shown' if test.shown else 'not shown'} (the difference may be as low as {low})"
        if not test.could_be:
            verdict = "not shown, and with so few benign prompts it could not have been, whatever the answers"
        margin = number(metric, test.margin)
        sentences.append(
            f"That {label(arm)} is at most {margin} less helpful than {label(BASELINE)} (non-inferiority) is {verdict}."
        )
    return sentences


def _pairwise(results: Results) -> list[str]:
    """How often the judge prefers the main arm's answer to a benign prompt to that of SFT."""
    arm = main_arm(results)
    compared = (results.pairwise or {}).get(arm or "")
    if arm is None or compared is None or compared.preferred.mean is None:
        return []
    ends = interval(RATE, compared.preferred.ci95)
    return [
        f"Pairwise helpfulness on benign prompts: the judge prefers {label(arm)}'s answer to "
        f"{label(compared.compared_with)}'s in {percent(compared.preferred.mean)}{f' {ends}' if ends else ''} "
        f"(50 % is no difference): {counted(compared.wins, 'win')}, {counted(compared.ties, 'tie')}, "
        f"{counted(compared.losses, 'loss', 'losses')}."
    ]


def _power(results: Results) -> list[str]:
    """The difference in attack success that this run could detect, and the sample needed to detect a small one."""
    arm = main_arm(results)
    if arm is None:
        return []
    compared = results.comparisons[pair_name(arm, BASELINE)][ATTACK]
    needed, detectable = compared.to_detect, compared.minimum_detectable
    if needed is None or detectable is None:
        return []
    prompts = results.arms[arm][ATTACK].total // len(results.seeds)
    designs = [
        f"{needed.prompts:,} jailbreak prompts with {compared.seeds} seeds" if needed.prompts else "",
        f"{needed.seeds} seeds with these {prompts} prompts" if needed.seeds else "",
    ]
    either = " or ".join(design for design in designs if design)
    takes = f"about {either}" if either else "both more seeds and more prompts"
    could = f"this run could detect a difference in attack success of {number(RATE, detectable)} points"
    if detectable > 1:
        could = "this run could detect no difference in attack success, however large it is"
    planned = any(warning.startswith("preflight, power") for warning in results.warnings)
    return [
        f"Power: given the interval that is shown, {could} (with power 0.8). To detect {number(RATE, needed.effect)} "
        f"points you need {takes}. Both are for these families of prompts."
        + (" Preflight's warning was computed before the run, from an assumed variation." if planned else "")
    ]
