"""The frame of every benchmark: contenders take turns, ratios have a spread, and a result is a file.

A contender is a function from a number of steps to what each of them took. Contenders take turns, round after round, so
that what else the machine does falls on all of them alike. A ratio is the median of the peer's steps over the median of
ours, in the median round; its spread is that ratio in the best and in the worst round. CPU seconds (of this process,
all threads) stand beside wall seconds, because they hardly depend on what else the machine does.
"""

import hashlib
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "numpy")


@dataclass(frozen=True, slots=True)
class Taken:
    """What one step took, in seconds."""

    wall: float
    cpu: float


Steps = Callable[[int], list[Taken]]
"""Runs n steps after a warm-up, and returns the duration of each."""


def synchronise() -> None:
    """Wait for the GPU, where there is one: its work is asynchronous."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Clock:
    """What passes between two calls of `lap`."""

    def __init__(self) -> None:
        self.lap()

    def lap(self) -> Taken:
        """What passed since the lap before."""
        synchronise()
        now = time.perf_counter(), time.process_time()
        before, self._last = getattr(self, "_last", now), now
        return Taken(now[0] - before[0], now[1] - before[1])


def steps_of(step: Callable[[], object], warm: int = 1) -> Steps:
    """A contender that calls `step` over and over; the first `warm` calls of a turn do not count."""

    def take(n: int) -> list[Taken]:
        for _ in range(warm):
            step()
        clock, out = Clock(), []
        for _ in range(n):
            step()
            out.append(clock.lap())
        return out

    return take


@dataclass(slots=True)
class Comparison:
    """One row: what was measured, by whom, and whether that is as fast as it should be.

    Attributes:
        name: of the row, and of its file.
        what: the work of one step, in words.
        seconds: of every step, by contender and round.
        ours: the contender that is ours.
        goals: for each peer, how many times faster we want to be.
        times: how often a contender's step has to be taken for the same work, such as 10 for one of ten seeds.
        equal: how it was checked that the contenders compute the same, with the figures.
        notes: what a reader has to know, one sentence each.
        figures: further numbers.
    """

    name: str
    what: str
    seconds: dict[str, list[list[Taken]]] = field(default_factory=dict)
    ours: str = ""
    goals: Mapping[str, float] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)
    equal: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def measure(self, contenders: Mapping[str, Steps], rounds: int, steps: int, at_most: float = 1e9) -> None:
        """Let them take turns. No round begins `at_most` seconds after the first."""
        began = time.perf_counter()
        for number in range(rounds):
            if number and time.perf_counter() - began > at_most:
                self.notes.append(f"{number} of {rounds} rounds were measured in the time there was.")
                break
            for name, take in contenders.items():
                self.seconds.setdefault(name, []).append(take(steps))

    def median(self, name: str, measure: str = "wall") -> float:
        """A contender's median seconds for the work, over all rounds."""
        every = [getattr(one, measure) for turn in self.seconds[name] for one in turn]
        return statistics.median(every) * self.times.get(name, 1.0)

    def ratios(self) -> dict[str, dict[str, Any]]:
        """For each goal the peer's time over ours."""
        return {peer: self._ratio(peer, goal) for peer, goal in self.goals.items()}

    def _ratio(self, peer: str, goal: float) -> dict[str, Any]:
        scale = self.times.get(peer, 1.0) / self.times.get(self.ours, 1.0)

        def median(turn: Sequence[Taken]) -> float:
            return statistics.median(one.wall for one in turn)

        rounds = [
            scale * median(theirs) / median(ours)
            for theirs, ours in zip(self.seconds[peer], self.seconds[self.ours], strict=False)
        ]
        ratio = statistics.median(rounds)
        cpu = self.median(peer, "cpu") / max(self.median(self.ours, "cpu"), 1e-9)
        return {
            "ratio": round(ratio, 2),
            "low": round(min(rounds), 2),
            "high": round(max(rounds), 2),
            "cpu_ratio": round(cpu, 2),
            "goal": goal,
            "reached": ratio >= goal,
        }

    def record(self) -> dict[str, Any]:
        """The row as JSON."""
        return {
            "name": self.name,
            "what": self.what,
            "ours": self.ours,
            "ratios": self.ratios(),
            "seconds": {
                name: {
                    "median": _rounded(self.median(name)),
                    "cpu": _rounded(self.median(name, "cpu")),
                    "rounds": [[_rounded(one.wall) for one in turn] for turn in rounds],
                    "rounds_cpu": [[_rounded(one.cpu) for one in turn] for turn in rounds],
                    "times": self.times.get(name, 1.0),
                }
                for name, rounds in self.seconds.items()
            },
            "equal": self.equal,
            "figures": self.figures,
            "notes": self.notes,
        }

    def text(self) -> str:
        """The row for people."""
        lines = [f"{self.name}: {self.what}"]
        for name in self.seconds:
            lines.append(f"  {name:58}{self.median(name):10.4f} s, {self.median(name, 'cpu'):10.4f} CPU s")
        for peer, one in self.ratios().items():
            verdict = "reached" if one["reached"] else "NOT reached"
            lines.append(
                f"  against {peer}: {one['ratio']} times [{one['low']}, {one['high']}], CPU {one['cpu_ratio']}; "
                f"goal {one['goal']}: {verdict}"
            )
        lines += [f"  {name}: {value}" for name, value in {**self.equal, **self.figures}.items()]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def machine() -> dict[str, Any]:
    """Where, with what and when a benchmark runs."""
    versions = {"python": platform.python_version(), "source": _source()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    gpu = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gpu = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": _commit(),
        "versions": versions,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "gpu": gpu,
    }


def save(row: Comparison, folder: Path = RESULTS) -> None:
    """Write `<name>.json` and print the row."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {**row.record(), "machine": machine()}
    (folder / f"{row.name}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(row.text(), flush=True)


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.4g}")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str | None:
    """The commit of this tree; None where its history did not come along, or where its code is not that commit's."""
    try:
        folder = Path(__file__).parent.parent
        changed, commit = (
            subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for command in (("status", "--porcelain", "src"), ("rev-parse", "HEAD"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return None if changed else commit


def _source() -> str:
    """A hash of the package's code, which says what was measured also where there is no commit."""
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent / "src"
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()[:16]
