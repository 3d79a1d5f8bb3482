"""Estimates the time and memory of a run, from the tokens that `cost` counts and the speed of a few timed steps."""

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cai_base import arms
from cai_base.dialogue import prompt_tokens
from cai_base.engines import Adam, Batch, Datum, Engine, LinearLoss, SampleRequest, Usage
from cai_base.inputs import Inputs
from cai_base.method.phase import Phase, Size, adapter_name
from cai_base.paths import LIVE
from cai_base.progress import Outlook, Progress, in_minutes
from cai_base.records import Answer
from cai_base.records.spending import Live
from cai_base.run.spending import cost
from cai_base.settings.engines import engine_kind
from cai_base.settings.schema import RunSettings
from cai_base.store import Run, to_json, write_atomic
from cai_base.text import for_terminal

LONG = 200_000
"""A run with at most this many tokens to train on and to sample is short, and gets no estimate."""
FEW, MORE = 4, 12
"""Lengths in tokens of the two timed responses to each request; their time difference gives the time per token."""
READING = 1 / 3
"""The time of a forward pass as a share of that of a forward and a backward pass."""
GIGABYTE = 1 << 30
RECORD = "forecast"
"""The name of the forecast in the manifest."""


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed and memory of a few steps.

    Attributes:
        trained, read, sampled: seconds per token.
        memory: the peak memory so far, in bytes, on the engine's device.
    """

    trained: float
    read: float
    sampled: float
    memory: int


def forecast(
    settings: RunSettings, inputs: Inputs, engine: Engine, phases: Sequence[Phase], pilot: Sequence[Answer]
) -> tuple[dict[str, float], Speed] | None:
    """The expected seconds of every phase, and the measured speed; None for a short run.

    Args:
        engine: a local engine with the base model. Timing does not change its state.
        pilot: answers of the base model; their mean length is the expected length of all responses.
    """
    usages = cost.estimate(settings, inputs, engine.tokenizer, phases)
    usages = of_phases(usages, settings)
    whole = sum(usages.values(), Usage())
    if whole.trained + whole.sampled < LONG:
        return None
    speed = measured_speed(settings, inputs, engine)
    share = sum(one.tokens or 0 for one in pilot) / (len(pilot) * settings.evaluation.response_tokens) if pilot else 1.0
    return expected_seconds(usages, speed, share), speed


def of_phases(usages: Mapping[str, Usage], settings: RunSettings) -> dict[str, Usage]:
    """The tokens of what is forecast: all but preflight and the judges."""
    return {name: usages[name] for name in usages if name != "preflight" and name not in settings.judges}


def measured_speed(settings: RunSettings, inputs: Inputs, engine: Engine) -> Speed:
    """The speed of an engine at batches and units of these settings. Its state does not change."""
    on_pairs = any(arms.arm(name).section == "dpo" for name in (*settings.trained_arms, *settings.controls))
    sequences = 2 * settings.dpo.batch_size if on_pairs else settings.sft.batch_size
    size = cost.run_size(settings.seeds, settings.revision, settings.evaluate_every, inputs, engine.tokenizer)
    return measure(engine, size, settings.revision.unit, sequences)


def expected_seconds(usages: Mapping[str, Usage], speed: Speed, share: float = 1.0) -> dict[str, float]:
    """The expected seconds by phase.

    Args:
        share: the expected length of responses, as a share of the longest.
    """
    return {name: _seconds(usage, speed, share) for name, usage in usages.items()}


def _seconds(usage: Usage, speed: Speed, share: float) -> float:
    reading = speed.read if usage.sampled else speed.trained * READING
    return usage.trained * speed.trained + usage.prefilled * reading + share * usage.sampled * speed.sampled


def measure(engine: Engine, size: Size, unit: int, sequences: int) -> Speed:
    """Time the second of two training steps, and two short responses to each prompt of a unit, for all seeds.

    Args:
        unit: prompts in a unit.
        sequences: in the batch of a training step.
    """
    names = [adapter_name("forecast", number) for number in range(size.seeds)]
    questions = [size.dialogue.question(one.text) for one in size.prompts[:unit]]
    prompts = [tuple(prompt_tokens(engine.tokenizer, question)) for question in questions]
    length = min(round(size.answered_question), engine.context_length)
    batch = Batch([_datum(prompts[n % len(prompts)], length, n) for n in range(sequences)], LinearLoss(1.0 * length))
    requests = [(name, prompt) for name in names for prompt in prompts]

    def step() -> None:
        engine.forward_backward(dict.fromkeys(names, batch)).result()
        engine.optim_step(names, Adam(0.0))

    def respond(tokens: int) -> None:
        engine.sample([SampleRequest(name, prompt, tokens, 1.0, (), n) for n, (name, prompt) in enumerate(requests)])

    engine.create(dict.fromkeys(names, 0))
    try:
        step()  # allocates memory and selects kernels
        training = _timed(step)
        few, more = _timed(lambda: respond(FEW)), _timed(lambda: respond(MORE))
    finally:
        engine.remove(names)
    sampled = max(more - few, 0.1 * more) / (len(requests) * (MORE - FEW))
    read = max(few - FEW * len(requests) * sampled, 0.0) / sum(len(prompt) for _, prompt in requests)
    return Speed(training / (len(names) * sequences * length), read, sampled, most_memory(engine.device))


def _datum(prompt: tuple[int, ...], length: int, number: int) -> Datum:
    """The prompt, then its tokens in another order for each `number`: sequences share a prefix but no suffix."""
    tokens = prompt[:length]
    while len(tokens) < length:
        shift = (number + len(tokens)) % len(prompt)
        tokens = (*tokens, *prompt[shift:], *prompt[:shift])[:length]
    return Datum(tokens, (0.0, *[1.0] * (length - 1)))


def _timed(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def most_memory(device: str) -> int:
    """The peak memory of this process in bytes, on the GPU or on the machine."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def first(
    settings: RunSettings,
    inputs: Inputs,
    engine: Engine,
    phases: Callable[[RunSettings, Inputs], Sequence[Phase]],
    pilot: Sequence[Answer],
    run: Run,
    seconds: Callable[[], Mapping[str, float]],
    progress: Progress,
) -> None:
    """Before a run: print the estimate if the run is long and local, show one answer, and show the time left in
    bars."""
    if not engine_kind(settings.engine).served:  # on a service, timed steps would cost money
        estimate = forecast(settings, inputs, engine, phases(settings, inputs), pilot)
        if estimate is not None:
            parts, speed = estimate
            run.usage[RECORD] = {name: round(seconds, 1) for name, seconds in parts.items()}
            progress.say(
                f"Estimate from a few timed steps: about {in_minutes(sum(parts.values()))} on {engine.device}, and "
                f"{speed.memory / GIGABYTE:.1f} GB of memory"
            )
    if pilot and progress.in_terminal:
        one = next((answer for answer in pilot if answer.response), pilot[0])
        progress.say(for_terminal(f"An answer of the base model. Prompt: {one.prompt}\n  answer: {one.response}"))
    follow(run, engine, seconds, progress)


def follow(run: Run, engine: Engine, seconds: Callable[[], Mapping[str, float]], progress: Progress) -> None:
    """Show the time left for the run in bars, from the stored forecast, if there is one, and note it for `watch`.

    Args:
        seconds: returns the seconds spent so far in each phase.
    """

    def tell(shares: Mapping[str, float], so_far: Mapping[str, float]) -> None:
        write_atomic(run.directory / LIVE, to_json(Live(shares=dict(shares), seconds=dict(so_far)).dump()))

    (run.directory / LIVE).unlink(missing_ok=True)  # an earlier process's, with work that is done again
    stored = run.usage.get(RECORD, {})
    meter = engine.meter  # not the engine, which is released when it is no longer needed
    progress.follow(
        Outlook(stored, seconds, tell),
        lambda: sum(used.trained + used.sampled for used in meter.used.values()),
    )
