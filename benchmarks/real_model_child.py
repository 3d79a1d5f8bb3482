"""A process of its own for `real_model.py`: each line on its input has it load or sample once and say what that took.

It runs against either of two versions of this project, so it imports only what both have.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cai_base.engines import Lora, SampleRequest
from cai_base.engines.local import LocalEngine

LENGTH = 1792


def by_transformers(folder: str) -> Callable[[], object]:
    """Load weights and tokenizer."""

    def load() -> object:
        return AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    return load


def by_engine(folder: str) -> Callable[[], object]:
    """Load an engine."""
    return lambda: LocalEngine(folder, Lora(32, 32), sequence_length=LENGTH)


def by_requests(folder: str, file: str) -> Callable[[], object]:
    """Sample every batch of the requests in a file."""
    batches = [
        [SampleRequest(**{**one, "prompt": tuple(one["prompt"]), "stop": tuple(one["stop"])}) for one in batch]
        for batch in json.loads(Path(file).read_bytes())
    ]
    engine = LocalEngine(folder, Lora(32, 32), sequence_length=LENGTH)
    engine.create({one.adapter: 0 for batch in batches for one in batch if one.adapter is not None})
    return lambda: [engine.sample(batch) for batch in batches]


def main() -> None:
    """Answer every line."""
    what, folder, threads, *file = sys.argv[1:]
    torch.set_num_threads(int(threads))
    makers: dict[str, Callable[..., Callable[[], Any]]] = {
        "transformers": by_transformers,
        "engine": by_engine,
        "sample": by_requests,
    }
    work = makers[what](folder, *file)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main()
