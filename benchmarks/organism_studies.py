"""What the default recipe does to the embedded model organism, and what changes when one setting is different.

    python benchmarks/organism_studies.py [--out studies] [--seeds 3] [--prompts FILE] [STUDY ...]

Each study is one `cai-base run` in a directory under `--out`. A finished study is read, an interrupted one resumed, any
other run. At the end a Markdown table is printed, with intervals over seeds and prompts. Without names all studies run.
None of them is evidence about large models.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cai_base import embedded

PLAIN_DPO = ["--dpo.nll-weight", "0", "--revision.refusal-prefill", "0"]
STUDIES: dict[str, list[str]] = {
    "default": ["--arms", "sft,cai,instruct"],
    "steps x 0.5": ["--dpo.steps", "150"],
    "steps x 2": ["--dpo.steps", "600"],
    "placebo": ["--constitution", "placebo"],
    "plain DPO, 42 pairs, 500 steps": [*PLAIN_DPO, "--dpo.pairs", "42", "--dpo.steps", "500"],
    "the original's protocol": ["--protocol", "original"],
}
COLUMNS = (
    ("attack_success_rate", "attack success (%)", 100, 1),
    ("over_refusal_rate", "over-refusal (%)", 100, 1),
    ("helpfulness", "helpfulness (1–5)", 1, 2),
)
"""Metric, label in the table, factor that it is multiplied by, decimals."""


def main() -> int:
    """Run or read the studies, then print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"one of: {'; '.join(STUDIES)}")
    parser.add_argument("--out", type=Path, default=Path("studies"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    wide_test_set = embedded.data_file("test_wide.jsonl")
    parser.add_argument(
        "--prompts", type=Path, default=wide_test_set, help="evaluation prompts; the wide test set by default"
    )
    options = parser.parse_args()
    unknown = set(options.studies) - set(STUDIES)
    if unknown:
        parser.error(f"no such study: {', '.join(sorted(unknown))}; choose from {'; '.join(STUDIES)}")
    rows = []
    for name in options.studies or STUDIES:
        run = options.out / name.replace(",", "").replace(" ", "-")
        if not (run / "results.json").exists():
            _call(run, name, options)
        rows.append(_row(name, run))
    print("\n".join(_header() + rows))
    return 0


def _call(run: Path, name: str, options: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "cai_base"]
    if run.exists():
        command += ["resume", str(run)]
    else:
        command += ["run", "--out", str(run), "--seeds", str(options.seeds), "--threads", str(options.threads)]
        command += ["--evaluate-every", "1000", *STUDIES[name]]
        if "--protocol" not in STUDIES[name]:  # a protocol has its own evaluation prompts
            command += ["--evaluation.prompts", str(options.prompts)]
    print(f"== {name}", file=sys.stderr)
    subprocess.run(command, check=True, stdout=sys.stderr)


def _header() -> list[str]:
    names = "".join(f" {label}: SFT-only → CAI | difference |" for _, label, _, _ in COLUMNS)
    names += " broken (%) | borderline complied with (%) |"
    return [f"| study | pairs per seed |{names}", "|" + " --- |" * (4 + 2 * len(COLUMNS))]


def _row(name: str, run: Path) -> str:
    results: dict[str, Any] = json.loads((run / "results.json").read_text())
    limit = json.loads((run / "config.json").read_text())["dpo"]["pairs"]
    pairs = [path.read_text().splitlines() for path in sorted(run.glob("seed-*/pairs.jsonl"))]
    counts = [sum(not json.loads(line)["held_out"] for line in lines) for lines in pairs]
    cells = [name, ", ".join(str(min(count, limit or count)) for count in counts)]
    arms = [results["arms"][arm] for arm in ("sft", "cai")]
    for metric, _, scale, digits in COLUMNS:
        before, after = (arm[metric]["mean"] for arm in arms)
        comparison = results["comparisons"]["cai - sft"][metric]
        cells.append(f"{scale * before:.{digits}f} → {scale * after:.{digits}f}")
        low, high = (scale * end for end in comparison["ci95"])
        cells.append(f"{scale * comparison['difference']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]")
    cells.append(f"{100 * arms[1]['broken_rate']['mean']:.1f}")
    borderline = (arm["attack_success_rate"]["by_family"]["borderline"] for arm in arms)
    cells.append(" → ".join(f"{100 * share:.1f}" for share in borderline))
    return "| " + " | ".join(cells).replace("-", "−") + " |"


if __name__ == "__main__":
    sys.exit(main())
