"""The GPU's column of benchmarks/RESULTS.md: check that everything computes the same in bf16, then measure.

    python benchmarks/gpu.py --out FOLDER [--budget 500] [--rows checks,dpo,...] [--tiny]

Models have random weights, of Llama 3.2 3B's shape and of SmolLM2 135M's; lengths are fixed. Every row is written to
FOLDER/gpu.json as soon as it is done; a row that fails records its traceback, and the others go on. No row begins that
is not expected to end within the budget. With --tiny everything runs in minutes on a CPU, to try the script.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import ceilings
import generation
import torch
import training
from frame import Comparison, Steps, Taken, machine, steps_of
from training import BATCH, LORA, Peer
from workload import PROMPTS, save_model, workload

from cai_base.engines import SampleRequest
from cai_base.engines.local import LocalEngine

TRL, TRL_PACKED = "TRL and PEFT", "TRL and PEFT, packed"


@dataclass
class Bench:
    """What the rows share.

    Attributes:
        scratch: a folder for models and adapters.
        tiny: measure next to nothing, of a tiny model.
        deadline: when all has to be over, on `time.perf_counter`.
    """

    device: str
    scratch: Path
    tiny: bool
    deadline: float
    rounds: int = field(init=False)
    steps: int = field(init=False)
    seeds: int = field(init=False)
    prompts: int = field(init=False)

    def __post_init__(self) -> None:
        self.rounds, self.steps = (1, 1) if self.tiny else (3, 4)
        self.seeds, self.prompts = (2, 4) if self.tiny else (10, PROMPTS)
        self.work = workload()
        self.adapters = [f"{i}" for i in range(self.seeds)]
        self._loaded: dict[str, Any] = {}

    @cached_property
    def matmul(self) -> float:
        """Operations a second of a large matrix product."""
        return ceilings.matmul_rate(self.device)

    @cached_property
    def copy(self) -> float:
        """Bytes a second of a large copy."""
        return ceilings.copy_rate(self.device)

    def folder(self, shape: str) -> Path:
        """A model of this shape, made once."""
        folder = self.scratch / shape
        if not folder.exists():
            save_model(folder, "tiny" if self.tiny else shape, self.device, self.work)
        return folder

    def shape(self, shape: str) -> str:
        """The shape that stands for this one."""
        return "tiny" if self.tiny else shape

    def engine(self, shape: str) -> LocalEngine:
        """The engine on a model of this shape, with ten adapters; another shape's is dropped."""
        if f"engine {shape}" not in self._loaded:
            self.drop()
            engine = LocalEngine(str(self.folder(shape)), LORA, sequence_length=512, device=self.device)
            engine.create({name: i for i, name in enumerate(self.adapters)})
            engine.export({"0": self.scratch / f"{shape} adapter"})
            self._loaded[f"engine {shape}"] = engine
        engine = self._loaded[f"engine {shape}"]
        assert isinstance(engine, LocalEngine)
        return engine

    def peer(self, shape: str) -> Peer:
        """TRL on that model and on our first adapter."""
        self.engine(shape)
        if f"peer {shape}" not in self._loaded:
            self._loaded[f"peer {shape}"] = Peer(self.folder(shape), self.scratch / f"{shape} adapter", self.device)
        peer = self._loaded[f"peer {shape}"]
        assert isinstance(peer, Peer)
        return peer

    def drop(self, prefix: str = "") -> None:
        """Forget what is loaded, and give its memory back."""
        self._loaded = {key: value for key, value in self._loaded.items() if not key.startswith(prefix)}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def checks(bench: Bench) -> dict[str, Any]:
    """The engine's test matrix in this precision."""
    from matrix import checks as matrix

    made = matrix(bench.device, bench.scratch)
    return {"checks": made, "all passed": all(one["passed"] for one in made.values())}


def ceiling(bench: Bench) -> dict[str, Any]:
    """What the machine can do at most."""
    return {"matmul TFLOP/s": bench.matmul / 1e12, "copy GB/s": bench.copy / 1e9}


def dpo(bench: Bench) -> Comparison:
    """A DPO step of one adapter against TRL's, and of ten together."""
    engine, peer = bench.engine("3B"), bench.peer("3B")
    trainer = peer.dpo(bench.work.pairs(bench.prompts))
    pairs = training.as_pairs(trainer.train_dataset)
    one, ten = (training.dpo_batches(engine, pairs, names) for names in (["0"], bench.adapters))
    row = Comparison(
        "gpu-dpo-step",
        f"one DPO step: {BATCH} few-shot CAI pairs, LoRA 32, Llama-3.2-3B shape, bf16",
        ours="engine, 1 adapter",
        goals={TRL: 3.0},
    )
    row.measure(
        {
            TRL: training.laps(trainer),
            "engine, 1 adapter": training.ours(engine, ["0"], one),
            "engine, 10 adapters": training.ours(engine, bench.adapters, ten),
        },
        bench.rounds,
        bench.steps,
        at_most=50,
    )
    for name, batch, names in (("1", one, ["0"]), ("10", ten, bench.adapters)):
        work = ceilings.useful_operations(
            bench.shape("3B"), training.RANK, [batch(adapter, 0).sequences for adapter in names]
        )
        seconds = row.median(f"engine, {name} adapter{'s' if name == '10' else ''}")
        row.figures[f"useful share of the matmul rate, {name}"] = round(work / seconds / bench.matmul, 3)
        row.figures[f"useful TFLOP a step, {name}"] = round(work / 1e12, 3)
    row.figures["tokens of a batch, as given"] = sum(len(one.tokens) for one in batch("0", 0).sequences)
    return row


def sft(bench: Bench) -> Comparison:
    """An SFT step against TRL's, padded and packed."""
    engine, peer = bench.engine("3B"), bench.peer("3B")
    examples = bench.work.examples()
    padded = peer.sft(examples * 2)
    data = training.as_examples(padded.train_dataset)[: len(examples)]
    packed = peer.sft(examples * 2, pack=True)
    per_row = len(examples) * 2 / len(packed.train_dataset)
    row = Comparison(
        "gpu-sft-step",
        f"one SFT step: {BATCH} of the packaged examples, LoRA 32, Llama-3.2-3B shape, bf16",
        ours="engine, 1 adapter",
        goals={TRL: 2.0, TRL_PACKED: 2.0},
    )
    row.measure(
        {
            TRL: training.laps(padded),
            TRL_PACKED: training.laps(packed, per_row / BATCH),
            "engine, 1 adapter": training.ours(engine, ["0"], training.sft_batches(data, ["0"])),
            "engine, 10 adapters": training.ours(engine, bench.adapters, training.sft_batches(data, bench.adapters)),
        },
        bench.rounds,
        bench.steps,
        at_most=40,
    )
    row.notes.append(f"A packed row of TRL holds {per_row:.1f} examples; its time is scaled to {BATCH}.")
    return row


def _joined(*parts: Steps) -> Steps:
    """One step of each, as one."""

    def take(n: int) -> list[Taken]:
        every = [part(n) for part in parts]
        return [Taken(sum(t.wall for t in ones), sum(t.cpu for t in ones)) for ones in zip(*every, strict=True)]

    return take


def seeds(bench: Bench, shape: str, to_one: float | None) -> Comparison:
    """An SFT and a DPO step of ten seeds together against ten TRL runs, and against one seed of ours."""
    engine, peer = bench.engine(shape), bench.peer(shape)
    examples = bench.work.examples()
    sft_trainer, dpo_trainer = peer.sft(examples * 2), peer.dpo(bench.work.pairs(bench.prompts))
    data = training.as_examples(sft_trainer.train_dataset)[: len(examples)]
    pairs = training.as_pairs(dpo_trainer.train_dataset)
    engines = {}
    for title, names in (("engine, 1 seed", ["0"]), ("engine, 10 seeds", bench.adapters)):
        steps = (training.sft_batches(data, names), training.dpo_batches(engine, pairs, names))
        engines[title] = _joined(*(training.ours(engine, names, batch) for batch in steps))
    row = Comparison(
        f"gpu-ten-seeds-{shape.lower()}",
        f"one SFT step and one DPO step of ten seeds, batch {BATCH}, LoRA 32, {shape} shape, bf16",
        ours="engine, 10 seeds",
        goals={"ten runs of TRL": 6.0},
        times={"ten runs of TRL": bench.seeds},
        notes=["One run of TRL was measured and counted ten times."],
    )
    contenders = {"ten runs of TRL": _joined(training.laps(sft_trainer), training.laps(dpo_trainer)), **engines}
    row.measure(contenders, bench.rounds, bench.steps, at_most=45)
    row.figures["ten seeds over one"] = round(row.median("engine, 10 seeds") / row.median("engine, 1 seed"), 2)
    if to_one is not None:
        row.figures["ten seeds over one, goal"] = to_one
    return row


def memory(bench: Bench) -> dict[str, Any]:
    """Peak memory of a DPO step of ten seeds, with nothing else on the GPU."""
    engine = bench.engine("3B")
    bench.drop("peer")
    pairs = training.own_pairs(engine, bench.work.pairs(bench.prompts))
    steps = training.ours(engine, bench.adapters, training.dpo_batches(engine, pairs, bench.adapters))
    if bench.device != "cuda":
        return {"ten seeds, GiB": None, "seconds": steps(1)[0].wall}
    torch.cuda.reset_peak_memory_stats()
    taken = steps(1)
    return {"ten seeds, GiB": torch.cuda.max_memory_allocated() / 2**30, "goal": 80, "seconds": taken[0].wall}


def revision(bench: Bench) -> Comparison:
    """Revision data: all seeds together, one request at a time, and batched `generate`."""
    engine, few = bench.engine("3B"), 2
    response, critique, prompts = (4, 3, 3) if bench.tiny else (96, 48, PROMPTS)
    settings = generation.settings_of(response, critique, 1, 0.7)
    generate = generation.Generate(bench.folder("3B"), None, bench.device, engine.tokenizer, bench.peer("3B").model)
    alone = generation.OneAtATime(engine)
    row = Comparison(
        "gpu-revision",
        f"revision data, {prompts} prompts x {bench.seeds} seeds, 1 round, {response} and {critique} tokens, 3B, bf16",
        ours="engine",
        goals={"one request at a time": 60.0, "generate, batched": 4.0},
        times={"one request at a time": prompts * bench.seeds / few, "generate, batched": bench.seeds},
        notes=[
            f"One request at a time was measured on {few} prompts of one seed, generate on all prompts of one seed.",
            "Every text has its full length, because random weights end none; so one round stands for four.",
        ],
    )

    def revise(by: Any, names: list[str], n: int) -> Callable[[], object]:
        return lambda: generation.chains(by, bench.work, settings, names, n)

    contenders = {
        "engine": steps_of(revise(engine, bench.adapters, prompts), 0),
        "generate, batched": steps_of(revise(generate, ["0"], prompts), 0),
        "one request at a time": steps_of(revise(alone, ["0"], few), 0),
    }
    row.measure(contenders, 1, 1)
    return row


def decoding(bench: Bench) -> dict[str, Any]:
    """A decoding step over the time to read the weights once, for one row and for many."""
    engine, rows = bench.engine("3B"), (1, 4) if bench.tiny else (1, 42, 256)
    short, long = (2, 4) if bench.tiny else (8, 40)
    floor = ceilings.weight_bytes(bench.shape("3B"), bench.device) / bench.copy
    prompt = bench.work.dialogue.question_tokens(engine.tokenizer, bench.work.inputs.prompts[0].text)
    out: dict[str, Any] = {"weights read once, ms": floor * 1e3, "goal": 2.5}
    for n in rows:

        def draw(length: int, n: int = n) -> float:
            requests = [SampleRequest("0", prompt, length, 0.7, (), i) for i in range(n)]
            engine.sample(requests)
            return min(one.wall for one in steps_of(lambda: engine.sample(requests), 0)(2))

        step = (draw(long) - draw(short)) / (long - short)
        out[f"{n} rows"] = {"ms a step": step * 1e3, "times the floor": step / floor}
    return out


def evaluation(bench: Bench) -> Comparison:
    """The answers of ten adapters in one call, against one request at a time."""
    engine, few = bench.engine("3B"), 6
    tokens, prompts = (4, 4) if bench.tiny else (64, PROMPTS)
    settings = generation.settings_of(tokens, 8, 1, 0.7)
    alone = generation.OneAtATime(engine)
    few = min(few, prompts)
    row = Comparison(
        "gpu-evaluation",
        f"answers of {bench.seeds} adapters to {prompts} prompts, {tokens} tokens, 3B shape, bf16",
        ours="engine",
        goals={"one request at a time": 60.0},
        times={"one request at a time": prompts * bench.seeds / few},
        notes=[f"One request at a time was measured on {few} prompts of one adapter."],
    )
    row.measure(
        {
            "engine": steps_of(lambda: generation.answers(engine, bench.work, settings, bench.adapters, prompts), 0),
            "one request at a time": steps_of(lambda: generation.answers(alone, bench.work, settings, ["0"], few), 0),
        },
        1 if bench.tiny else 2,
        1,
        at_most=40,
    )
    return row


def comparisons(bench: Bench) -> Comparison:
    """Comparisons by log-probability, all in one call, against one answer after the other."""
    engine, few = bench.engine("3B"), 24
    pairs = training.own_pairs(engine, bench.work.pairs(bench.prompts))
    data = [datum for pair in pairs for datum in (pair.chosen, pair.rejected)]
    together = generation.comparisons(engine, data[:8], ["0"])
    in_turn = generation.comparisons_in_turn(engine, data[:8], ["0"])
    trained = [sum(one.weights) for one in data[:8]]
    worst = max(abs(a - b) / n for a, b, n in zip(together, in_turn, trained, strict=True))
    row = Comparison(
        "gpu-comparisons",
        f"log-probabilities of both answers to {bench.prompts} prompts under {bench.seeds} adapters, 3B shape, bf16",
        ours="engine",
        goals={"one at a time": 60.0},
        times={"one at a time": len(data) * bench.seeds / few},
        equal={"largest difference, nats per token": worst},
        notes=[f"One at a time was measured on {few} answers."],
    )
    row.measure(
        {
            "engine": steps_of(lambda: generation.comparisons(engine, data, bench.adapters), 1),
            "one at a time": steps_of(lambda: generation.comparisons_in_turn(engine, data[:few], ["0"]), 1),
        },
        bench.rounds,
        1,
        at_most=30,
    )
    return row


def default_run(bench: Bench) -> dict[str, Any]:
    """`cai-base run` on the embedded model, on the GPU and on the CPU of the same machine."""
    out: dict[str, Any] = {}
    small = [
        "--seeds",
        "2",
        "--sft.steps",
        "2",
        "--dpo.steps",
        "2",
        "--revision.prompts",
        "4",
        "--revision.rounds",
        "1",
    ]
    flags = [*small, "--accept", "judge,base,rate,power,engine"] if bench.tiny else []
    for device in ("cuda", "cpu") if bench.device == "cuda" else ("cpu",):
        environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})}
        command = [sys.executable, "-m", "cai_base", "run", "--out", str(bench.scratch / f"run {device}"), *flags]
        began = time.perf_counter()
        try:
            left = min(150.0, max(10.0, bench.deadline - began))
            made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            out[device] = f"not done within {left:.0f} s"
            continue
        out[device] = {"seconds": time.perf_counter() - began, "exit code": made.returncode}
        if made.returncode:
            out[device]["end of its output"] = (made.stdout + made.stderr)[-2000:]
    return out


ROWS: dict[str, tuple[Callable[[Bench], Comparison | dict[str, Any]], float]] = {
    "ceilings": (ceiling, 10),
    "checks": (checks, 70),
    "dpo": (dpo, 90),
    "sft": (sft, 50),
    "seeds-3b": (lambda bench: seeds(bench, "3B", None), 55),
    "revision": (revision, 110),
    "decoding": (decoding, 25),
    "evaluation": (evaluation, 45),
    "comparisons": (comparisons, 35),
    "memory": (memory, 25),
    "seeds-135m": (lambda bench: seeds(bench, "135M", 3.0), 45),
    "default-run": (default_run, 120),
}
"""Every row, in the order of what we want to know most, and the seconds that it may take."""


def main() -> None:
    """Run the rows that the budget allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=500, help="seconds, from the start")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    warnings.filterwarnings("ignore")
    training.quiet()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine(), "rows": {}}
    memory_disk = Path("/dev/shm")  # a model of 6 GB is written and read faster there
    large = memory_disk.is_dir() and os.statvfs(memory_disk).f_bavail * os.statvfs(memory_disk).f_frsize > 20 << 30
    with tempfile.TemporaryDirectory(dir=memory_disk if large and not options.tiny else None) as scratch:
        os.environ["CAI_BASE_CACHE"] = str(Path(scratch) / "cache")
        bench = Bench(device, Path(scratch), options.tiny, began + options.budget)
        for name in options.rows.split(","):
            row, expected = ROWS[name]
            at = time.perf_counter() - began
            if at + expected > options.budget and not options.tiny:
                results["rows"][name] = {"left out": f"{at:.0f} s of {options.budget:.0f} were over"}
            else:
                results["rows"][name] = _run(row, bench)
                results["rows"][name]["took"] = round(time.perf_counter() - began - at, 1)
            print(f"[{time.perf_counter() - began:.0f} s] {name}\n{_text(results['rows'][name])}", flush=True)
            part = options.out / "gpu.json.part"
            part.write_text(json.dumps(results, indent=1) + "\n")
            part.replace(options.out / "gpu.json")
        bench.drop()


def _run(row: Callable[[Bench], Comparison | dict[str, Any]], bench: Bench) -> dict[str, Any]:
    """A row's record, or its traceback."""
    try:
        made = row(bench)
        return made.record() | {"text": made.text()} if isinstance(made, Comparison) else dict(made)
    except Exception:  # the next row may well succeed, and the machine is lent for minutes
        failure = {"failed": traceback.format_exc()}
        bench.drop("peer")
        return failure


def _text(record: dict[str, Any]) -> str:
    return str(record.get("text") or record.get("failed") or json.dumps(record))


if __name__ == "__main__":
    main()
