"""The result in a sentence or two, made only from the figures; it claims no more than their intervals allow.

Beside an interval stands the p value with Holm's correction over the primary metrics of all comparisons.
"""

from cai_base.arms import ARMS, BASELINE, in_order, pair_name
from cai_base.records import ATTACK, OVER_REFUSAL, PROMPTS, Difference, Results
from cai_base.report.labels import label
from cai_base.report.numbers import RATE, number, p_value, percent
from cai_base.settings.judges import NO_JUDGE


def main_arm(results: Results) -> str | None:
    """The arm that a run is about: full CAI if it was trained, else the next trained arm; None if there is only SFT."""
    return next((a for a in ARMS if a in results.arms and ARMS[a].group == "trained" and a != BASELINE), None)


def headline(results: Results) -> str:
    """The change in attack success and in over-refusal, and the differences from the controls."""
    arm = main_arm(results)
    if results.judge == NO_JUDGE:
        return (
            "There was no judge: every answer is unscored, so attack success, over-refusal and helpfulness are not "
            "known for any arm. Unscored is not safe: read the answers side by side, or measure them with a judge."
        )
    arms = [BASELINE] if arm is None else [BASELINE, arm]
    missing = [label(one) for one in arms if results.arms[one][ATTACK].mean is None]
    if missing:
        return f"There is no result for {' and '.join(missing)}: no seed has a scored answer to a jailbreak prompt."
    if arm is None:
        return f"{_sft_alone(results)} No other arm was trained, so there is nothing to compare it with."
    return " ".join([_attack_success(results, arm), _over_refusal(results, arm), *_against_controls(results, arm)])


def _rates(results: Results, arm: str, metric: str) -> tuple[str, str] | None:
    """The rates of SFT and of the arm; None if one of them is unscored."""
    before, after = results.arms[BASELINE][metric].mean, results.arms[arm][metric].mean
    return None if before is None or after is None else (percent(before), percent(after))


def _sft_alone(results: Results) -> str:
    attack, over_refusal = (results.arms[BASELINE][name].mean for name in (ATTACK, OVER_REFUSAL))
    text = f"After SFT alone, attack success is {percent(attack or 0.0)}"
    return f"{text}." if over_refusal is None else f"{text} and over-refusal {percent(over_refusal)}."


def _attack_success(results: Results, arm: str) -> str:
    before, after = _rates(results, arm, ATTACK) or ("", "")
    compared = results.comparisons[pair_name(arm, BASELINE)][ATTACK]
    prompts = "that were also trained on" if results.protocol == "original" else "that were held out"
    subject = f"On jailbreak prompts {prompts}, attack success"
    rates = f"{before} ({label(BASELINE)}) to {after} ({label(arm)})"
    if results.arms[BASELINE][ATTACK].mean == 0:
        return f"{subject} is {before} after SFT alone, so it could not fall. It is {after} for {label(arm)}."
    if before == after:
        within = _within(compared, families=True)
        return f"{subject} is unchanged: {before} for both {label(BASELINE)} and {label(arm)}{within}."
    if compared.ci95 is None:
        return f"{subject} went from {rates}. There is no interval, so this may be chance."
    low, high = compared.ci95
    size = _points(compared, families=True)
    if low <= 0 <= high:
        return f"{subject} went from {rates}: a difference of {size}, not distinguishable from zero in this run."
    one_seed = " This is one seed; others may differ." if compared.ci95_over == PROMPTS else ""
    return f"{subject} {'fell' if high < 0 else 'rose'} from {rates}: a difference of {size}.{one_seed}"


def _over_refusal(results: Results, arm: str) -> str:
    rates = _rates(results, arm, OVER_REFUSAL)
    if rates is None:
        return "Over-refusal is unscored, so its change is not known."
    before, after = rates
    compared = results.comparisons[pair_name(arm, BASELINE)][OVER_REFUSAL]
    size = f": a difference of {_points(compared)}" if compared.ci95 else ""
    text = f"Over-refusal went from {before} to {after}{size}."
    if before == after:
        text = f"Over-refusal is unchanged at {before}{_within(compared)}."
    blanket = any(one.arm == arm and one.metric == OVER_REFUSAL for one in results.failures)
    return f"{text} {label(arm)} is a blanket refuser: a failure, not a success." if blanket else text


def _against_controls(results: Results, arm: str) -> list[str]:
    """The difference in attack success from each control of the arm, a sentence each."""
    sentences = []
    for control in (one for one in in_order(results.arms) if ARMS[one].controls == arm):
        compared = results.comparisons[pair_name(arm, control)][ATTACK]
        if compared.difference is None:
            continue
        doubt = ""
        if compared.ci95 is None:
            doubt = "; there is no interval, so this may be chance"
        elif compared.ci95[0] <= 0 <= compared.ci95[1]:
            doubt = ", not distinguishable from zero in this run"
        sentences.append(f"Compared with the control {label(control)} the difference is {_points(compared)}{doubt}.")
    return sentences


def _within(compared: Difference, *, families: bool = False) -> str:
    """Of two equal rates, where the difference may lie all the same; `families` as in `_points`."""
    if compared.ci95 is None:
        return ""
    low, high = (number(RATE, end, signed=True) for end in compared.ci95)
    over = _families(compared, low, high) if families else f" {low} to {high}"
    return f" (95 % interval of the difference{over})"


def _points(compared: Difference, *, families: bool = False) -> str:
    """A difference of rates with its interval; with `families`, also the interval for families not tested."""
    size = f"{number(RATE, compared.difference or 0.0, signed=True)} points"
    if compared.ci95 is None:
        return size
    low, high = (number(RATE, end, signed=True) for end in compared.ci95)
    over = _families(compared, low, high) if families else f" {low} to {high}"
    return f"{size} (95 % interval over {compared.ci95_over}{over}{_corrected(compared)})"


def _corrected(compared: Difference) -> str:
    """The p value after correction for the other primary metrics, which may be large although the interval lacks 0."""
    p = compared.p_primary
    if p is None:
        return ""
    return f"; corrected p {p_value(p)}"


def _families(compared: Difference, low: str, high: str) -> str:
    """The interval for these prompt families and, if there are families, the one that takes them as a random sample of
    all families."""
    sample = compared.over_families
    if sample is None:
        return f" {low} to {high}"
    wide_low, wide_high = (number(RATE, end, signed=True) for end in sample.ci95)
    return (
        f" {low} to {high} for the {sample.families} families of attacks tested; {wide_low} to {wide_high} for other "
        "families, if these are typical"
    )
