"""The engine in bfloat16 beside float32 on this CPU, on a real base model: a DPO step, and a round of revision.

    scripts/real install
    python benchmarks/precision.py [--prompts 6] [--threads 1] [--model FILE|FOLDER] [--out FOLDER]

Both do the same work: the same pairs, and the same requests with as many tokens as the model wrote in float32. Writes
`precision-dpo.json` and `precision-revision.json`, with how far the two differ.
"""

import argparse
import tempfile
from pathlib import Path

import generation
import torch
import training
from frame import RESULTS, Comparison, save, steps_of
from real_model import ADAPTER, BASE, LENGTH, Recorder
from training import BATCH, LORA
from workload import workload

from cai_base.engines import Step
from cai_base.engines.local import LocalEngine
from cai_base.engines.local.gguf import converted, is_gguf

EXACT, ROUNDED = "float32", "bfloat16"
STEPS = 3


def main() -> None:
    """Measure both rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path, default=BASE)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = str(converted(str(options.model)) if is_gguf(str(options.model)) else options.model)
    engines = {}
    for name in (EXACT, ROUNDED):
        kind: torch.dtype = getattr(torch, name)
        engines[name] = LocalEngine(folder, LORA, sequence_length=LENGTH, device="cpu", dtype=kind)
        engines[name].create({ADAPTER: 0})
    with tempfile.TemporaryDirectory() as scratch:
        adapter = Path(scratch) / "adapter"
        engines[EXACT].export({ADAPTER: adapter})
        save(revision(engines, adapter, options.prompts), options.out)
        save(dpo(engines, adapter), options.out)


def dpo(engines: dict[str, LocalEngine], adapter: Path) -> Comparison:
    """A DPO step on one batch, from the same adapter; how far gradients and losses are apart."""
    row = Comparison("precision-dpo", f"one DPO step: {BATCH} few-shot CAI pairs, LoRA 32, Gemma-3-270M, on a CPU")
    row.ours, row.goals = ROUNDED, {EXACT: 1.5}
    gradients, contenders = [], {}
    for name, engine in engines.items():
        engine.load({ADAPTER: adapter}, optimizer=False)
        batches = training.dpo_batches(engine, training.own_pairs(engine, workload().pairs(BATCH)), [ADAPTER])
        outcome = engine.forward_backward({ADAPTER: batches(ADAPTER, 0)}).result()[ADAPTER]
        assert isinstance(outcome, Step), outcome
        gradient = engine._bank.adapters[ADAPTER].gradient
        assert gradient is not None
        gradients.append(gradient.flatten().clone())
        engine.load({ADAPTER: adapter}, optimizer=False)  # without that gradient
        losses: list[float] = []
        row.figures[f"losses in {name}"] = losses
        contenders[name] = training.ours(engine, [ADAPTER], batches, losses)
    row.equal["cosine of the first gradients"] = round(torch.cosine_similarity(*gradients, dim=0).item(), 5)
    row.measure(contenders, 1, STEPS)
    for name in engines:
        row.figures[f"losses in {name}"] = [round(one, 4) for one in row.figures[f"losses in {name}"]]
    return row


def revision(engines: dict[str, LocalEngine], adapter: Path, prompts: int) -> Comparison:
    """One round of critique and revision."""
    recorder = Recorder(engines[EXACT])
    generation.chains(recorder, workload(), generation.settings_of(96, 64, 1, 0.7), [ADAPTER], prompts)
    what = f"one round of revision, {prompts} packaged prompts, Gemma-3-270M, on a CPU"
    row = Comparison("precision-revision", what, ours=ROUNDED, goals={EXACT: 1.5})

    def rounds(engine: LocalEngine) -> None:
        engine.load({ADAPTER: adapter}, optimizer=False)  # no prefix is kept from before
        for batch in recorder.batches:
            engine.sample(batch)

    row.measure({name: steps_of(lambda e=engine: rounds(e), 0) for name, engine in engines.items()}, 1, 1)  # type: ignore[misc]
    return row


if __name__ == "__main__":
    main()
