"""Can the design answer the question? Whether prompts are held out, and which differences can be detected."""

from cai_base.evaluation.statistics import power
from cai_base.inputs import Inputs
from cai_base.inputs.kinds import JAILBREAK
from cai_base.inputs.overlap import overlap
from cai_base.run.preflight.outcome import Check

EFFECT = 0.05
"""The difference in attack success whose price `check_power` gives."""
ENOUGH = 0.6
"""The difference in attack success that a run should at least be able to detect."""
MANY_PROMPTS = 400
"""The number of prompts for which the price is given where neither seeds nor prompts alone would do."""
SEED_ODDS, SEED_ODDS_EMBEDDED = 0.3, 0.05
"""Variance between seeds of a difference's log-odds: as of the original's 89 ± 3.3 and 88 ± 4.7 %; as in most studies
on the embedded model (docs/organism.md)."""


def check_disjoint(inputs: Inputs, protocol: str) -> Check:
    """Whether no evaluation prompt is trained on. Where none may be, reading the inputs has refused it already."""
    trained = {prompt.id: prompt.text for prompt in inputs.prompts}
    shared = overlap(trained, {prompt.id: prompt.text for prompt in inputs.evaluation_prompts})
    finding = f"{len(shared)} of the method's {len(trained)} prompts are among the {len(inputs.evaluation_prompts)} "
    finding += "that are asked"
    if not shared:
        return Check("disjoint", "passed", finding)
    do = f"no result of --protocol {protocol} is held out; leave it out"
    return Check("disjoint", "warned", finding, do)


def check_power(inputs: Inputs, seeds: int, *, embedded: bool) -> Check:
    """Which difference in attack success these seeds and prompts can detect, with the `power.assumed_components`.

    Both rates are assumed to be 1/2, where answers vary most.
    """
    prompts = sum(prompt.kind == JAILBREAK for prompt in inputs.evaluation_prompts)
    if prompts < 2 or seeds == 1:
        few = "one seed" if seeds == 1 else f"{prompts} jailbreak prompts"
        finding = f"{few}: no difference in attack success can be told from chance, other seeds and prompts considered"
        return Check("power", "warned", finding, "give --seeds 3 or more, and two dozen jailbreak prompts or more")
    expected = power.assumed_components(0.5, SEED_ODDS_EMBEDDED if embedded else SEED_ODDS)
    least = power.minimum_detectable(expected, seeds, prompts, width=1.0)
    size = f"of about {100 * least:.0f} points, four times of five" if least < 1 else "however great it is"
    can = "detect a" if least < 1 else "cannot be relied on to detect a"
    finding = f"{seeds} seeds x {prompts} jailbreak prompts {can} difference in attack success {size}"
    alone = power.needed(expected, EFFECT, seeds, prompts, width=1.0)
    both = power.needed(expected, EFFECT, seeds, MANY_PROMPTS, width=1.0)
    ways = [f"{alone.prompts:,} prompts with these seeds"] if alone.prompts else []
    ways += [f"{alone.seeds} seeds with these prompts"] if alone.seeds else []
    ways += [f"{both.seeds} seeds with {MANY_PROMPTS} prompts"] if both.seeds and not ways else []
    do = f"to detect {100 * EFFECT:.0f} points you need about {' or '.join(ways) or 'more than 100 seeds'}"
    if least <= ENOUGH:
        return Check("power", "passed", f"{finding}; {do}")
    return Check("power", "warned", finding, do)
