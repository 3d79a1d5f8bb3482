"""Write benchmarks/RESULTS.md from the results that lie under benchmarks/results/ and benchmarks/gpu/.

python benchmarks/write_results.py
"""

import json
import statistics
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HEAD = """# Speed, measured

Made by `python benchmarks/write_results.py` from the JSON files beside it. Ratio: the peer's median time divided by
ours, per round; the median over rounds, with the least and the greatest in brackets where there are several. It is
computed here from the times of all steps: `ratio` in the GPU's files is of an earlier definition. Rows on a CPU were
measured beside other work, so that their verdicts are by CPU time, and the ratio of wall time stands beside them. CPU
time depends on other work, too: one DPO step of ours on the 5M model took 0.6 to 1.8 CPU seconds on different days, and
its ratio was 2.0 to 2.9. Contenders take turns; read ratios, not seconds. Peers: TRL's trainers on a PEFT model
(reference log-probabilities computed beforehand, fused AdamW, sdpa, without compilation; TRL 1.16 refuses
`padding_free` in DPO), and `transformers.generate` with all prompts of an adapter in one batch, on the PEFT model as it
is (the adapter is not merged). The weights are random, and every length is fixed, but in the rows of Gemma-3-270M and
of the default run, whose weights are real. Of a recorded GPU pass the recording is not counted. What was measured is
named by `source`, a hash of the package's code (`benchmarks/frame.py`); a JSON file has the commit too where this
repository has it. That both compute the same is checked where losses or log-probabilities can be compared: the notes
say how far apart they were; of drawing, lengths are fixed and greedy answers equal `generate` in a test. The steps of
Gemma-3-270M, its rows in bfloat16, and everything on a GPU are older than attention in blocks (28 November,
[LOG.md](../docs/LOG.md)), with which a DPO step of the 5M model takes three quarters of its time; the rows in bfloat16
are older than weights in oneDNN's order, too, with which drawing in fp32 takes three quarters.
"""
COMMANDS = """Rows of the 5M model: `OMP_NUM_THREADS=1 python benchmarks/cpu.py` (`make bench`); of Gemma-3-270M:
`python benchmarks/real_model.py --rows dpo --small --threads 1`, the same with `sft`, and `--rows load`, `draw`,
`revision` with `--threads 1` (revision with `--rounds 1` and `--padded WORKTREE`); in bfloat16:
`python benchmarks/precision.py`; the default run: `python benchmarks/original_way.py --share 12`, and beside the first
edition `python benchmarks/before.py --rounds 1`. On a GPU: `python benchmarks/gpu.py --out FOLDER`.
"""
WHY = {
    "first gpu-dpo-step": "A step of one adapter waited for launches: the GPU needs 24 ms for its 14.5 TFLOP.",
    "first gpu-sft-step": "As the DPO step: launches, not arithmetic.",
    "first gpu-ten-seeds-3b": "Ten adapters use 26 % of the matmul rate; where the rest goes was not profiled.",
    "second gpu-dpo-step": "Where the rest of a recorded step goes was not profiled.",
    "second decoding": "a step of so few rows waits for launches, of which none is recorded",
    "second gpu-ten-seeds-135m": "Passes of more than 4,096 tokens are not recorded.",
    "second gpu-comparisons": "One at a time is a single short forward pass, which wastes little of a GPU.",
    "results cpu-dpo-step": "A step is arithmetic here, and packing leaves about 1,150 of 2,696 tokens.",
    "results cpu-sft-step": "As the DPO step, with one prefix for four answers.",
    "results cpu-ten-seeds-5m": "On a CPU ten adapters are ten times the arithmetic.",
    "results cpu-comparisons": "Of 28,812 tokens of an adapter packing leaves 12,404, and a sequence alone "
    "wastes little of a thread.",
    "results cpu-evaluation": "A batch saves what a request alone wastes of a thread, and no arithmetic.",
    "results real-sft-step": "TRL's padded batch alone: its packed one was not measured on this model.",
    "results precision-dpo": "The goal is this project's own.",
    "results precision-revision": "The goal is this project's own.",
    "results cpu-original-way": "The embedded model is so small that a request alone wastes little of one thread.",
    "results cpu-revision": "Against one request at a time as the evaluation: a batch saves what a request alone "
    "wastes of a thread, and the prefix that all share.",
    "results cpu-run-before": "The first edition had packing, shared prefixes and stacked adapters already; what came "
    "since is for windows, large vocabularies and long rows, which this model has not.",
    "results real-revision": "Half of our time is matrix products at 55 of some 60 GFLOP/s that the core has in one; "
    "every contender multiplies by the 262,144 rows of the head for each token that it draws.",
}
"""Why a goal was not reached, by file or folder and row."""
THREADS = "cpu-threads"
THREADS_SAID = """`python benchmarks/threads.py`, two cores, seconds by the clock, medians of two rounds alone and of
one beside another: whole runs with the settings as they are (one thread a core, which sleeps while it waits), and with
others. Goal: at most 1.2 times the best. The first and the last have the same settings: so much is noise.
"""
SHARE = 0.45
"""Of the matmul rate, on a GPU."""
SLOWER = 1.2
"""How many times as long as with the best setting a run may take."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ALSO = """## Also measured

- `python benchmarks/large_run.py --replies 100000 --chains 10000`, 28 November 2026, one thread beside another job:
  the report of a run with 10,000 chains of revision and 75,000 answers takes 14 to 16 CPU seconds (21 to 23 s by the
  clock; goal 10: not reached) and 513 MB, of which the imports are 307. With `--replies 2000`, which leaves the
  chains and 1,500 answers, it takes 12.7 CPU seconds, of which 4.5 write logs for Inspect, where that is installed.
  The page has 0.9 MB in both cases, because texts are compressed (before: 18 and 14 MB; goal 5: reached). These texts
  repeat themselves: 10,000 items of a run of Gemma-3-270M are 5.9 MB (`python benchmarks/page.py RUN`; goal 5: not
  reached).
"""
OPEN = (
    (
        "an SFT step and ten seeds of the 3B shape with recorded passes",
        "the GPU's time was over; `first.json` is without",
    ),
    ("vLLM on a GPU", "no GPU was at hand where it could be installed"),
    (
        "the share of the matmul rate on a CPU",
        "measured once as 1.23, because the rate, too, depends on what else the machine does: no ceiling",
    ),
    ("the CPU's rows, Gemma-3-270M's among them, on two threads", "one core was free"),
    ("Gemma-3-270M's DPO, SFT and revision in more rounds than one", "a round takes 13 to 61 minutes of a core"),
    ("TRL's packed batch, and more than one step a round, on Gemma-3-270M", "the same"),
    ("the default run on a GPU", "not run"),
    ("growth of a model from 135M to 270M, with real weights", "`growth.py` ends at the shape of 135M"),
    (
        "llama.cpp's server on 42 prompts, 4 rounds and 10 seeds",
        "it has one adapter a request; beside it stand 24 prompts, one round and one adapter of Gemma-3-270M",
    ),
    ("the bf16 checks on a GPU with a larger model", "`matrix.py` checks nine things on the embedded model's 2.6M"),
    (
        "10,000 prompts of revision data drawn from a model",
        "the folder of `large_run.py` is written by the store alone",
    ),
)
"""Rows that nobody has run, and why."""


def main() -> None:
    """Write the page."""
    parts = [HEAD]
    own = [json.loads(file.read_bytes()) for file in sorted((HERE / "results").glob("*.json"))]
    own = [one for one in own if "ratios" in one]
    by_the_clock = [one for one in own if one["name"].startswith(THREADS)]
    own = [one for one in own if one not in by_the_clock]
    if own:
        parts += [
            "## CPU\n",
            COMMANDS,
            cpu_table(own),
            notes(own, "results"),
        ]
    for file in sorted((HERE / "gpu").glob("*.json")):
        content = json.loads(file.read_bytes())
        named = [one for one in content["rows"].values() if "ratios" in one]
        machine = content["machine"]
        parts += [
            f"## {machine['gpu']}: `gpu/{file.name}`\n",
            table(named),
            machines([machine]),
            notes(named, file.stem),
        ]
        parts.append(plain(content["rows"], file.stem))
    if (HERE / "where.json").is_file():
        parts.append(where(json.loads((HERE / "where.json").read_bytes())))
    if (HERE / "growth.json").is_file():
        parts.append(growth(json.loads((HERE / "growth.json").read_bytes())))
    if (HERE / "limits.json").is_file():
        parts.append(limits(json.loads((HERE / "limits.json").read_bytes())))
    if by_the_clock:
        parts.append(threads(by_the_clock))
    parts.append(ALSO)
    parts.append("## Not measured\n\n" + "\n".join(f"- {what}: {why}." for what, why in OPEN))
    (HERE / "RESULTS.md").write_text("\n".join(part.rstrip() + "\n" for part in parts if part))


def cpu_table(rows: list[dict[str, Any]]) -> str:
    """Every ratio of these rows in CPU time, with a letter for the machine, whose line follows."""
    places = dict(zip(sorted({line_of(one["machine"]) for one in rows}), LETTERS, strict=False))
    lines = [
        "| what | peer | ours, CPU s | peer, CPU s | ratio, CPU | ratio, wall | goal | | measured on |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        for peer, one in row["ratios"].items():
            ours, theirs = row["seconds"][row["ours"]]["cpu"], row["seconds"][peer]["cpu"]
            both = row["seconds"][peer], row["seconds"][row["ours"]]
            every = rounds(*both)
            by_cpu = rounds(*both, "rounds_cpu") if "rounds_cpu" in both[0] else []
            around = f" [{min(by_cpu):.2f}, {max(by_cpu):.2f}]" if len(by_cpu) > 1 else ""
            verdict = "reached" if one["cpu_ratio"] >= one["goal"] else "not reached"
            lines.append(
                f"| {row['what']} | {peer} | {ours:.3g} | {theirs:.3g} | {one['cpu_ratio']}{around} | {spread(every)} "
                f"| {one['goal']:g} | {verdict} | {places[line_of(row['machine'])]} |"
            )
    return "\n".join([*lines, "", *(f"- {letter}: {line}." for line, letter in places.items())]) + "\n"


def threads(rows: list[dict[str, Any]]) -> str:
    """What a run takes with the threads that it chooses, beside other choices: by the clock, which is what counts."""
    lines = [
        "## Threads, alone and beside a busy process\n",
        THREADS_SAID,
        "| what | " + " | ".join(rows[0]["seconds"]) + " | as it is, times the best | | same `results.json` |",
        "| --- |" + " --- |" * (len(rows[0]["seconds"]) + 3),
    ]
    for row in rows:
        taken = {name: one["median"] for name, one in row["seconds"].items()}
        times = taken[row["ours"]] / min(taken.values())
        verdict = "reached" if times <= SLOWER else "not reached"
        same = "yes" if row["equal"]["different results.json"] == 1 else "no"
        figures = " | ".join(f"{one:.1f}" for one in taken.values())
        lines.append(f"| {row['what']} | {figures} | {times:.2f} | {verdict} | {same} |")
    return "\n".join([*lines, "", machines([row["machine"] for row in rows])])


def spread(every: list[float]) -> str:
    """The median of the rounds, with the least and the greatest if there are several."""
    around = f" [{min(every):.2f}, {max(every):.2f}]" if len(every) > 1 else ""
    return f"{statistics.median(every):.2f}{around}"


def table(rows: list[dict[str, Any]]) -> str:
    """Every ratio of these rows, by wall time."""
    lines = [
        "| what | peer | ours, s | peer, s | ratio | ratio, CPU | goal | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        for peer, one in row["ratios"].items():
            ours, theirs = row["seconds"][row["ours"]]["median"], row["seconds"][peer]["median"]
            every = rounds(row["seconds"][peer], row["seconds"][row["ours"]])
            verdict = "reached" if statistics.median(every) >= one["goal"] else "not reached"
            lines.append(
                f"| {row['what']} | {peer} | {ours:.3g} | {theirs:.3g} | {spread(every)} | {one['cpu_ratio']} "
                f"| {one['goal']:g} | {verdict} |"
            )
    return "\n".join(lines) + "\n"


def rounds(peer: dict[str, Any], ours: dict[str, Any], measure: str = "rounds") -> list[float]:
    """The ratio of every round, by the clock or by CPU time (`rounds_cpu`, which files before 28 November lack)."""
    scale = peer["times"] / ours["times"]
    turns = zip(peer[measure], ours[measure], strict=False)
    return [scale * statistics.median(theirs) / statistics.median(mine) for theirs, mine in turns]


def machines(every: Any) -> str:
    """On what the rows ran."""
    return "\n".join(f"Measured on {line}." for line in sorted({line_of(one) for one in every})) + "\n"


def line_of(machine: dict[str, Any]) -> str:
    """A machine, its load, the versions and the date."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    place = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {machine['gpu'] or 'no GPU'}"
    )
    return f"{place}; load {machine['load']}; {versions}; {machine['date']}"


def notes(rows: list[dict[str, Any]], place: str) -> str:
    """What a reader has to know of each row."""
    lines = []
    for row in rows:
        figures = {name: value for name, value in row["figures"].items() if not name.endswith(", goal")}
        if place == "results":  # a CPU's rate, measured beside other work, is no ceiling: one stored share is above 1
            figures = {name: value for name, value in figures.items() if not name.startswith("useful ")}
        parts = [*row["notes"], *(f"{name}: {value}." for name, value in row["equal"].items())]
        parts += [f"{name}: {value}{against_goal(name, value, row['figures'])}." for name, value in figures.items()]
        parts += [WHY[key]] if (key := f"{place} {row['name']}") in WHY else []
        lines += [f"- {row['name']}: {' '.join(parts)}"] if parts else []
    return "\n".join(lines) + "\n" if lines else ""


def against_goal(name: str, value: Any, figures: dict[str, Any]) -> str:
    """Whether a figure that has a goal reached it; empty without one."""
    if name.startswith("useful share"):
        return f" (goal {SHARE}: {'reached' if value >= SHARE else 'not reached'})"
    most = figures.get(f"{name}, goal")
    return "" if most is None else f" (goal at most {most:g}: {'reached' if value <= most else 'not reached'})"


def where(record: dict[str, Any]) -> str:
    """Where the time of a run and of a step goes."""
    lines = [
        "## Where the time goes, CPU, one thread\n",
        f"`python benchmarks/where.py`, seconds of CPU; the run is `cai-base run {record['flags']}`.\n",
        "| of what | all | parts |",
        "| --- | --- | --- |",
    ]
    rows = {"a run of the embedded model": record["run"]}
    rows |= {name: parts for name, parts in record.items() if name.startswith("a DPO step")}
    for name, parts in rows.items():
        each = "; ".join(
            f"{part.removeprefix('aten::').strip('_')} {value:.3g}" for part, value in parts.items() if part != "all"
        )
        lines.append(f"| {name} | {parts['all']:.3g} | {each} |")
    return "\n".join(lines) + "\n\n" + machines([record["machine"]])


def growth(record: dict[str, Any]) -> str:
    """Every point of every axis, and the powers."""
    lines = [
        "## Growth, CPU, one thread\n",
        "`python benchmarks/growth.py`; what each axis is stands at its top. A power of 1 is linear; it is that of the",
        "last three points. Length: what a token attends to grows with it. Model: larger matrices use a core better.\n",
        "![Seconds and memory along each axis](growth.svg)\n",
        "| axis | points: seconds of CPU, MB at most | power of seconds | power of memory |",
        "| --- | --- | --- | --- |",
    ]
    for axis, one in record["axes"].items():
        points = "; ".join(f"{int(n):,}: {p['seconds']:.3g} s, {p['memory']:.0f}" for n, p in one["points"].items())
        lines.append(f"| {axis} | {points} | {one['power of seconds']} | {one['power of memory']} |")
    return "\n".join(lines) + "\n\n" + machines([record["machine"]])


def limits(record: dict[str, Any]) -> str:
    """What every command takes, beside its limit, in wall and in CPU seconds."""
    lines = [
        "## What a command takes, CPU, one thread\n",
        f"`python benchmarks/limits.py`; Python alone takes {record['python']['cpu']} CPU seconds.\n",
        "| what | seconds | CPU seconds | limit | by CPU seconds | by the clock, on a busy machine |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        cpu, clock = ("reached" if row[by] <= row["limit"] else "not reached" for by in ("cpu", "seconds"))
        lines.append(f"| {row['what']} | {row['seconds']} | {row['cpu']} | {row['limit']} | {cpu} | {clock} |")
    most = record["memory"]
    verdict = "reached" if most["MB"] <= most["limit"] else "not reached"
    lines.append(f"| {most['what']} | {most['MB']:,} MB | | {most['limit']:,} MB | {verdict} | |")
    return "\n".join(lines) + "\n\n" + machines([record["machine"]])


def plain(rows: dict[str, dict[str, Any]], folder: str) -> str:
    """Rows that are figures alone, checks among them, and rows that failed or were left out."""
    lines = []
    for name, row in rows.items():
        if "checks" in row:
            lines.append(
                f"- checks in bf16: {sum(one['passed'] for one in row['checks'].values())} of {len(row['checks'])} "
                "passed."
            )
        elif "failed" in row:
            lines.append(f"- {name}: failed ({row['failed'].strip().splitlines()[-1][:200]}).")
        elif "ratios" not in row and "left out" not in row:
            figures = "; ".join(f"{key}: {short(value)}" for key, value in row.items() if key != "took")
            why = WHY.get(f"{folder} {name}")
            lines.append(f"- {name}: {figures}{of_goal(row)}{f' ({why})' if why else ''}.")
    return "\n".join(lines) + "\n"


def of_goal(row: dict[str, Any]) -> str:
    """Whether the worst figure of such a row reached its goal; empty without one."""
    if "goal" not in row:
        return ""
    parts = [one["times the floor"] for one in row.values() if isinstance(one, dict) and "times the floor" in one]
    worst = max(parts, default=row.get("ten seeds, GiB", 0.0))
    return f": {'reached' if worst <= row['goal'] else 'not reached'}"


def short(value: Any) -> str:
    """A figure with three digits."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {short(one)}" for key, one in value.items())
    return str(value)


if __name__ == "__main__":
    main()
