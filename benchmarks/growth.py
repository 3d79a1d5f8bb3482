"""How time and memory grow with pairs, seeds, sequence length and model, on a CPU, one thread.

    python benchmarks/growth.py [--axes pairs,seeds,length,model] [--most 1000000] [--out FOLDER]

Every point is a process of its own: the seconds of CPU that the work took, after one time that does not count, and the
most memory that the process had. Written are `growth.json` and `growth.svg` beside this file. A power is fitted through
the last three points of an axis: 1 is linear.

    pairs     reference log-probabilities of so many pairs; tiny model, whose own share is small
    seeds     a DPO step of so many adapters, 4 packaged pairs each; 5M model
    length    a DPO step of 4 pairs that share only their prompt, so many tokens a sequence; 5M model
    model     a DPO step of 4 packaged pairs, so many million weights
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import training
from frame import machine
from training import BATCH, LORA
from workload import save_model, workload

from cai_base import randomness
from cai_base.engines import Adam, Datum
from cai_base.engines.local import LocalEngine
from cai_base.method.dpo import TokenPair

ANSWER = 48
"""Tokens of an answer where the length is measured."""
POINTS: Mapping[str, Sequence[int]] = {
    "pairs": (42, 200, 1000, 4000, 10_000),
    "seeds": (1, 2, 4, 8, 16, 32),
    "length": (256, 512, 1024, 2048, 4096),
    "model": (1, 5, 135),
}
SHAPES = {1: "tiny", 5: "5M", 135: "135M"}
"""Shapes by millions of weights."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: CPU seconds of the work, and the process's peak memory in MB."""

    seconds: float
    memory: float


def engine(scratch: Path, shape: str, length: int = 1024) -> LocalEngine:
    """The engine on a random model of this shape."""
    save_model(scratch / shape, shape, "cpu", workload())
    return LocalEngine(str(scratch / shape), LORA, sequence_length=length, device="cpu", threads=1)


def steps(ours: LocalEngine, adapters: Sequence[str], pairs: Sequence[TokenPair]) -> Callable[[], object]:
    """A DPO step of all adapters."""
    batch = training.dpo_batches(ours, pairs, adapters)

    def step() -> None:
        pending = ours.forward_backward({adapter: batch(adapter, 0) for adapter in adapters})
        ours.optim_step(adapters, Adam(training.RATE))
        pending.result()

    return step


def of_pairs(scratch: Path, n: int) -> Callable[[], object]:
    """The reference of `n` pairs."""
    ours = engine(scratch, "tiny")
    ours.create({"0": 0})
    pairs = training.own_pairs(ours, workload().pairs(n))
    return lambda: training.reference_logprobs(ours, "0", pairs, 0, BATCH)


def of_seeds(scratch: Path, n: int) -> Callable[[], object]:
    """A step of `n` adapters."""
    ours = engine(scratch, "5M")
    adapters = [f"{i}" for i in range(n)]
    ours.create({name: i for i, name in enumerate(adapters)})
    return steps(ours, adapters, training.own_pairs(ours, workload().pairs(BATCH)))


def of_length(scratch: Path, n: int) -> Callable[[], object]:
    """A step on sequences of `n` tokens."""
    ours = engine(scratch, "5M", n)
    ours.create({"0": 0})
    draw = randomness.stream("growth")

    def words(count: int) -> tuple[int, ...]:
        return tuple(draw.integers(2, 2000, count).tolist())

    def datum(prompt: tuple[int, ...]) -> Datum:
        return Datum((*prompt, *words(ANSWER)), (*[0.0] * len(prompt), *[1.0] * ANSWER))

    prompts = [words(n - ANSWER) for _ in range(BATCH)]
    return steps(ours, ["0"], [TokenPair(f"{i}", datum(one), datum(one)) for i, one in enumerate(prompts)])


def of_model(scratch: Path, n: int) -> Callable[[], object]:
    """A step of a model of `n` million weights."""
    ours = engine(scratch, SHAPES[n])
    ours.create({"0": 0})
    return steps(ours, ["0"], training.own_pairs(ours, workload().pairs(BATCH)))


AXES: Mapping[str, Callable[[Path, int], Callable[[], object]]] = {
    "pairs": of_pairs,
    "seeds": of_seeds,
    "length": of_length,
    "model": of_model,
}


def measure(axis: str, n: int) -> Point:
    """One point, in this process."""
    training.quiet()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        work = AXES[axis](Path(scratch), n)
        work()
        began = time.process_time()
        work()
        seconds = time.process_time() - began
    return Point(round(seconds, 4), round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1))


def power(points: Mapping[int, Point], value: Callable[[Point], float]) -> float:
    """The power of n with which the value grows, by least squares on the logarithms of the last three points."""
    last = sorted(points)[-3:]
    xs, ys = [math.log(n) for n in last], [math.log(value(points[n])) for n in last]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return round(sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs), 2)


def draw(record: Mapping[str, Any], file: Path) -> None:
    """The figure: time above, memory below, one panel an axis."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "cai-base"
    from matplotlib import pyplot

    axes_of = record["axes"]
    picture, panels = pyplot.subplots(
        2, len(axes_of), figsize=(3 * len(axes_of), 5), layout="constrained", squeeze=False
    )
    for column, (axis, one) in enumerate(axes_of.items()):
        for row, (key, title) in enumerate((("seconds", "s of CPU"), ("memory", "MB at most"))):
            panel = panels[row][column]
            xs = [int(n) for n in one["points"]]
            panel.plot(xs, [point[key] for point in one["points"].values()], "o-", color="#1f6feb")
            panel.set(xscale="log", yscale="log" if row == 0 else "linear", xlabel=axis, ylabel=title)
            panel.set_xticks(xs, [f"{n:,}" for n in xs], rotation=45, fontsize=7)
            panel.minorticks_off()
            panel.set_title(f"power {one[f'power of {key}']}", fontsize=9)
            panel.grid(alpha=0.25)
    picture.savefig(file, metadata={"Date": None}, facecolor="white")


def main() -> None:
    """Measure the axes that are asked for, each point in a new process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", default=",".join(AXES))
    parser.add_argument("--most", type=int, default=1_000_000, help="leave out points beyond this")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        point = measure(options.point[0], int(options.point[1]))
        print(json.dumps({"seconds": point.seconds, "memory": point.memory}))
        return
    record: dict[str, Any] = {"name": "growth", "axes": {}, "machine": machine()}
    for axis in options.axes.split(","):
        points: dict[int, Point] = {}
        for n in (n for n in POINTS[axis] if n <= options.most):
            command = [sys.executable, __file__, "--point", axis, str(n)]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            points[n] = Point(**json.loads(line))
            print(f"{axis} {n:,}: {points[n].seconds:.3f} s of CPU, {points[n].memory:.0f} MB", flush=True)
        record["axes"][axis] = {
            "points": {str(n): {"seconds": one.seconds, "memory": one.memory} for n, one in points.items()},
            "power of seconds": power(points, lambda one: one.seconds),
            "power of memory": power(points, lambda one: one.memory),
        }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "growth.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw(record, options.out / "growth.svg")


if __name__ == "__main__":
    main()
