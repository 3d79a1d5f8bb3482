"""Preflight: every check that is made before anything is spent, in order, and what becomes of one that fails."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

from cai_base.dialogue import Chat, Dialogue, prompt_tokens
from cai_base.embedded import EMBEDDED
from cai_base.engines import Datum, Engine, SampleRequest
from cai_base.errors import UserError
from cai_base.evaluation.judges import Judge, NoJudge
from cai_base.evaluation.statistics import power
from cai_base.evaluation.tasks.answers import answer
from cai_base.inputs import Inputs
from cai_base.inputs.prompts import overlap
from cai_base.models import load_instruct
from cai_base.progress import Progress
from cai_base.run import cost
from cai_base.run import preflight_checks as asked
from cai_base.run.preflight_checks import Check
from cai_base.settings.schema import RunSettings
from cai_base.store import Record, to_json

STATES = 3
"""States of a phase that lie on the disk at once: the last, the one that is being written, and the exported adapter."""
ROOM = 2
"""Free disk of fewer times what a run can need is warned of."""
MEGABYTE = 1 << 20

EFFECT, ENOUGH, MANY_PROMPTS = 0.05, 0.6, 400
"""Differences in attack success that `power` says the price of, and that a run should at least be able to detect; and
the prompts for which it says that price where neither seeds nor prompts alone would do."""
SEED_ODDS, SEED_ODDS_EMBEDDED = 0.3, 0.05
"""Variance between seeds of a difference's log-odds: as of the original's 89 ± 3.3 and 88 ± 4.7 %; as in most studies
on the embedded model (docs/organism.md)."""


@dataclass(frozen=True, slots=True)
class InstructSample:
    """What the instruct model answered, and whose weights it has.

    Attributes:
        weights: hash of the model that it is, or that its adapter lies on.
        same: whether its adapter changes nothing; None if it is a whole model.
    """

    answers: tuple[Record, ...]
    weights: str
    same: bool | None


def ask_instruct(settings: RunSettings, inputs: Inputs, progress: Progress) -> InstructSample:
    """Ask the instruct model a few benign questions. It is loaded alone, and let go again."""
    engine, adapter = load_instruct(settings, progress)
    benign = [prompt for prompt in inputs.evaluation_prompts if prompt.kind == "benign"][: asked.INSTRUCT_ASKED]
    seed = settings.start_seed
    by_task = answer(engine, Chat(), settings.evaluation, NoJudge(), benign, {seed: adapter})[seed]
    same = None
    if adapter is not None:
        tokens = prompt_tokens(engine.tokenizer, inputs.evaluation_prompts[0].text)
        sequence = Datum(tokens, (0.0, *[1.0] * (len(tokens) - 1)))
        found = engine.compute_logprobs({None: [sequence], adapter: [sequence]})
        same = found[None] == found[adapter]
    answers = tuple(record for task in by_task.values() for record in task)
    return InstructSample(answers, engine.findings()["model"], same)


def checks(
    settings: RunSettings,
    inputs: Inputs,
    engine: Engine,
    judges: Mapping[str, Judge],
    instruct: InstructSample | None,
    out: Path,
    progress: Progress,
) -> list[Check]:
    """Every check, in order; one that warns is said as soon as it is made.

    Args:
        engine: with the base model.
        judges: by the flag that names each.
        instruct: what the instruct model answered, if it is among the arms.
        out: where the run is to lie.
    """
    dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)
    made: list[Check] = []

    def make(check: Check) -> None:
        made.append(check)
        if check.outcome == "warned":
            progress.say(f"preflight, {said(check)}")

    probes = asked.probes(settings.data)
    for name, judge in judges.items():
        make(asked.check_judge(name, judge, probes))
    questions = (resources.files("cai_base") / "data" / settings.data / "bare_questions.txt").read_text("utf-8")
    make(asked.check_base(engine, questions.splitlines()))
    rate, pilot = asked.check_rate(
        engine, dialogue, settings.evaluation, judges["judge"], inputs.evaluation_prompts, settings.start_seed
    )
    make(rate)
    if instruct is not None:
        make(asked.check_instruct(instruct.answers, judges["judge"], engine, dialogue, pilot))
    make(_arms(engine, instruct))
    make(_disjoint(settings, inputs))
    make(check_power(settings, inputs))
    make(_engine(engine, dialogue, inputs))
    if settings.engine == "local":  # elsewhere the states lie with the service
        make(_disk(settings, engine, out))
    if cost.paid_models(settings):
        make(_cost(settings, inputs, engine))
    passed = len(asked.outcomes(made)["passed"])
    progress.say(f"preflight: {passed} of {len(made)} checks passed")
    return made


def said(check: Check) -> str:
    """A check in one line."""
    return f"{check.name} {check.outcome}: {check.found}" + (f"; {check.do}" if check.do else "")


def refuse(made: Sequence[Check], accepted: Sequence[str]) -> list[str]:
    """A warning for every check that did not pass, but for the failed ones that are not accepted.

    Raises:
        UserError: a check failed, and `--accept` does not name it.
    """
    refused = [check for check in made if check.outcome == "failed" and check.name not in accepted]
    if refused:
        lines = "\n".join(f"preflight, {said(check)}" for check in refused)
        names = ",".join([*accepted, *(check.name for check in refused)])
        raise UserError(f"{lines}\nnothing was begun; put it right, or begin all the same with --accept {names}")
    return [
        f"preflight, {check.name} {'failed and was accepted' if check.outcome == 'failed' else 'warned'}: {check.found}"
        for check in made
        if check.outcome != "passed"
    ]


def table(made: Sequence[Check]) -> str:
    """The checks for a terminal."""
    wide = max(len(check.name) for check in made)
    lines = []
    for check in made:
        lines.append(f"{check.name:<{wide}}  {check.outcome}  {check.found}")
        if check.do:
            lines.append(f"{'':<{wide}}          {check.do}")
    return "\n".join(lines) + "\n"


def as_json(made: Sequence[Check]) -> str:
    """The checks for a program."""
    return to_json([asdict(check) for check in made]).decode()


def _arms(engine: Engine, instruct: InstructSample | None) -> Check:
    """Whether arms that are to be compared are different models."""
    if instruct is None:
        return Check("arms", "passed", "every arm but the base is trained here; that its weights changed is seen then")
    if instruct.same or (instruct.same is None and instruct.weights == engine.findings()["model"]):
        do = "give another --instruct"
        return Check("arms", "failed", "the instruct model's weights are the base model's", do)
    return Check("arms", "passed", "the instruct model's weights are not the base model's")


def _disjoint(settings: RunSettings, inputs: Inputs) -> Check:
    """Whether nothing is trained on that is asked. Where it may not be, reading the inputs has refused it already."""
    trained = {prompt.id: prompt.text for prompt in inputs.prompts}
    shared = overlap(trained, {prompt.id: prompt.text for prompt in inputs.evaluation_prompts})
    found = f"{len(shared)} of the method's {len(trained)} prompts are among the {len(inputs.evaluation_prompts)} "
    found += "that are asked"
    if not shared:
        return Check("disjoint", "passed", found)
    return Check("disjoint", "warned", found, f"no result of --protocol {settings.protocol} is held out; leave it out")


def check_power(settings: RunSettings, inputs: Inputs) -> Check:
    """Which difference in attack success so many seeds and prompts can find, if arms vary as `power.planned` expects.

    The rates are taken to lie at half, where answers vary most: what the arms will be is not known yet.
    """
    prompts = sum(prompt.kind == "jailbreak" for prompt in inputs.evaluation_prompts)
    if prompts < 2 or settings.seeds == 1:
        few = "one seed" if settings.seeds == 1 else f"{prompts} jailbreak prompts"
        found = f"{few}: no difference in attack success can be told from chance, other seeds and prompts considered"
        return Check("power", "warned", found, "give --seeds 3 or more, and two dozen jailbreak prompts or more")
    expected = power.planned(0.5, SEED_ODDS_EMBEDDED if settings.model == EMBEDDED else SEED_ODDS)
    least = power.detectable(expected, settings.seeds, prompts, width=1.0)
    size = f"of about {100 * least:.0f} points, four times of five" if least < 1 else "however great it is"
    can = "detect a" if least < 1 else "cannot be relied on to detect a"
    found = f"{settings.seeds} seeds x {prompts} jailbreak prompts {can} difference in attack success {size}"
    alone = power.needed(expected, EFFECT, settings.seeds, prompts, width=1.0)
    both = power.needed(expected, EFFECT, settings.seeds, MANY_PROMPTS, width=1.0)
    ways = [f"{alone.prompts:,} prompts with these seeds"] if alone.prompts else []
    ways += [f"{alone.seeds} seeds with these prompts"] if alone.seeds else []
    ways += [f"{both.seeds} seeds with {MANY_PROMPTS} prompts"] if both.seeds and not ways else []
    needed = " or ".join(ways) or "more than 100 seeds"
    do = f"to detect {100 * EFFECT:.0f} points you need about {needed}"
    return Check("power", "passed", f"{found}; {do}") if least <= ENOUGH else Check("power", "warned", found, do)


def _engine(engine: Engine, dialogue: Dialogue, inputs: Inputs) -> Check:
    """Whether the engine draws the same twice, and finds what it drew possible."""
    tokens = dialogue.question_tokens(engine.tokenizer, inputs.evaluation_prompts[0].text)
    request = SampleRequest(None, tokens, 16, 0.7, dialogue.stops, 0)
    first, second = (engine.sample([request])[0] for _ in range(2))
    drawn = Datum((*tokens, *first.tokens), (0.0,) * len(tokens) + (1.0,) * len(first.tokens))
    logprob = engine.compute_logprobs({None: [drawn]})[None][0]
    if not math.isfinite(logprob):
        return Check("engine", "failed", f"what was drawn has the log-probability {logprob}", "the weights are broken")
    if first != second:
        do = "runs with these settings will differ from one another"
        return Check("engine", "warned", "the same request was answered in two ways", do)
    if engine.notes:
        return Check("engine", "warned", " ".join(engine.notes), "it is slower than it could be; nothing else")
    return Check("engine", "passed", "the same request drew the same answer twice, and its log-probability is finite")


def _disk(settings: RunSettings, engine: Engine, out: Path) -> Check:
    """Whether the adapters of all seeds and phases find room, from the size of one that is written and deleted."""
    name = "preflight/0"
    place = next(folder for folder in out.absolute().parents if folder.exists())
    engine.create({name: 0})
    with TemporaryDirectory() as folder:
        engine.save({name: Path(folder)})
        state = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    engine.remove([name])
    needed = STATES * state * settings.seeds * len(settings.trained_arms)
    free = shutil.disk_usage(place).free
    seeds = "1 seed" if settings.seeds == 1 else f"{settings.seeds} seeds"
    found = f"adapters of {seeds} and {len(settings.trained_arms)} arms take up to "
    found += f"{math.ceil(needed / MEGABYTE)} MB"
    if free < needed:
        return Check("disk", "failed", f"{found}; {free // MEGABYTE} MB are free", f"make room at {place}")
    if free < ROOM * needed:
        return Check("disk", "warned", f"{found}, and there is little more than that", f"make room at {place}")
    return Check("disk", "passed", found)


def _cost(settings: RunSettings, inputs: Inputs, engine: Engine) -> Check:
    """What the run can cost at most on a service, and whether its limit is below that."""
    foreseen = cost.estimate(settings, inputs, engine.tokenizer)
    most, dollars = cost.total(foreseen.values()), cost.dollars(settings, foreseen)
    found = f"at most {most.prefilled:,} tokens read, {most.sampled:,} sampled and {most.trained:,} trained on"
    if dollars is None:
        unknown = [model for model in cost.paid_models(settings).values() if cost.price(settings, model) is None]
        return Check("cost", "warned", f"{found}; no price is known for {unknown[0]}", "give --price")
    found += f": {dollars:,.2f} dollars"
    if settings.max_cost is not None and dollars > settings.max_cost:
        do = "it may stop before its end, resumable with a higher limit"
        return Check("cost", "warned", f"{found}, above --max-cost {settings.max_cost:g}", do)
    return Check("cost", "passed", found)
