"""Where the time goes: in a run of the embedded model by the engine's verbs, and in a DPO step by operations.

    python benchmarks/where.py [--gemma FILE|FOLDER] [flags of cai-base run]

Seconds of CPU, one thread. The run is the default one with three seeds, unless flags say otherwise. With --gemma a DPO
step of that model is measured too, on four packaged pairs. Written is `where.json` beside this file.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import training
from frame import machine
from torch.profiler import ProfilerActivity, profile
from training import BATCH, LORA
from workload import TextPair, workload

from cai_base import Dialogue, embedded, packaged
from cai_base.cli import main as cai_base
from cai_base.dialogue import END
from cai_base.engines import Adam
from cai_base.engines.local import LocalEngine
from cai_base.engines.local.gguf import converted, is_gguf

VERBS = ("forward_backward", "optim_step", "compute_logprobs", "sample")
OPERATIONS = 8
"""The operations that are named; the others are one sum."""


def of_run(flags: list[str]) -> dict[str, float]:
    """The share of every verb in the seconds of a run; `rest` is loading, judging, statistics, files, figures."""
    seconds: Counter[str] = Counter()

    def timed(verb: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            began = time.process_time()
            try:
                return own(*args, **more)
            finally:
                seconds[verb] += time.process_time() - began

        return call

    own = {verb: getattr(LocalEngine, verb) for verb in VERBS}
    for verb in VERBS:
        setattr(LocalEngine, verb, timed(verb, own[verb]))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            began = time.process_time()
            code = cai_base(["run", "--threads", "1", "--out", f"{scratch}/run", *(flags or ["--seeds", "3"])])
            seconds["all"] = time.process_time() - began
    finally:
        for verb in VERBS:
            setattr(LocalEngine, verb, own[verb])
    if code != 0:
        raise SystemExit(f"cai-base run ended with {code}")
    seconds["rest"] = seconds["all"] - sum(seconds[verb] for verb in VERBS)
    return {name: round(value, 2) for name, value in seconds.items()}


def of_village() -> list[TextPair]:
    """A batch of pairs in the embedded model's world."""
    inputs = packaged("world", first=BATCH)
    dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)
    answers = [f" {one.response}{END}" for one in inputs.examples]
    return [TextPair(dialogue.question(one.text), *answers[i % 2 : i % 2 + 2]) for i, one in enumerate(inputs.prompts)]


def of_step(folder: str, texts: Sequence[TextPair]) -> dict[str, float]:
    """The seconds of a DPO step by operation."""
    engine = LocalEngine(folder, LORA, sequence_length=512, device="cpu", threads=1)
    engine.create({"0": 0})
    batch = training.dpo_batches(engine, training.own_pairs(engine, texts), ["0"])

    def step() -> None:
        pending = engine.forward_backward({"0": batch("0", 0)})
        engine.optim_step(["0"], Adam(training.RATE))
        pending.result()

    step()
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        began = time.process_time()
        step()
        total = time.process_time() - began
    # The profiler's clock is the wall's; shares of it are taken of the CPU's seconds.
    every = sorted(trace.key_averages(), key=lambda one: -one.self_cpu_time_total)
    wall = sum(one.self_cpu_time_total for one in every)
    named = {one.key: round(total * one.self_cpu_time_total / wall, 3) for one in every[:OPERATIONS]}
    return {**named, "others": round(total - sum(named.values()), 3), "all": round(total, 3)}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gemma")
    options, flags = parser.parse_known_args()
    training.quiet()
    torch.set_num_threads(1)
    record: dict[str, Any] = {
        "run": of_run(flags),
        "flags": " ".join(flags or ["--seeds", "3"]),
        "a DPO step of the embedded model": of_step(str(embedded.weights()), of_village()),
    }
    if options.gemma:
        folder = str(converted(options.gemma)) if is_gguf(options.gemma) else options.gemma
        record["a DPO step of Gemma-3-270M"] = of_step(folder, workload().pairs(BATCH))
    record["machine"] = machine()
    print(json.dumps(record, indent=1))
    (Path(__file__).parent / "where.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
