"""How many of a run's chains comply after each round of revision, by kind of prompt: from its stored chains.

    python benchmarks/rounds.py RUN…

Chains whose original began with a prefilled refusal are left out. The last line of a run is over all of its chains.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path


def main() -> None:
    """Print a table for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    for run in parser.parse_args().runs:
        by_kind: dict[str, list[list[bool]]] = defaultdict(list)
        for file in sorted(run.glob("seed-*/revision.jsonl")):
            for chain in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
                complied = [verdict["complied"] for verdict in chain["verdicts"]]
                if chain["kind"] not in ("benign", "sensitive"):
                    by_kind["jailbreak, direct and borderline, with prefilled refusals"].append(complied)
                if chain["refusal_opener"] is None:
                    by_kind[chain["kind"]].append(complied)
                    if chain["kind"] in ("jailbreak", "direct"):
                        by_kind["jailbreak and direct"].append(complied)
        print(f"{run}: chains, and the share of them that complies after 0, 1, … rounds (%)")
        for kind, chains in sorted(by_kind.items()):
            rounds = [100 * sum(one) / len(chains) for one in zip(*chains, strict=True)]
            print(f"  {kind}: {len(chains)}: {', '.join(f'{share:.1f}' for share in rounds)}")


if __name__ == "__main__":
    main()
