"""The step loop that SFT, DPO and SFT on revisions share: all seeds together, stored at intervals, resumable."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cai_base import randomness
from cai_base.dialogue import Dialogue, prompt_tokens, response_tokens
from cai_base.engines import Adam, Adapter, Batch, Datum, Engine, Failed, Step, Tokenizer
from cai_base.progress import Progress
from cai_base.settings.schema import Training
from cai_base.store import Record, Run, to_lines


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase's training.

    Attributes:
        name: `sft`, `dpo` or `sl-cai`; the name of its folder in a seed's directory.
        settings: steps, batch size, learning rate and so on.
        batch: the batch of an adapter at a step.
        adapters: for each adapter its seed's folder in the run.
        held_out: at the end of an interval, each adapter's further metrics, such as accuracy on held-out pairs.
    """

    name: str
    settings: Training
    adapters: Mapping[Adapter, str]
    batch: Callable[[Adapter, int], Batch]
    held_out: Callable[[list[Adapter]], Mapping[Adapter, dict[str, float | None]]] | None = None


def trained_sequence(tokenizer: Tokenizer, dialogue: Dialogue, prompt: str, response: str) -> Datum:
    """The prompt in its layout and the response; weight 1 on the response and its end, 0 on all before."""
    before = prompt_tokens(tokenizer, dialogue.question(prompt))
    after = response_tokens(tokenizer, response)
    return Datum((*before, *after), (*[0.0] * len(before), *[1.0] * len(after)))


def positions(items: int, seed: int, phase: str, step: int, size: int) -> list[int]:
    """Which items are in the batch of a step. Every epoch is a fresh order from its own address."""
    places = range(step * size, (step + 1) * size)
    orders = {
        epoch: randomness.stream(seed, phase, epoch, "order").permutation(items)
        for epoch in range(places[0] // items, places[-1] // items + 1)
    }
    return [int(orders[place // items][place % items]) for place in places]


def learning_rate(settings: Training, step: int) -> float:
    """The learning rate at `step` (from 0): a linear rise over the warm-up, then the schedule; never 0."""
    rise = round(settings.warmup * settings.steps)
    if step < rise:
        return settings.learning_rate * (step + 1) / (rise + 1)
    done = (step - rise) / max(1, settings.steps - rise)
    match settings.schedule:
        case "linear":
            return settings.learning_rate * (1 - done)
        case "cosine":
            return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        case _:
            return settings.learning_rate


def train(
    engine: Engine,
    run: Run,
    phase: Phase,
    every: int,
    evaluate: Callable[[int, list[Adapter]], None],
    progress: Progress,
) -> dict[Adapter, str]:
    """Train all adapters of a phase from where they are, or from where the run was stopped.

    Every `every` steps, and after the last one, state and metrics are stored and `evaluate(step, adapters)` is called.
    The adapters must exist, untrained, when the run begins this phase; on resume their stored state replaces them.

    Returns:
        Adapters that failed, and why.
    """
    settings, name = phase.settings, phase.name
    start = run.progress(name)
    if start:
        engine.load(
            {a: run.directory / _state(folder, name, start) for a, folder in phase.adapters.items()}, optimizer=True
        )
    failed: dict[Adapter, str] = {r["adapter"]: r["reason"] for r in run.lines(f"{name}-failed.jsonl")}
    metrics: dict[Adapter, list[Record]] = {adapter: [] for adapter in phase.adapters}
    failures: list[Record] = []
    if start:
        evaluate(start, [a for a in phase.adapters if a not in failed])  # the stop may have come before it was done
    with progress.bar(name, settings.steps, start) as bar:
        for step in range(start, settings.steps):
            live = [adapter for adapter in phase.adapters if adapter not in failed]
            if not live:
                if step > start:  # what ended the last of them is kept too
                    _store(engine, run, phase, step, start, metrics, failures)
                break
            rate = learning_rate(settings, step)
            pending = engine.forward_backward({adapter: phase.batch(adapter, step) for adapter in live})
            broken = engine.optim_step(live, Adam(rate, clip_norm=settings.clip_norm))
            for adapter, outcome in {**pending.result(), **broken}.items():
                match outcome:
                    case Failed(reason):
                        failed[adapter] = reason
                        failures.append({"adapter": adapter, "step": step, "reason": reason})
                    case Step(loss, values, tokens):
                        record = {"step": step, "loss": loss, **values, "learning_rate": rate, "tokens": tokens}
                        metrics[adapter].append(record)
            done = step + 1
            bar.advance(1)
            if done % every and done != settings.steps:
                continue
            live = [adapter for adapter in phase.adapters if adapter not in failed]
            if phase.held_out is not None:
                for adapter, measured in phase.held_out(live).items():
                    metrics[adapter][-1].update(measured)
            _store(engine, run, phase, done, start, metrics, failures)
            start, failures, metrics = done, [], {adapter: [] for adapter in phase.adapters}
            evaluate(done, live)
    return failed


def _state(folder: str, name: str, step: int) -> str:
    return f"{folder}/{name}/state-{step}"


def _store(
    engine: Engine,
    run: Run,
    phase: Phase,
    step: int,
    before: int,
    metrics: Mapping[Adapter, list[Record]],
    failures: list[Record],
) -> None:
    """Store the state of every adapter after `step` steps, and the metrics since `before`; drop the state before."""
    folders = phase.adapters
    engine.save({a: run.directory / _state(folder, phase.name, step) for a, folder in folders.items()})
    run.commit(
        phase.name,
        step,
        append={
            **{f"{folder}/{phase.name}/metrics.jsonl": to_lines(metrics[a]) for a, folder in folders.items()},
            **({f"{phase.name}-failed.jsonl": to_lines(failures)} if failures else {}),
        },
        adopt=[_state(folder, phase.name, step) for folder in folders.values()],
        forget=[_state(folder, phase.name, before) for folder in folders.values()] if before else [],
    )
