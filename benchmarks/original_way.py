"""A run in the original experiment's way, and as it is, on the same engine.

    python benchmarks/original_way.py [--share 8] [--out FOLDER]

The original's way: padded batches; one request, one sequence and one adapter at a time; the DPO reference computed in
every step. Both are runs of the embedded model with three seeds and one thread, each in a process of its own, with a
`1/share` of the default run's steps, prompts and evaluation prompts. Compared are the seconds of CPU in the engine's
verbs: loading and the report take as long in a short run as in a long one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from frame import RESULTS, Comparison, Taken, machine, save

from cai_base import arms
from cai_base.cli import main as cai_base
from cai_base.engines import Adapter, Batch, Datum, Pending, Sample, SampleListener, SampleRequest
from cai_base.engines.local import ImmediateOutcomes, LocalEngine

ENGINE, ORIGINAL = "engine", "the original's way"
VERBS = ("forward_backward", "optim_step", "compute_logprobs", "sample")
STEPS, PROMPTS, SFT_STEPS, EVALUATED_EVERY = 300, 128, 60, 100
"""Of the default run."""


class OriginalWay(LocalEngine):
    """The engine without what makes it fast."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{**settings, "pack": False, "findings": None})

    def sample(self, requests: Sequence[SampleRequest], listener: SampleListener | None = None) -> list[Sample]:
        """One request at a time."""
        return [super(OriginalWay, self).sample([request])[0] for request in requests]

    def compute_logprobs(
        self, sequences: Mapping[Adapter | None, Sequence[Datum]]
    ) -> dict[Adapter | None, list[float]]:
        """One sequence at a time."""
        one = super().compute_logprobs
        return {name: [one({name: [datum]})[name][0] for datum in data] for name, data in sequences.items()}

    def forward_backward(self, batches: Mapping[Adapter, Batch]) -> Pending:
        """One adapter at a time; in DPO the reference first, which costs what the policy's forward pass costs."""
        outcomes = {}
        for name, batch in batches.items():
            if name.startswith(arms.FULL):
                super().compute_logprobs({name: batch.sequences})
            outcomes |= super().forward_backward({name: batch}).result()
        return ImmediateOutcomes(outcomes)


def run(way: str, flags: Sequence[str]) -> dict[str, float]:
    """One run in this process: the seconds of CPU in the engine's verbs, and in all."""
    import cai_base.engines.local as local

    spent = {"engine": 0.0}
    made: type[LocalEngine] = OriginalWay if way == ORIGINAL else LocalEngine

    class Timed(made):  # type: ignore[valid-type, misc]
        """An engine whose verbs are timed."""

    def timed(verb: str) -> Any:
        own = getattr(made, verb)

        def call(*args: Any, **more: Any) -> Any:
            began = time.process_time()
            try:
                return own(*args, **more)
            finally:
                spent["engine"] += time.process_time() - began

        return call

    for verb in VERBS:
        setattr(Timed, verb, timed(verb))
    local.LocalEngine = Timed  # type: ignore[misc]
    began = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        code = cai_base(["run", "--out", f"{scratch}/run", *flags])
        if code != 0:
            raise SystemExit(f"cai-base run ended with {code}")
        figures = json.loads(Path(f"{scratch}/run/results.json").read_bytes())
    attack = figures["arms"][arms.FULL]["attack_success_rate"]["mean"]
    return {**spent, "all": time.process_time() - began, "attack": attack}


def main() -> None:
    """Both, the one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--way", nargs="+", help=argparse.SUPPRESS)
    options, flags = parser.parse_known_args()
    if options.way:
        print(json.dumps(run(" ".join(options.way), flags)))
        return
    share = options.share
    with tempfile.TemporaryDirectory() as scratch:
        tests = files("cai_base").joinpath("data/world/test.jsonl").read_text(encoding="utf-8").splitlines()
        prompts = Path(scratch) / "test.jsonl"
        prompts.write_text("\n".join(tests[::share]) + "\n", encoding="utf-8")
        steps = STEPS // share
        flags = (
            f"--threads 1 --sft.steps {SFT_STEPS // share} --dpo.steps {steps} --revision.prompts {PROMPTS // share} "
        )
        flags += f"--evaluate-every {-(-steps * EVALUATED_EVERY // STEPS)} --evaluation.prompts {prompts}"
        row = Comparison(
            "cpu-original-way",
            f"a {share}th of the default run, three seeds: the engine's part",
            ours=ENGINE,
            goals={ORIGINAL: 8},
        )
        for way in (ENGINE, ORIGINAL):
            command = [sys.executable, __file__, *flags.split(), "--way", *way.split()]
            began = time.perf_counter()
            line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            figures = json.loads(line)
            row.seconds[way] = [[Taken(time.perf_counter() - began, figures["engine"])]]
            row.figures[f"{way}: seconds of CPU in all"] = round(figures["all"], 1)
            row.equal[f"{way}: attack success of full CAI"] = round(figures["attack"], 3)
    row.notes.append("Wall seconds are of the whole process, CPU seconds of the engine's verbs.")
    save(row, options.out)
    print(machine()["load"])


if __name__ == "__main__":
    main()
