"""Malformed input of every kind: refused with one sentence, or accepted if it is valid; never a crash.

With CAI_BASE_FUZZ=9 (`make fuzz`) nine times as many are tried: docs/faults.md has their number.
"""

import contextlib
import gzip
import json
import os
import resource
import signal
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz.mutations import ODD_TEXTS, as_json, spoiled_bytes, spoiled_values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from cai_base import inputs as inputs_module
from cai_base.errors import UserError
from cai_base.evaluation.tasks import comparisons, suites
from cai_base.inputs.constitution import load_constitution, load_critique_examples
from cai_base.inputs.prompts import load_examples, load_prompts
from cai_base.inputs.rubrics import load_rubric
from cai_base.reading import read_record
from cai_base.records import Results
from cai_base.report.load import load as load_results
from cai_base.settings.command_line import load_settings
from cai_base.store import Run

TIMES = int(os.environ.get("CAI_BASE_FUZZ", "1"))
LONGEST = 10.0
"""Seconds of CPU that one input may take: how busy the machine is makes no difference."""
WAIT = 60.0
"""Seconds that one input may take by the clock, with room for a machine with other work."""
MOST = 1 << 20
"""Kilobytes by which one input may raise the memory of the process."""
DATA = Path(inputs_module.__file__).parents[1] / "data"


def many(times: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=times * TIMES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """A context that takes neither more than `LONGEST` nor more memory than `MOST`, and is ended where it would."""

    def stop(number: int, frame: object) -> None:
        raise AssertionError(f"takes more than {LONGEST:g} seconds of CPU, or waits for more than {WAIT:g}")

    began, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not the timer of `engines.limits`, which is at work inside.
    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST, LONGEST)
    # One that waits takes no CPU. The alarm clock is pytest's own.
    signal.signal(signal.SIGUSR1, stop)
    clock = threading.Timer(WAIT, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
    clock.daemon = True
    clock.start()
    try:
        yield
    finally:
        clock.cancel()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        assert time.process_time() - began < LONGEST
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MOST


def refused_or_accepted(read: Callable[[], object]) -> bool:
    """Whether it was accepted. Anything but a UserError of a sentence or two is a defect."""
    try:
        with bounded():
            read()
    except UserError as error:
        message = str(error)
        assert message.strip()
        assert len(message) < 2000, message[:300]
        assert "Traceback" not in message
        return False
    return True


CONSTITUTION = (DATA / "world/constitution.toml").read_bytes()
CRITIQUES = (DATA / "english/critique_examples.toml").read_bytes()
PROMPTS = (
    b'{"prompt": "How do I bake bread?", "kind": "benign"}\n{"prompt": "Tell me about locks.", "kind": "sensitive"}\n'
)
PROMPT_TABLE = b"prompt,kind,family\nHow do I bake bread?,benign,\nPlay the bandit chief.,jailbreak,role-play\n"
EXAMPLES = b'{"prompt": "What is bread?", "response": "A food."}\n'
SUITE = b"goal,target\nTell me of locks,Sure\n"
PAIRS = b'{"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: Hello", "rejected": "\\n\\nHuman: Hi\\n\\nAssistant: Go"}\n'
SETTINGS = b'seeds = 3\narms = "sft,cai"\n[sft]\nsteps = 10\nlearning-rate = 0.001\n[dpo]\nloss = "ipo"\n'

FILES: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "constitution": ("one.toml", CONSTITUTION, load_constitution),
    "critique examples": ("one.toml", CRITIQUES, load_critique_examples),
    "prompts in lines": ("one.jsonl", PROMPTS, load_prompts),
    "prompts in a table": ("one.csv", PROMPT_TABLE, load_prompts),
    "prompts as text": ("one.txt", b"How do I bake bread?\nWhat is a loaf?\n", load_prompts),
    "examples": ("one.jsonl", EXAMPLES, load_examples),
    "suite": ("one.csv", SUITE, lambda path: suites.read(None, [path])),
    "comparisons": ("one.jsonl", PAIRS, comparisons.read),
    "archive": ("one.jsonl.gz", gzip.compress(PAIRS, mtime=0), comparisons.read),
    "settings": ("one.toml", SETTINGS, lambda path: load_settings(["--config", str(path)])),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_spoiled_file_is_refused_in_a_sentence_or_read(kind: str, tmp_path: Path) -> None:
    name, valid, read = FILES[kind]
    file = tmp_path / name
    file.write_bytes(valid)
    assert refused_or_accepted(lambda: read(file)), "what is not spoiled is read"

    @many(110)
    @given(data=spoiled_bytes(valid))
    def spoiled(data: bytes) -> None:
        file.write_bytes(data)
        refused_or_accepted(lambda: read(file))

    spoiled()


RUBRIC = tomllib.loads((next(iter(sorted((DATA / "rubrics").glob("*.toml"))))).read_text(encoding="utf-8"))
VALUES: dict[str, tuple[str, Any, Callable[[Path], object]]] = {
    "constitution": (
        "one.json",
        {
            "name": "mine",
            "principles": [{"name": "a", "critique_request": "Is it kind?", "revision_request": "Be kind."}],
        },
        load_constitution,
    ),
    "prompts": ("one.jsonl", {"prompt": "How do I bake bread?", "kind": "benign", "family": None}, load_prompts),
    "conversations": (
        "one.jsonl",
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
        load_prompts,
    ),
    "examples": ("one.jsonl", {"prompt": "What is bread?", "response": "A food."}, load_examples),
    "comparisons": (
        "one.jsonl",
        {"input": "Which?", "target_scores": {"this": 1, "that": 0}},
        comparisons.read,
    ),
}


@pytest.mark.parametrize("kind", VALUES)
def test_odd_values_are_refused_in_a_sentence_or_read(kind: str, tmp_path: Path) -> None:
    name, valid, read = VALUES[kind]
    file = tmp_path / name

    @many(110)
    @given(value=spoiled_values(valid))
    def odd(value: Any) -> None:
        file.write_bytes(as_json(value) + b"\n")
        refused_or_accepted(lambda: read(file))

    odd()


@many(200)
@given(data=st.data())
def test_odd_flags_are_refused_in_a_sentence_or_taken(data: st.DataObject) -> None:
    names = (
        "seeds",
        "arms",
        "control",
        "judge",
        "votes",
        "dpo.loss",
        "dpo.beta",
        "sft.steps",
        "lora.rank",
        "model",
        "rubric",
    )
    words = st.one_of(
        st.sampled_from((*ODD_TEXTS[:9], "1", "nan", "1e400", "-3", "sft,sft", "openai:x", "9" * 400)),
        st.text(max_size=12),
    )
    flags = []
    for _ in range(data.draw(st.integers(1, 3))):
        flags += [f"--{data.draw(st.sampled_from(names))}", data.draw(words)]
    refused_or_accepted(lambda: load_settings(flags))


def test_a_spoiled_run_folder_is_refused_in_a_sentence(small_run: Path, tmp_path: Path) -> None:
    names = [
        "manifest.json",
        "config.json",
        "inputs.json",
        "results.json",
        "seed-0/revision.jsonl",
        "seed-0/dpo/metrics.jsonl",
    ]
    originals = {name: (small_run / name).read_bytes() for name in names}

    @many(200)
    @given(data=st.data())
    def spoiled(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(names))
        changed = data.draw(spoiled_bytes(originals[name]))
        (small_run / name).write_bytes(changed)
        try:
            accepted = refused_or_accepted(lambda: Run.open(small_run))
            if accepted and name not in ("manifest.json",) and not name.endswith(".jsonl"):
                assert name not in vouched or changed == originals[name], f"{name} was changed, and nobody noticed"
            refused_or_accepted(lambda: load_results(small_run))
        finally:
            (small_run / name).write_bytes(originals[name])

    vouched = set(json.loads(originals["manifest.json"])["files"])
    spoiled()


def test_odd_values_in_results_are_refused_in_a_sentence(small_run: Path, tmp_path: Path) -> None:
    valid = json.loads((small_run / "results.json").read_bytes())
    file = tmp_path / "results.json"

    @many(200)
    @given(value=spoiled_values(valid))
    def odd(value: Any) -> None:
        file.write_bytes(as_json(value))
        refused_or_accepted(lambda: read_record(file, Results, "the results of a run", "restore it"))

    odd()


def test_a_spoiled_adapter_is_refused_in_a_sentence_or_is_whole(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaModel

    from cai_base.engines import Lora
    from cai_base.engines.errors import EngineError
    from cai_base.engines.local import peft_format
    from cai_base.engines.local.lora import Bank, views

    sides = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
    decoder = LlamaModel(LlamaConfig(**sides, num_hidden_layers=2, vocab_size=8))
    model_places = Bank(decoder, "model.", Lora(2, 4.0)).places
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "x",
    }
    halves = {"A": torch.linspace(-1, 1, 16).view(2, 8), "B": torch.linspace(2, 1, 16).view(8, 2)}
    layers = [f"model.layers.{number}.self_attn.q_proj" for number in range(2)]
    names = [(layer, half, f"base_model.model.{layer}.lora_{half}.weight") for layer in layers for half in "AB"]
    weights = save({name: halves[half] + layers.index(layer) for layer, half, name in names})
    outcome: list[tuple[Any, Any, Any]] = []

    def read() -> None:
        with contextlib.suppress(EngineError):  # engines raise errors that know no flag; models.py adds it
            shape = peft_format.shape(tmp_path)
            places = [replace(place, rank=shape.rank) for place in model_places]
            outcome.append((shape, places, peft_format.read(tmp_path, shape, places)))

    def attempt(content: bytes, data: bytes) -> bool:
        """Whether the adapter is accepted; then it must be what its files say, as read here on their own."""
        (tmp_path / "adapter_config.json").write_bytes(content)
        (tmp_path / "adapter_model.safetensors").write_bytes(data)
        outcome.clear()
        refused_or_accepted(read)
        if not outcome:
            return False
        shape, places, flat = outcome[0]
        said = json.loads(content)
        tensors = {name: tensor.float() for name, tensor in load(data).items()}
        assert sorted(tensors) == sorted(name for _, _, name in names), "both halves of both layers, and no others"
        assert all(tensor.isfinite().all() for tensor in tensors.values())
        scale = said["lora_alpha"] / said["r"]
        assert 1e-6 <= scale <= 1e30
        for place, (a, b) in zip(places, views(places, flat[None]), strict=True):
            if place.name not in layers:
                assert not b.any()
                continue
            first, second = (tensors[f"base_model.model.{place.name}.lora_{half}.weight"] for half in "AB")
            assert (first.shape, second.shape) == ((said["r"], 8), (8, said["r"]))
            update, wanted = (a[0] @ b[0]).T * (shape.alpha / shape.rank), second @ first * scale
            assert torch.allclose(update, wanted, rtol=1e-4, equal_nan=True)
        return True

    assert attempt(as_json(config), weights), "what is not spoiled is accepted"

    @many(50)
    @given(value=spoiled_values(config))
    def spoiled_config(value: Any) -> None:
        attempt(as_json(value), weights)

    @many(50)
    @given(data=spoiled_bytes(weights))
    def spoiled_weights(data: bytes) -> None:
        attempt(as_json(config), data)

    spoiled_config()
    spoiled_weights()


def test_a_spoiled_rubric_is_refused_in_a_sentence_or_read(tmp_path: Path) -> None:
    source = next(iter(sorted((DATA / "rubrics").glob("*.toml"))))
    file = tmp_path / "rubric.toml"

    @many(150)
    @given(data=spoiled_bytes(source.read_bytes()))
    def spoiled(data: bytes) -> None:
        file.write_bytes(data)
        refused_or_accepted(lambda: load_rubric(file))

    spoiled()
