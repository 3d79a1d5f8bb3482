"""Speed on a real base model, google/gemma-3-270m: load, draw, SFT, DPO and revision, beside their peers.

    scripts/real install
    python benchmarks/real_model.py [--rows load,draw,sft,dpo,revision] [--small] [--threads 2] [--rounds 3]
                                    [--padded WORKTREE] [--model FILE|FOLDER] [--out FOLDER]

All contenders of a row take turns in one run. Peers: `from_pretrained` of weights and tokenizer; TRL at its best
(`training.py`); `transformers.generate` on the same requests; with `--padded`, a git worktree of commit 488aaaf,
this project's engine of that time, which pads sliding windows, in a process of its own; if xllamacpp is installed,
llama.cpp's server on the GGUF file itself. --small takes 2 prompts and one round. Each row writes `real-<row>.json`.
On a busy machine read the ratios of CPU seconds.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import generation
import torch
import training
from frame import RESULTS, Comparison, Steps, Taken, save, steps_of
from training import BATCH, LORA, Peer
from workload import Workload, workload

from cai_base.cache import cache_folder
from cai_base.engines import Sample, SampleRequest
from cai_base.engines.local import LocalEngine
from cai_base.engines.local.gguf import converted, is_gguf
from cai_base.engines.local.sampling import draw

BASE = cache_folder() / "real" / "gemma-3-270m-q4_k_m.gguf"
LENGTH = 1792
"""The longest sequence of a run on the packaged inputs, in tokens."""
ROWS_DRAWN = 24
DRAWS = 3
TRL, GENERATE, PADDED = "TRL and PEFT", "generate", "padded engine of commit 488aaaf"
LLAMA = "llama.cpp's server, 8 slots"
ADAPTER = "0"
CHILD = Path(__file__).parent / "real_model_child.py"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: rounds of turns, steps a turn, and of revision the prompts and the tokens of its texts."""

    rounds: int
    steps: int
    prompts: int
    response: int
    critique: int


FULL, SMALL = Scale(3, 2, 24, 96, 64), Scale(1, 1, 2, 8, 8)


@dataclass
class Bench:
    """What the rows share.

    Attributes:
        folder: of the model.
        scratch: a folder for adapters and caches.
        padded: a worktree of the old commit, if there is one.
        gguf: the file that the model is from, if it is from one.
    """

    folder: Path
    scratch: Path
    scale: Scale
    threads: int
    padded: Path | None
    gguf: Path | None

    @property
    def llama(self) -> bool:
        """Whether llama.cpp's server can answer from the file."""
        return self.gguf is not None and importlib.util.find_spec("xllamacpp") is not None

    @cached_property
    def work(self) -> Workload:
        """The packaged inputs."""
        return workload()

    @cached_property
    def engine(self) -> LocalEngine:
        """The engine, with one adapter."""
        engine = LocalEngine(str(self.folder), LORA, sequence_length=LENGTH, threads=self.threads)
        engine.create({ADAPTER: 0})
        engine.export({ADAPTER: self.scratch / "adapter"})
        return engine

    @property
    def peer(self) -> Peer:
        """TRL on the same model and adapter; a new one each time, since a row trains it."""
        assert self.engine.packed, self.engine.notes
        return Peer(self.folder, self.scratch / "adapter", "cpu")


class Child:
    """A process that does one thing over and over, and says what it took: one line asks, one line answers."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, str(CHILD), *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
        )

    def once(self) -> Taken:
        """Do it once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{CHILD.name} ended with {self._process.wait()}")
        return Taken(**json.loads(line))

    def take(self, n: int) -> list[Taken]:
        """The child as a contender."""
        return [self.once() for _ in range(n)]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def load(bench: Bench) -> Comparison:
    """A new process for each load; importing the libraries does not count."""

    def fresh(what: str, cache: Path, model: Path = bench.folder) -> Steps:
        def take(n: int) -> list[Taken]:
            taken = []
            for _ in range(n):
                child = Child(what, str(model), str(bench.threads), environment={"CAI_BASE_CACHE": str(cache)})
                taken += child.take(1)
                child.close()
            return taken

        return take

    known = bench.scratch / "known"
    fresh("engine", known)(1)  # what it finds out about the model is remembered from now on
    row = Comparison(
        "real-load",
        f"loading Gemma-3-270M from a folder for sequences of {LENGTH} tokens; goal: at most 2.5 times from_pretrained",
        ours="engine, first time",
        goals={"from_pretrained": 1 / 2.5},
    )
    for number in range(bench.scale.rounds):
        contenders = {
            "from_pretrained": fresh("transformers", known),
            "engine": fresh("engine", known),
            "engine, first time": fresh("engine", bench.scratch / f"new {number}"),
        }
        if bench.gguf is not None:
            once = bench.scratch / f"converted {number}"
            contenders["engine, a GGUF file for the first time"] = fresh("gguf", once, bench.gguf)
            contenders["engine, a GGUF file again"] = fresh("gguf", once, bench.gguf)
        row.measure(contenders, 1, 1)
    for name in ("engine", "engine, first time"):
        times = row.median(name, "cpu") / row.median("from_pretrained", "cpu")
        row.figures[f"{name}: times the CPU seconds of from_pretrained"] = round(times, 2)
    return row


def drawing(bench: Bench) -> Comparison:
    """The draw of a token beside what a decoding step takes at least: every weight times every row."""
    model = bench.engine._model
    vocabulary, generator = int(model.get_output_embeddings().weight.shape[0]), torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(ROWS_DRAWN, vocabulary, generator=generator)
    turns = max(3, bench.scale.rounds)
    fresh = [logits.clone() for _ in range(turns * (DRAWS + 1))]  # a draw overwrites them, and begins with a warm-up
    temperatures = torch.full((ROWS_DRAWN,), 0.7, dtype=torch.float64)
    uniforms = torch.rand(ROWS_DRAWN, dtype=torch.float64, generator=generator)
    tokens = torch.randint(0, vocabulary, (ROWS_DRAWN, 1), generator=generator)

    @torch.inference_mode()
    def step() -> object:
        with bench.engine._sampler.ordered.used():
            return model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits

    def drawn() -> object:
        return draw(fresh.pop(), temperatures, uniforms)

    row = Comparison(
        "real-draw",
        f"the draw of {ROWS_DRAWN} tokens from a vocabulary of {vocabulary:,}; goal: at most 10 % of a decoding step",
        ours="draw",
        goals={"decoding step without a cache": 10},
    )
    contenders = {
        "decoding step without a cache": steps_of(step),
        "draw": steps_of(drawn),
    }
    row.measure(contenders, turns, DRAWS)
    return row


def sft(bench: Bench) -> Comparison:
    """An SFT step on the packaged examples."""
    trainer = bench.peer.sft(bench.work.examples()[:BATCH], **training.LOGGED)
    data = training.as_examples(trainer.train_dataset)
    row = Comparison("real-sft-step", f"one SFT step: {BATCH} packaged examples, LoRA 32, Gemma-3-270M", ours="engine")
    row.goals = {TRL: 2.5}
    return _steps(bench, row, trainer, training.sft_batches(data, [ADAPTER]))


def dpo(bench: Bench) -> Comparison:
    """A DPO step; both know the reference before."""
    trainer = bench.peer.dpo(bench.work.pairs(BATCH), **training.LOGGED)
    pairs = training.as_pairs(trainer.train_dataset)
    row = Comparison("real-dpo-step", f"one DPO step: {BATCH} few-shot CAI pairs, LoRA 32, Gemma-3-270M", ours="engine")
    row.goals = {TRL: 4}
    # The reference is the adapter before any step; another row may have trained it.
    bench.engine.load({ADAPTER: bench.scratch / "adapter"}, optimizer=False)
    return _steps(bench, row, trainer, training.dpo_batches(bench.engine, pairs, [ADAPTER]))


def _steps(bench: Bench, row: Comparison, trainer: Any, batch: training.BatchOf) -> Comparison:
    """Both take steps on one batch over and over, from the same adapter; in the first round the losses are compared."""
    bench.engine.load({ADAPTER: bench.scratch / "adapter"}, optimizer=False)
    mine: list[float] = []
    theirs: list[float] = []
    take = training.laps(trainer)

    def take_and_log(n: int) -> list[Taken]:
        taken = take(n)
        if not theirs:
            theirs.extend(training.logged_losses(trainer))
        return taken

    own = training.ours(bench.engine, [ADAPTER], batch, mine)
    row.measure({TRL: take_and_log, "engine": own}, bench.scale.rounds, bench.scale.steps)
    apart = training.agreement(mine[: len(theirs)], theirs)
    row.equal = {f"losses of {len(theirs)} steps, {name}": value for name, value in apart.items()}
    row.figures = {"losses": [round(one, 5) for one in mine[: len(theirs)]], "TRL's": [round(one, 5) for one in theirs]}
    return row


class Recorder:
    """An engine that keeps what it was asked, in the batches in which it was asked, with the lengths of its texts."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine, self.tokenizer = engine, engine.tokenizer
        self.batches: list[list[SampleRequest]] = []

    def sample(self, requests: Sequence[SampleRequest], listener: object = None) -> list[Sample]:
        """The responses."""
        samples = self.engine.sample(requests)
        lengths = zip(requests, samples, strict=True)
        self.batches.append([replace(one, stop=(), max_tokens=len(sample.tokens)) for one, sample in lengths])
        return samples


def revision(bench: Bench) -> Comparison:
    """One round of revision of the packaged prompts by one adapter: the same requests to all contenders."""
    scale = bench.scale
    settings = generation.settings_of(scale.response, scale.critique, 1, 0.7)
    recorder = Recorder(bench.engine)
    generation.chains(recorder, bench.work, settings, [ADAPTER], scale.prompts)
    # Every contender draws as many tokens of a text as the model wrote until its stop.
    batches = recorder.batches
    generate = generation.Generate(bench.folder, None, "cpu", bench.engine.tokenizer, bench.peer.model)
    row = Comparison(
        "real-revision",
        f"one round of revision, {scale.prompts} packaged prompts, at most {scale.response} and {scale.critique} "
        "tokens, Gemma-3-270M",
        ours="engine",
        goals={GENERATE: 5} | ({PADDED: 5} if bench.padded else {}) | ({LLAMA: 1.5} if bench.llama else {}),
        notes=["A text ends where the model ended it, the same for all; generate goes on until the last of a batch."],
    )
    drawn = [one.max_tokens for batch in batches for one in batch]
    row.figures["tokens drawn, of the most possible"] = round(
        sum(drawn) / sum(len(b) * max(one.max_tokens for one in b) for b in batches), 2
    )
    row.figures["tokens of the prompts, as given"] = sum(len(one.prompt) for batch in batches for one in batch)

    def ours() -> None:
        bench.engine.load({ADAPTER: bench.scratch / "adapter"}, optimizer=False)  # no prefix is kept from before
        for batch in batches:
            bench.engine.sample(batch)

    contenders = {
        GENERATE: steps_of(lambda: [generate.sample(batch) for batch in batches], 0),
        "engine": steps_of(ours, 0),
    }
    file = bench.scratch / "requests.json"
    file.write_text(json.dumps([[asdict(request) for request in batch] for batch in batches]))

    def fresh(*arguments: str, environment: Mapping[str, str] | None = None) -> Steps:
        def take(n: int) -> list[Taken]:
            taken = []
            for _ in range(n):  # llama.cpp's server would know the prompts of the time before
                child = Child(*arguments, str(bench.threads), str(file), environment=environment)
                taken += child.take(1)
                child.close()
            return taken

        return take

    if bench.padded is not None:
        place = {"PYTHONPATH": str(bench.padded / "src")}
        contenders[PADDED] = fresh("sample", str(bench.folder), environment=place)
    if bench.llama:
        contenders[LLAMA] = fresh("llama", str(bench.gguf))
        row.notes.append("llama.cpp computes with the file's 4-bit weights, the others with the same weights in fp32.")
    row.measure(contenders, scale.rounds, 1)
    return row


ROWS: Mapping[str, Callable[[Bench], Comparison]] = {
    "load": load,
    "draw": drawing,
    "sft": sft,
    "dpo": dpo,
    "revision": revision,
}


def main() -> None:
    """Run the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, help="of turns, in place of 3 (1 with --small)")
    parser.add_argument("--padded", type=Path)
    parser.add_argument("--model", type=Path, default=BASE)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    training.quiet()
    torch.set_num_threads(options.threads)
    from_gguf = is_gguf(str(options.model))
    folder = Path(converted(str(options.model))) if from_gguf else options.model
    file = options.model if from_gguf else None
    with tempfile.TemporaryDirectory() as scratch:
        scale = SMALL if options.small else FULL
        scale = replace(scale, rounds=options.rounds or scale.rounds)
        bench = Bench(folder, Path(scratch), scale, options.threads, options.padded, file)
        for name in options.rows.split(","):
            began = time.perf_counter()
            row = ROWS[name](bench)
            row.notes.append(f"{scale.rounds} rounds; the row took {time.perf_counter() - began:.0f} s.")
            save(row, options.out)


if __name__ == "__main__":
    main()
