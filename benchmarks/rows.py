"""The rows that compare the engine with its peers on one model: the same functions on a GPU and on a CPU.

Every row is a function from a `Bench` to a `Comparison`, or to plain figures. `gpu.py` and `cpu.py` run them.
"""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ceilings
import generation
import torch
import training
from frame import Comparison, Steps, Taken, steps_of
from training import BATCH, LORA, Peer
from workload import save_model, workload

from cai_base.engines import SampleRequest
from cai_base.engines.local import LocalEngine

TRL, TRL_PACKED, GENERATE = "TRL and PEFT", "TRL and PEFT, packed", "generate, batched"


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of the problem.

    Attributes:
        name: before the names of the rows.
        shape: of the model.
        about: the shape and the precision, in words.
        seeds, prompts: how many.
        rounds: in which the contenders take turns.
        steps: of every contender in a round.
        response, critique: tokens of a chain's texts.
        answer: tokens of an evaluation's answers.
        few: prompts on which one request at a time is measured.
        goals: how many times faster than each peer we want to be.
        patience: how many times a row's usual time may pass before no further round begins.
    """

    name: str
    shape: str
    about: str
    seeds: int
    prompts: int
    rounds: int
    steps: int
    response: int
    critique: int
    answer: int
    few: int
    goals: Mapping[str, float]
    patience: float = 1.0


@dataclass
class Bench:
    """What the rows share.

    Attributes:
        scratch: a folder for models and adapters.
        deadline: when all has to be over, on `time.perf_counter`.
    """

    device: str
    scratch: Path
    scale: Scale
    deadline: float

    def __post_init__(self) -> None:
        self.work = workload()
        self.adapters = [f"{i}" for i in range(self.scale.seeds)]
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
            save_model(folder, shape, self.device, self.work)
        return folder

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


def same_losses(bench: Bench, shape: str, *kinds: str) -> dict[str, Any]:
    """Whether our engine and TRL learn the same from one adapter and one batch: see `training.trajectory`."""
    engine, folder, work = bench.engine(shape), bench.folder(shape), bench.work
    compared = {
        kind: training.trajectory(kind, engine, folder, bench.scratch / "same", work.examples(), work.pairs(BATCH))
        for kind in kinds
    }
    return {
        f"{kind}, {training.CHECKED} steps, {training.APART}": one[training.APART] for kind, one in compared.items()
    }


def dpo(bench: Bench) -> Comparison:
    """A DPO step of one adapter against TRL's, and of ten together."""
    engine, peer = bench.engine(bench.scale.shape), bench.peer(bench.scale.shape)
    trainer = peer.dpo(bench.work.pairs(bench.scale.prompts))
    pairs = training.as_pairs(trainer.train_dataset)
    one, ten = (training.dpo_batches(engine, pairs, names) for names in (["0"], bench.adapters))
    row = Comparison(
        f"{bench.scale.name}-dpo-step",
        f"one DPO step: {BATCH} few-shot CAI pairs, LoRA 32, {bench.scale.about}",
        ours="engine, 1 adapter",
        goals={TRL: bench.scale.goals["dpo"]},
        equal=same_losses(bench, bench.scale.shape, "dpo"),
    )
    row.measure(
        {
            TRL: training.laps(trainer),
            "engine, 1 adapter": training.ours(engine, ["0"], one),
            f"engine, {len(bench.adapters)} adapters": training.ours(engine, bench.adapters, ten),
        },
        bench.scale.rounds,
        bench.scale.steps,
        at_most=50 * bench.scale.patience,
    )
    if bench.device == "cuda":  # a CPU's rate depends on what else it does
        for batch, names in ((one, ["0"]), (ten, bench.adapters)):
            name = len(names)
            work = ceilings.useful_operations(
                bench.scale.shape, training.RANK, [batch(adapter, 0).sequences for adapter in names]
            )
            seconds = row.median(f"engine, {name} adapter{'s' if name > 1 else ''}")
            row.figures[f"useful share of the matmul rate, {name}"] = round(work / seconds / bench.matmul, 3)
            row.figures[f"useful TFLOP a step, {name}"] = round(work / 1e12, 3)
    row.figures["tokens of a batch, as given"] = sum(len(one.tokens) for one in ten("0", 0).sequences)
    return row


def sft(bench: Bench) -> Comparison:
    """An SFT step against TRL's, padded and packed."""
    engine, peer = bench.engine(bench.scale.shape), bench.peer(bench.scale.shape)
    examples = bench.work.examples()
    padded = peer.sft(examples * 2)
    data = training.as_examples(padded.train_dataset)[: len(examples)]
    packed = peer.sft(examples * 2, pack=True)
    per_row = len(examples) * 2 / len(packed.train_dataset)
    row = Comparison(
        f"{bench.scale.name}-sft-step",
        f"one SFT step: {BATCH} of the packaged examples, LoRA 32, {bench.scale.about}",
        ours="engine, 1 adapter",
        goals={TRL: bench.scale.goals["sft"], TRL_PACKED: bench.scale.goals["sft"]},
        equal=same_losses(bench, bench.scale.shape, "sft", "packed sft"),
    )
    row.measure(
        {
            TRL: training.laps(padded),
            TRL_PACKED: training.laps(packed, per_row / BATCH),
            "engine, 1 adapter": training.ours(engine, ["0"], training.sft_batches(data, ["0"])),
            f"engine, {len(bench.adapters)} adapters": training.ours(
                engine, bench.adapters, training.sft_batches(data, bench.adapters)
            ),
        },
        bench.scale.rounds,
        bench.scale.steps,
        at_most=40 * bench.scale.patience,
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
    sft_trainer, dpo_trainer = peer.sft(examples * 2), peer.dpo(bench.work.pairs(bench.scale.prompts))
    data = training.as_examples(sft_trainer.train_dataset)[: len(examples)]
    pairs = training.as_pairs(dpo_trainer.train_dataset)
    engines, number = {}, len(bench.adapters)
    ours, theirs = f"engine, {number} seeds", f"{number} runs of TRL"
    for title, names in (("engine, 1 seed", ["0"]), (ours, bench.adapters)):
        steps = (training.sft_batches(data, names), training.dpo_batches(engine, pairs, names))
        engines[title] = _joined(*(training.ours(engine, names, batch) for batch in steps))
    row = Comparison(
        f"{bench.scale.name}-ten-seeds-{shape.lower()}",
        f"one SFT step and one DPO step of {number} seeds, batch {BATCH}, LoRA 32, {shape} shape",
        ours=ours,
        goals={theirs: bench.scale.goals["seeds"]},
        times={theirs: number},
        equal=same_losses(bench, shape, "sft", "dpo"),
        notes=[f"One run of TRL was measured and counted {number} times."],
    )
    contenders = {theirs: _joined(training.laps(sft_trainer), training.laps(dpo_trainer)), **engines}
    row.measure(contenders, bench.scale.rounds, bench.scale.steps, at_most=45 * bench.scale.patience)
    row.figures[f"{number} seeds over one"] = round(row.median(ours) / row.median("engine, 1 seed"), 2)
    if to_one is not None:
        row.figures[f"{number} seeds over one, goal"] = to_one
    return row


def memory(bench: Bench) -> dict[str, Any]:
    """Peak memory of a DPO step of ten seeds, with nothing else on the GPU."""
    engine = bench.engine(bench.scale.shape)
    bench.drop("peer")
    pairs = training.own_pairs(engine, bench.work.pairs(bench.scale.prompts))
    steps = training.ours(engine, bench.adapters, training.dpo_batches(engine, pairs, bench.adapters))
    if bench.device != "cuda":
        return {"ten seeds, GiB": None, "seconds": steps(1)[0].wall}
    torch.cuda.reset_peak_memory_stats()
    taken = steps(1)
    return {"ten seeds, GiB": torch.cuda.max_memory_allocated() / 2**30, "goal": 80, "seconds": taken[0].wall}


def revision(bench: Bench) -> Comparison:
    """Revision data: all seeds together, one request at a time, and batched `generate`."""
    scale, engine = bench.scale, bench.engine(bench.scale.shape)
    few, prompts = min(2, scale.few), scale.prompts
    settings = generation.settings_of(scale.response, scale.critique, 1, 0.7)
    model = bench.peer(scale.shape).model
    generate = generation.Generate(bench.folder(scale.shape), None, bench.device, engine.tokenizer, model)
    alone = generation.OneAtATime(engine)
    row = Comparison(
        f"{scale.name}-revision",
        f"revision data, {prompts} prompts x {scale.seeds} seeds, 1 round, {scale.response} and "
        f"{scale.critique} tokens, {scale.about}",
        ours="engine",
        goals={"one request at a time": scale.goals["one request"], GENERATE: scale.goals["generate"]},
        times={"one request at a time": prompts * scale.seeds / few, GENERATE: scale.seeds},
        notes=[
            f"One request at a time was measured on {few} prompts of one seed, generate on all prompts of one seed.",
            "Every text has its full length, because random weights end none; so one round stands for four.",
        ],
    )

    def revise(by: Any, names: list[str], n: int) -> Callable[[], object]:
        return lambda: generation.chains(by, bench.work, settings, names, n)

    contenders = {
        "engine": steps_of(revise(engine, bench.adapters, prompts), 0),
        GENERATE: steps_of(revise(generate, ["0"], prompts), 0),
        "one request at a time": steps_of(revise(alone, ["0"], few), 0),
    }
    row.measure(contenders, 1, 1)
    return row


def decoding(bench: Bench) -> dict[str, Any]:
    """A decoding step over the time to read the weights once, for one row and for many."""
    engine, rows = bench.engine(bench.scale.shape), (1, bench.scale.prompts, 6 * bench.scale.prompts)
    short, long = 8, 40
    floor = ceilings.weight_bytes(bench.scale.shape, bench.device) / bench.copy
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
    engine, few = bench.engine(bench.scale.shape), bench.scale.few
    tokens, prompts = bench.scale.answer, bench.scale.prompts
    settings = generation.settings_of(tokens, 8, 1, 0.7)
    alone = generation.OneAtATime(engine)
    row = Comparison(
        f"{bench.scale.name}-evaluation",
        f"answers of {bench.scale.seeds} adapters to {prompts} prompts, {tokens} tokens, {bench.scale.about}",
        ours="engine",
        goals={"one request at a time": bench.scale.goals["one request"]},
        times={"one request at a time": prompts * bench.scale.seeds / few},
        notes=[f"One request at a time was measured on {few} prompts of one adapter."],
    )
    row.measure(
        {
            "engine": steps_of(lambda: generation.answers(engine, bench.work, settings, bench.adapters, prompts), 0),
            "one request at a time": steps_of(lambda: generation.answers(alone, bench.work, settings, ["0"], few), 0),
        },
        bench.scale.rounds,
        1,
        at_most=40 * bench.scale.patience,
    )
    return row


def comparisons(bench: Bench) -> Comparison:
    """Comparisons by log-probability, all in one call, against one answer after the other."""
    engine, few = bench.engine(bench.scale.shape), 4 * bench.scale.few
    pairs = training.own_pairs(engine, bench.work.pairs(bench.scale.prompts))
    data = [datum for pair in pairs for datum in (pair.chosen, pair.rejected)]
    together = generation.comparisons(engine, data[:8], ["0"])
    in_turn = generation.comparisons_in_turn(engine, data[:8], ["0"])
    trained = [sum(one.weights) for one in data[:8]]
    worst = max(abs(a - b) / n for a, b, n in zip(together, in_turn, trained, strict=True))
    row = Comparison(
        f"{bench.scale.name}-comparisons",
        f"log-probabilities of both answers to {bench.scale.prompts} prompts under {bench.scale.seeds} adapters, "
        f"{bench.scale.about}",
        ours="engine",
        goals={"one at a time": bench.scale.goals["one request"]},
        times={"one at a time": len(data) * bench.scale.seeds / few},
        equal={"largest difference, nats per token": worst},
        notes=[f"One at a time was measured on {few} answers."],
    )
    row.measure(
        {
            "engine": steps_of(lambda: generation.comparisons(engine, data, bench.adapters), 1),
            "one at a time": steps_of(lambda: generation.comparisons_in_turn(engine, data[:few], ["0"]), 1),
        },
        bench.scale.rounds,
        1,
        at_most=30 * bench.scale.patience,
    )
    return row


def default_run(bench: Bench) -> dict[str, Any]:
    """`cai-base run` on the embedded model, on the GPU and on the CPU of the same machine."""
    out: dict[str, Any] = {}
    for device in ("cuda", "cpu") if bench.device == "cuda" else ("cpu",):
        environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})}
        command = [sys.executable, "-m", "cai_base", "run", "--out", str(bench.scratch / f"run {device}")]
        began = time.perf_counter()
        left = min(150.0, max(10.0, bench.deadline - began))
        log = bench.scratch / f"run {device}.log"
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
            try:
                code = process.wait(timeout=left)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # whatever processes it has begun
                process.wait()
                out[device] = f"not done within {left:.0f} s"
                continue
        out[device] = {"seconds": time.perf_counter() - began, "exit code": code}
        if code:
            out[device]["end of its output"] = log.read_text(encoding="utf-8")[-2000:]
    return out
