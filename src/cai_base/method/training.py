"""The step loop that SFT, DPO and SFT on revisions share: all seeds together, stored at intervals, resumable."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cai_base import paths, randomness
from cai_base.arms import SFT
from cai_base.dialogue import END, Dialogue
from cai_base.engines import Adam, Adapter, Batch, Datum, Engine, Failed, Step, Tokenizer
from cai_base.errors import UserError
from cai_base.method.phase import Workbench
from cai_base.progress import Progress
from cai_base.records import Failure, TrainingStep
from cai_base.settings.schema import Training
from cai_base.store import Run, to_lines

HeldOut = Callable[[list[Adapter]], Mapping[Adapter, Mapping[str, float | None]]]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What one phase trains.

    Attributes:
        phase: the name of its folder in a seed's directory.
        arm: the arm that it trains.
        curve: whether the arm is evaluated at every interval, not at the end alone.
        settings: steps, batch size, learning rate and so on.
        adapters: each adapter's seed.
        batch: the batch of an adapter at a step.
        held_out: computes each adapter's further metrics at the end of an interval, such as held-out accuracy.
    """

    phase: str
    arm: str
    curve: bool
    settings: Training
    adapters: Mapping[Adapter, int]
    batch: Callable[[Adapter, int], Batch]
    held_out: HeldOut | None = None


def train_arm(bench: Workbench, plan: TrainingPlan) -> None:
    """Train an arm's adapters, evaluate it at every interval, and export the adapters of the seeds that did not fail.

    When the phase begins, the adapters must be in the engine; when it is resumed, their stored state is loaded.
    """

    def evaluate(step: int, adapters: list[Adapter]) -> None:
        interim = None if step == plan.settings.steps else step
        if interim is None or plan.curve:
            bench.evaluate(plan.arm, interim, {plan.adapters[adapter]: adapter for adapter in adapters})

    with bench.budget.phase(plan.phase):
        failed = train(bench.engine, bench.run, plan, bench.evaluate_every, evaluate, bench.progress)
    for adapter, reason in failed.items():
        seed = plan.adapters[adapter]
        bench.fail(plan.phase, seed, reason)
        bench.progress.say(f"{plan.phase}: seed {seed} stopped: {reason}; the other seeds go on")
    work = f"{plan.phase} adapters"
    if not bench.run.progress(work):
        folders = {a: paths.adapter(seed, plan.phase) for a, seed in plan.adapters.items() if a not in failed}
        bench.engine.export({adapter: bench.run.directory / folder for adapter, folder in folders.items()})
        bench.run.commit(work, 1, adopt=folders.values())


@dataclass(frozen=True, slots=True)
class Start:
    """The phase that another one starts from: its name, and its steps."""

    phase: str
    steps: int


def start_from(bench: Workbench, phase: str, adapters: Mapping[Adapter, int], start: Start) -> None:
    """Load the adapters that `start` trained, with new optimizer states, unless the phase has begun."""
    if not bench.run.progress(phase):
        states = {a: bench.run.directory / paths.state(seed, start.phase, start.steps) for a, seed in adapters.items()}
        bench.engine.load(states, optimizer=False)


def start_from_sft(bench: Workbench, phase: str, adapters: Mapping[Adapter, int], sft_steps: int) -> None:
    """`start_from` SFT, which has this many steps."""
    start_from(bench, phase, adapters, Start(SFT, sft_steps))


def trained_datum(tokenizer: Tokenizer, dialogue: Dialogue, prompt: str, response: str) -> Datum:
    """The prompt in its layout, then the response: weight 1 on the response and its end, 0 on everything before.

    The loss is thus on the response alone. Prompt and response are tokenised together, as the model meets them in text.

    Args:
        tokenizer: the engine's.
        dialogue: the layout, with its few-shot turns.
        prompt: the question, without layout.
        response: the answer to train on; `\\n\\nUser:` is added as its end.

    Returns:
        One sequence. Its tokens and weights are `[length]`: few-shot turns, question, answer, end.
    """
    before, after = dialogue.answer_tokens(tokenizer, prompt, response, end=END)
    return Datum((*before, *after), (*[0.0] * len(before), *[1.0] * len(after)))


def batch_indices(items: int, seed: int, phase: str, step: int, size: int) -> list[int]:
    """The indices of the items in the batch of a step.

    The epochs are concatenated and cut into batches. Every epoch is a new permutation, drawn at its own random address.

    Raises:
        UserError: there are no items, or size or step is out of range.
    """
    if items < 1 or size < 1 or step < 0:
        raise UserError(
            f"batch {step} of size {size} from {items} items: items and size must be at least 1, batches at least 0"
        )
    positions = range(step * size, (step + 1) * size)
    orders = {
        epoch: randomness.stream(seed, phase, epoch, "order").permutation(items)
        for epoch in range(positions[0] // items, positions[-1] // items + 1)
    }
    return [int(orders[position // items][position % items]) for position in positions]


def learning_rate(settings: Training, step: int) -> float:
    """The learning rate at a step: a linear warm-up, then the schedule; never 0.

    Args:
        settings: the peak `learning_rate`, the `schedule`, and `warmup` as a share of `steps`.
        step: the step, from 0 to `settings.steps - 1`.

    Returns:
        In warm-up `peak * (step + 1) / (warm-up steps + 1)`. Afterwards, with `t` the share of the remaining
        steps that is done: `peak` (constant), `peak * (1 - t)` (linear) or `peak * (1 + cos(pi * t)) / 2` (cosine).
    """
    warmup = round(settings.warmup * settings.steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, settings.steps - warmup)
    match settings.schedule:
        case "linear":
            return settings.learning_rate * (1 - progress)
        case "cosine":
            return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        case "constant":
            return settings.learning_rate


def train(
    engine: Engine,
    run: Run,
    plan: TrainingPlan,
    every: int,
    evaluate: Callable[[int, list[Adapter]], None],
    progress: Progress,
) -> dict[Adapter, str]:
    """Train all adapters of a phase, from its beginning or from the last stored state.

    Every `every` steps, and after the last one, state and metrics are stored and `evaluate(step, adapters)` is called.
    When the phase begins, the adapters must be in the engine; when it is resumed, their stored state is loaded.

    Returns:
        The adapters that failed, each with the reason.
    """
    settings, phase = plan.settings, plan.phase
    start = run.progress(phase)
    if start:
        states = {a: run.directory / paths.state(seed, phase, start) for a, seed in plan.adapters.items()}
        engine.load(states, optimizer=True)
    stored_failures = (Failure.model_validate(line) for line in run.lines(paths.failures(phase)))
    failed: dict[Adapter, str] = {failure.adapter: failure.reason for failure in stored_failures}
    steps: dict[Adapter, list[TrainingStep]] = {adapter: [] for adapter in plan.adapters}
    failures: list[Failure] = []
    if start:  # the run may have stopped before this evaluation was stored
        evaluate(start, [adapter for adapter in plan.adapters if adapter not in failed])
    with progress.bar(phase, settings.steps, start, "steps") as bar:
        for step in range(start, settings.steps):
            live = [adapter for adapter in plan.adapters if adapter not in failed]
            if not live:
                if step > start:  # to store why the last adapters failed
                    _store(engine, run, plan, step, start, steps, failures)
                break
            rate = learning_rate(settings, step)
            pending = engine.forward_backward({adapter: plan.batch(adapter, step) for adapter in live})
            broken = engine.optim_step(live, Adam(rate, clip_norm=settings.clip_norm))
            outcomes = {**pending.result(), **broken}
            for adapter, outcome in outcomes.items():
                match outcome:
                    case Failed(reason):
                        failed[adapter] = reason
                        failures.append(Failure(adapter=adapter, step=step, reason=reason))
                    case Step(loss, metrics, tokens):
                        steps[adapter].append(
                            TrainingStep(step=step, loss=loss, **metrics, learning_rate=rate, tokens=tokens)
                        )
            done = step + 1
            bar.advance(1, _values([outcome for outcome in outcomes.values() if isinstance(outcome, Step)]))
            if done % every and done != settings.steps:
                continue
            live = [adapter for adapter in plan.adapters if adapter not in failed]
            if plan.held_out is not None:
                for adapter, further in plan.held_out(live).items():
                    steps[adapter][-1] = TrainingStep(**steps[adapter][-1].dump(), **further)
            _store(engine, run, plan, done, start, steps, failures)
            start, failures, steps = done, [], {adapter: [] for adapter in plan.adapters}
            evaluate(done, live)
    return failed


def _values(steps: Sequence[Step]) -> str:
    """The newest loss and margin, means over the adapters, as a bar shows them."""
    newest = {
        "loss": [one.loss for one in steps],
        "margin": [one.metrics["margin"] for one in steps if "margin" in one.metrics],
    }
    return ", ".join(f"{name} {sum(values) / len(values):.3f}" for name, values in newest.items() if values)


def _store(
    engine: Engine,
    run: Run,
    plan: TrainingPlan,
    step: int,
    before: int,
    steps: Mapping[Adapter, list[TrainingStep]],
    failures: list[Failure],
) -> None:
    """Store every adapter's state after `step` steps and the metrics since `before`; delete the state of `before`."""
    phase, seeds = plan.phase, plan.adapters
    engine.save({a: run.directory / paths.state(seed, phase, step) for a, seed in seeds.items()})
    lines = {paths.metrics(seed, phase): to_lines(s.dump() for s in steps[a]) for a, seed in seeds.items()}
    if failures:
        lines[paths.failures(phase)] = to_lines(failure.dump() for failure in failures)
    run.commit(
        phase,
        step,
        append=lines,
        adopt=[paths.state(seed, phase, step) for seed in seeds.values()],
        forget=[paths.state(seed, phase, before) for seed in seeds.values()] if before else [],
    )
