"""What intervals are over, and what a run could and could not show, in a sentence each."""

from cai_base.report.labels import ARMS, MEASURES
from cai_base.report.tables import main_table
from cai_base.store import Record

BOTH = "seeds and prompts"


def notes(results: Record) -> list[str]:
    """What a reader needs beside the main table: what brackets are, whether help was kept, what could be detected."""
    return [interval_note(results), *_no_less_helpful(results), *_power(results)]


def interval_note(results: Record) -> str:
    """What the intervals are, or why there are none."""
    paired = " A difference is taken over the seeds that both arms have." if results["failed"] else ""
    over = _over(results)
    if not over:
        return f"There are no intervals: nothing is scored, or there is one prompt.{paired}"
    if None in over:  # a run of an earlier version
        return f"Brackets: {results['intervals']}.{paired}"
    if over == {BOTH}:
        return (
            "Brackets: 95 % intervals over seeds and prompts, that is, how far a figure would move with other seeds "
            f"and other prompts of these kinds. Differences are paired by seed and prompt.{paired}"
        )
    one = "exact 95 % intervals over prompts (t for lengths and fluency)"
    if BOTH not in over:
        return f"One seed. Brackets: {one}; with another seed, training may end elsewhere.{paired}"
    return (
        "Brackets: 95 % intervals over seeds and prompts, that is, how far a figure would move with other seeds and "
        f"other prompts of these kinds; of an arm that is one model, as the base model is, {one}. Differences are "
        f"paired by seed and prompt.{paired}"
    )


def _over(results: Record) -> set[str | None]:
    """What the intervals that are shown are over."""
    if not any(cell.interval for row in main_table(results).rows for cell in row.cells):
        return set()
    groups = (results["arms"], results["comparisons"])
    figures = [figure for group in groups for metrics in group.values() for figure in metrics.values()]
    return {figure.get("ci95_over") for figure in figures if figure["ci95"] is not None}


def _no_less_helpful(results: Record) -> list[str]:
    """Whether each arm that started from SFT is shown to help no less, by more than the margin."""
    measure = MEASURES["helpfulness"]
    said = []
    for pair, compared in results["comparisons"].items():
        first, second = pair.split(" - ")
        found = compared.get("helpfulness", {}).get("non_inferiority")
        if first not in ("cai", "sl-cai") or second != "sft" or found is None:
            continue
        low = measure.number(compared["helpfulness"]["ci95"][0], signed=True)
        margin = measure.number(found["margin"])
        verdict = f"{'shown' if found['shown'] else 'not shown'} (the difference may be as low as {low})"
        if not found.get("could_be", True):
            verdict = "not shown, and with so few benign prompts it could not be, whatever the answers"
        said.append(f"{ARMS[first]} no less helpful than {ARMS[second]}, by a margin of {margin}: {verdict}.")
    return said


def _power(results: Record) -> list[str]:
    """What difference in attack success such a run would find, and what it takes to find a small one."""
    arm = next((arm for arm in ("cai", "sl-cai") if f"{arm} - sft" in results["comparisons"]), None)
    if arm is None:
        return []
    name = "attack_success_rate"
    measure, compared = MEASURES[name], results["comparisons"][f"{arm} - sft"][name]
    wanted = compared.get("to_detect")
    if wanted is None or compared["minimum_detectable"] is None:
        return []
    prompts = results["arms"][arm][name]["total"] // len(results["seeds"])
    ways = [
        f"{wanted['prompts']:,} jailbreak prompts with {compared['seeds']} seeds" if wanted["prompts"] else "",
        f"{wanted['seeds']} seeds with these {prompts} prompts" if wanted["seeds"] else "",
    ]
    needed = " or ".join(way for way in ways if way)
    said = f"about {needed}" if needed else "more seeds and more prompts: neither alone is enough"
    least = min(compared["minimum_detectable"], 1.0)
    return [
        f"Power: with its seeds and prompts this run could detect a difference in attack success of "
        f"{measure.number(least)} points (four times of five); to detect {measure.number(wanted['effect'])} points you "
        f"need {said}."
    ]
