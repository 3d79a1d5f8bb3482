"""A process of its own for `real_model.py`: each line on its input has it load or sample once and say what that took.

It runs against either of two versions of this project, so it imports only what both have.
"""

import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cai_base.engines import Lora, SampleRequest
from cai_base.engines.local import LocalEngine

LENGTH = 1792
SLOTS = 8
"""Requests that llama.cpp's server answers at a time."""


def by_transformers(folder: str) -> Callable[[], object]:
    """Load weights and tokenizer."""

    def load() -> object:
        return AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    return load


def by_engine(folder: str) -> Callable[[], object]:
    """Load an engine."""
    return lambda: LocalEngine(folder, Lora(32, 32), sequence_length=LENGTH)


def by_gguf(file: str) -> Callable[[], object]:
    """Load an engine from a GGUF file: converted if the cache does not have it, else read from there."""
    from cai_base.engines.local.gguf import converted  # the old version has none

    return lambda: LocalEngine(converted(file), Lora(32, 32), sequence_length=LENGTH)


def by_requests(folder: str, file: str) -> Callable[[], object]:
    """Sample every batch of the requests in a file."""
    batches = [
        [SampleRequest(**{**one, "prompt": tuple(one["prompt"]), "stop": tuple(one["stop"])}) for one in batch]
        for batch in json.loads(Path(file).read_bytes())
    ]
    engine = LocalEngine(folder, Lora(32, 32), sequence_length=LENGTH)
    engine.create({one.adapter: 0 for batch in batches for one in batch if one.adapter is not None})
    return lambda: [engine.sample(batch) for batch in batches]


def by_llama(gguf: str, file: str) -> Callable[[], object]:
    """Sample every batch of the requests in a file from llama.cpp's server: parallel slots, prompts kept per slot."""
    import xllamacpp

    given = xllamacpp.CommonParams()
    given.model.path, given.n_parallel, given.n_ctx = gguf, SLOTS, SLOTS * LENGTH
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        given.port = probe.getsockname()[1]
    given.hostnames, given.ui = ["127.0.0.1"], False
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = torch.get_num_threads()
    server = xllamacpp.Server(given)
    address = f"http://127.0.0.1:{given.port}"
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=60)
            break
        except OSError:  # it loads
            time.sleep(0.5)

    def complete(request: dict[str, Any]) -> int:
        fixed = {"ignore_eos": True, "cache_prompt": True, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
        own = {"prompt": request["prompt"], "n_predict": request["max_tokens"], "seed": request["seed"] % 2**31}
        body = json.dumps({**fixed, **own, "temperature": request["temperature"]}).encode()
        asked = urllib.request.Request(f"{address}/completion", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=3600) as response:
            return int(json.load(response)["tokens_predicted"])

    def work(_: Any = server) -> None:
        with ThreadPoolExecutor(SLOTS) as pool:
            for batch in json.loads(Path(file).read_bytes()):
                drawn = list(pool.map(complete, batch))
                if drawn != [one["max_tokens"] for one in batch]:
                    raise RuntimeError(f"llama.cpp's server drew {drawn} tokens")

    return work


def main() -> None:
    """Answer every line."""
    what, folder, threads, *file = sys.argv[1:]
    torch.set_num_threads(int(threads))
    makers: dict[str, Callable[..., Callable[[], Any]]] = {
        "transformers": by_transformers,
        "engine": by_engine,
        "gguf": by_gguf,
        "sample": by_requests,
        "llama": by_llama,
    }
    work = makers[what](folder, *file)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(taken), flush=True)
    os._exit(0)  # llama.cpp's server waits for open connections otherwise


if __name__ == "__main__":
    main()
