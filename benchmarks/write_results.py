"""Write benchmarks/RESULTS.md from the results that lie under benchmarks/results/ and benchmarks/gpu/.

python benchmarks/write_results.py
"""

import json
import statistics
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HEAD = """# Speed, measured

Made by `python benchmarks/write_results.py` from the JSON files beside it. A ratio is the peer's median step over ours
in a round: the median round, in brackets the worst and the best if there are several. *CPU* is the ratio of CPU
seconds, which hardly depends on what else the machine does. On a CPU, whose two cores were busy with other work, it
decides whether a goal was reached. A goal that was not reached is in this table like any other. Peers: TRL's
trainers on a PEFT model (reference log-probabilities computed beforehand, fused AdamW, sdpa), and
`transformers.generate` with all prompts of an adapter in one batch. The weights are
random, but for those of Gemma-3-270M, and every length is fixed.
"""
WHY = {
    "first gpu-dpo-step": "A step of one adapter waited for launches: the GPU needs 24 ms for its 14.5 TFLOP.",
    "first gpu-sft-step": "As the DPO step: launches, not arithmetic.",
    "first gpu-ten-seeds-3b": "Ten adapters use 26 % of the matmul rate; where the rest goes was not profiled.",
    "second gpu-ten-seeds-135m": "Ten seeds over one: passes of more than 4,096 tokens are not recorded.",
    "second gpu-comparisons": "One at a time is a single short forward pass, which wastes little of a GPU.",
    "results cpu-dpo-step": "A step is arithmetic here, and packing leaves about 1,150 of 2,832 tokens.",
    "results cpu-sft-step": "As the DPO step, with one prefix for four answers.",
    "results cpu-comparisons": "8 prompts and 2 adapters, not 42 and 10; and as the DPO step.",
    "results cpu-original-way": "The embedded model is so small that a request alone wastes little of one thread.",
    "results real-revision": "Every contender multiplies by the 262,144 rows of the head for each token that it draws.",
    "results cpu-evaluation": "8 prompts and 2 adapters, not 42 and 10.",
}
"""Why a goal was not reached, by file or folder and row."""
BEFORE = {
    "first": "Before passes were recorded as CUDA graphs and prefixes were kept once an adapter.\n",
    "second": "With both.\n",
}
"""What a file of GPU results is about."""
OPEN = (
    (
        "an SFT step and ten seeds of the 3B shape with recorded passes",
        "the GPU's time was over; `first.json` is without",
    ),
    ("vLLM", "no GPU was at hand where it could be installed"),
    ("growth at 4,096 tokens and over models", "`growth.py` was stopped before its last points"),
)
"""Rows that nobody has run, and why."""


def main() -> None:
    """Write the page."""
    parts = [HEAD]
    own = [json.loads(file.read_bytes()) for file in sorted((HERE / "results").glob("*.json"))]
    own = [one for one in own if "ratios" in one]
    if own:
        parts += [
            "## CPU: 2 seeds, 8 prompts\n",
            table(own, by="cpu"),
            machines(one["machine"] for one in own),
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
        parts.append(plain(content["rows"]))
    if (HERE / "where.json").is_file():
        parts.append(where(json.loads((HERE / "where.json").read_bytes())))
    if (HERE / "growth.json").is_file():
        parts.append(growth(json.loads((HERE / "growth.json").read_bytes())))
    if (HERE / "limits.json").is_file():
        parts.append(limits(json.loads((HERE / "limits.json").read_bytes())))
    parts.append("## Not measured\n\n" + "\n".join(f"- {what}: {why}." for what, why in OPEN))
    (HERE / "RESULTS.md").write_text("\n".join(part.rstrip() + "\n" for part in parts if part))


def table(rows: list[dict[str, Any]], by: str = "wall") -> str:
    """Every ratio of these rows; `by` wall or CPU seconds a goal is reached."""
    lines = [
        "| what | peer | ours, s | peer, s | ratio | CPU | goal | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        for peer, one in row["ratios"].items():
            ours, theirs = row["seconds"][row["ours"]]["median"], row["seconds"][peer]["median"]
            every = rounds(row["seconds"][peer], row["seconds"][row["ours"]])
            spread = f" [{min(every):.2f}, {max(every):.2f}]" if len(every) > 1 else ""
            ratio = f"{statistics.median(every):.2f}{spread}"
            decides = one["cpu_ratio"] if by == "cpu" else statistics.median(every)
            verdict = "reached" if decides >= one["goal"] else "not reached"
            lines.append(
                f"| {row['what']} | {peer} | {ours:.3g} | {theirs:.3g} | {ratio} | {one['cpu_ratio']} | {one['goal']} "
                f"| {verdict} |"
            )
    return "\n".join(lines) + "\n"


def rounds(peer: dict[str, Any], ours: dict[str, Any]) -> list[float]:
    """The ratio of every round."""
    scale = peer["times"] / ours["times"]
    turns = zip(peer["rounds"], ours["rounds"], strict=False)
    return [scale * statistics.median(theirs) / statistics.median(mine) for theirs, mine in turns]


def machines(every: Any) -> str:
    """On what the rows ran."""
    lines = {
        f"{one['processor']}, {one['cores']} cores, {one['threads']} threads, {one['gpu'] or 'no GPU'}; "
        + f"load {one['load']}; "
        + ", ".join(f"{name} {version}" for name, version in one["versions"].items())
        + f"; {one['date']}"
        for one in every
    }
    return "\n".join(f"Measured on {line}." for line in sorted(lines)) + "\n"


def notes(rows: list[dict[str, Any]], place: str) -> str:
    """What a reader has to know of each row."""
    lines = []
    for row in rows:
        said = [*row["notes"], *(f"{name}: {value}." for name, value in {**row["equal"], **row["figures"]}.items())]
        missed = not all(one["reached"] for one in row["ratios"].values())
        said += [WHY[key]] if missed and (key := f"{place} {row['name']}") in WHY else []
        lines += [f"- {row['name']}: {' '.join(said)}"] if said else []
    return "\n".join(lines) + "\n" if lines else ""


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
        "last three points.\n",
        "![Seconds and memory along each axis](growth.svg)\n",
        "| axis | points: seconds of CPU, MB at most | power of seconds | power of memory |",
        "| --- | --- | --- | --- |",
    ]
    for axis, one in record["axes"].items():
        points = "; ".join(f"{int(n):,}: {p['seconds']:.3g} s, {p['memory']:.0f}" for n, p in one["points"].items())
        lines.append(f"| {axis} | {points} | {one['power of seconds']} | {one['power of memory']} |")
    return "\n".join(lines) + "\n\n" + machines([record["machine"]])


def limits(record: dict[str, Any]) -> str:
    """What every command takes, beside its limit; CPU seconds decide."""
    lines = [
        "## What a command takes, CPU, one thread\n",
        f"`python benchmarks/limits.py`; Python alone takes {record['python']['cpu']} CPU seconds.\n",
        "| what | seconds | CPU seconds | limit | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        verdict = "reached" if row["cpu"] <= row["limit"] else "not reached"
        lines.append(f"| {row['what']} | {row['seconds']} | {row['cpu']} | {row['limit']} | {verdict} |")
    most = record["memory"]
    verdict = "reached" if most["MB"] <= most["limit"] else "not reached"
    lines.append(f"| {most['what']} | {most['MB']:,} MB | | {most['limit']:,} MB | {verdict} |")
    return "\n".join(lines) + "\n\n" + machines([record["machine"]])


def plain(rows: dict[str, dict[str, Any]]) -> str:
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
            lines.append(
                f"- {name}: " + "; ".join(f"{key}: {short(value)}" for key, value in row.items() if key != "took") + "."
            )
    return "\n".join(lines) + "\n"


def short(value: Any) -> str:
    """A figure with three digits."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {short(one)}" for key, one in value.items())
    return str(value)


if __name__ == "__main__":
    main()
