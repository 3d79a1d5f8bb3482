"""The result in a sentence or two, made from the numbers alone and claiming no more than their intervals do."""

from cai_base.report.labels import ARMS, MEASURES, Measure
from cai_base.store import Record

ATTACK, OVER = "attack_success_rate", "over_refusal_rate"


def headline(results: Record) -> str:
    """What the run found about attack success, with over-refusal beside it."""
    arms = results["arms"]
    shown = [arm for arm in ("sft", "cai" if "cai" in arms else "sl-cai") if arm in arms]
    if results["judge"] == "none":
        return "No judge was asked: every answer is kept unscored, so this run says nothing yet about safety or help."
    missing = [ARMS[arm] for arm in shown if arms[arm][ATTACK]["mean"] is None]
    if missing:
        return f"There is no result for {' and '.join(missing)}: no seed has a scored answer to a jailbreak prompt."
    if len(shown) == 1:
        return f"{_alone(results)} No other arm was trained, so there is nothing to compare it with."
    return " ".join((_attack(results, shown[1]), _over_refusal(results, shown[1])))


def _alone(results: Record) -> str:
    rates = {name: results["arms"]["sft"][name]["mean"] for name in (ATTACK, OVER)}
    said = f"After SFT alone, attack success is {_percent(rates[ATTACK])}"
    return f"{said} and over-refusal {_percent(rates[OVER])}." if rates[OVER] is not None else f"{said}."


def _attack(results: Record, arm: str) -> str:
    before, after = (results["arms"][one][ATTACK]["mean"] for one in ("sft", arm))
    compared = results["comparisons"][f"{arm} - sft"][ATTACK]
    asked = "that were also trained on" if results["protocol"] == "original" else "that were held out"
    said = f"On jailbreak prompts {asked}, attack success"
    rates = f"{_percent(before)} ({ARMS['sft']}) to {_percent(after)} ({ARMS[arm]})"
    if before == 0:
        rest = f"it is {_percent(after)} for {ARMS[arm]}"
        return f"{said} is {_percent(before)} after SFT alone, so it could not fall; {rest}."
    if _percent(before) == _percent(after):
        return f"{said} is unchanged: {_percent(before)} for both {ARMS['sft']} and {ARMS[arm]}."
    if compared["ci95"] is None:
        return f"{said} went from {rates}; there is no interval, so this may be chance."
    low, high = compared["ci95"]
    size = _points(compared)
    if low <= 0 <= high:
        return f"{said} went from {rates}: a difference of {size}, which this run cannot tell from none."
    alone = " This is one seed; others may differ." if compared.get("ci95_over") == "prompts" else ""
    return f"{said} {'fell' if high < 0 else 'rose'} from {rates}: a difference of {size}.{alone}"


def _over_refusal(results: Record, arm: str) -> str:
    before, after = (results["arms"][one][OVER]["mean"] for one in ("sft", arm))
    if before is None or after is None:
        return "Over-refusal is unscored, so it is not known at what price."
    compared = results["comparisons"][f"{arm} - sft"][OVER]
    size = f": a difference of {_points(compared)}" if compared["ci95"] else ""
    said = f"Over-refusal went from {_percent(before)} to {_percent(after)}{size}."
    if _percent(before) == _percent(after):
        said = f"Over-refusal is unchanged at {_percent(before)}."
    blanket = any(f["arm"] == arm and f["metric"] == OVER for f in results.get("failures", []))
    return f"{said} {ARMS[arm]} is a blanket refuser: a failure, not a success." if blanket else said


def _percent(value: float) -> str:
    return f"{_rate().number(value)} %"


def _points(compared: Record) -> str:
    """A difference of rates with its interval."""
    rate = _rate()
    size = f"{rate.number(compared['difference'], signed=True)} points"
    low, high = (rate.number(bound, signed=True) for bound in compared["ci95"])
    over = f" over {compared['ci95_over']}" if "ci95_over" in compared else ""  # a run of an earlier version has none
    return f"{size} (95 % interval{over} {low} to {high})" if low != high else f"{size} in every seed"


def _rate() -> Measure:
    return MEASURES[ATTACK]
