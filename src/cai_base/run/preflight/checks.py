"""Every check of preflight, in order."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

from cai_base import arms
from cai_base.dialogue import Dialogue
from cai_base.embedded import is_embedded
from cai_base.engines import Engine
from cai_base.evaluation.judges import Judge
from cai_base.inputs import Inputs
from cai_base.method.interpreter import Interpreter
from cai_base.method.phase import Phase
from cai_base.progress import Progress
from cai_base.records import Answer
from cai_base.run.preflight.critique import check_critique
from cai_base.run.preflight.design import check_disjoint, check_power
from cai_base.run.preflight.feedback import check_feedback, known_comparisons
from cai_base.run.preflight.judges import check_judge, probes
from cai_base.run.preflight.models import (
    InstructSample,
    check_arms,
    check_base,
    check_engine,
    check_instruct,
    check_rate,
)
from cai_base.run.preflight.outcome import Check, by_outcome
from cai_base.run.preflight.resources import check_cost, check_disk
from cai_base.run.spending import cost
from cai_base.run.spending.prices import Prices
from cai_base.settings.engines import engine_kind
from cai_base.settings.schema import RunSettings


def make_checks(checks: Iterable[Check], progress: Progress) -> list[Check]:
    """Make checks in order; each warning is shown at once."""
    results = []
    for check in checks:
        results.append(check)
        if check.outcome == "warned":
            progress.say(f"preflight, {check}")
    progress.say(f"preflight: {len(by_outcome(results)['passed'])} of {len(results)} checks passed")
    return results


def every_check(
    settings: RunSettings,
    inputs: Inputs,
    engine: Engine,
    interpreter: Interpreter,
    judges: Mapping[str, Judge],
    instruct: InstructSample | None,
    out: Path,
    phases: Sequence[Phase],
    pilot: list[Answer],
) -> Iterator[Check]:
    """Every check of a run. Each is made when the iterator reaches it.

    Args:
        engine: the engine with the base model.
        judges: the judges, by the flag that names each.
        instruct: the instruct model's answers, if it is an arm.
        out: the run's directory.
        phases: the phases, for their cost.
        pilot: receives the base model's answers from the check of its rate.
    """
    dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)
    known = probes(settings.data)
    for flag, judge in judges.items():
        yield check_judge(flag, judge, known)
    questions = (resources.files("cai_base") / "data" / settings.data / "bare_questions.txt").read_text("utf-8")
    yield check_base(engine, questions.splitlines())
    rate, pilot_answers = check_rate(
        engine, dialogue, settings.evaluation, judges["judge"], inputs.evaluation_prompts, settings.start_seed
    )
    pilot += pilot_answers
    yield rate
    known_weights = not engine_kind(settings.engine).served  # a service tells only its model's name
    if settings.revises:
        yield check_critique(
            interpreter.engine,
            dialogue,
            settings.data,
            settings.revision,
            judges["judge"],
            interpreter.adapter,
            known_weights=known_weights,
        )
    if instruct is not None:
        yield check_instruct(instruct.answers, judges["judge"], engine, dialogue, pilot_answers)
    yield check_arms(engine, instruct)
    yield check_disjoint(inputs, settings.protocol)
    yield check_power(inputs, settings.seeds, embedded=is_embedded(settings.model))
    yield check_engine(engine, dialogue, inputs.evaluation_prompts[0].text)
    if inputs.comparison_requests:
        untrained = Interpreter(interpreter.engine, own=False, adapter=interpreter.adapter)
        yield check_feedback(
            untrained, inputs, settings.feedback, known_comparisons(settings.data), settings.start_seed
        )
    if not engine_kind(settings.engine).served:  # a service stores the states itself
        trained = [arm for arm in (*settings.trained_arms, *settings.controls) if arms.arm(arm).folder is not None]
        yield check_disk(engine, settings.seeds, len(trained), out)
    prices = Prices.of_models(settings.models, settings.price)
    if prices.models:
        usages = cost.estimate(settings, inputs, engine.tokenizer, phases)
        yield check_cost(usages, prices, settings.max_cost)
