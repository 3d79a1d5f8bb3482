"""Weights may be read by whoever may read a model's other files."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cai_base.engines.weight_files import save_model, save_weights


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_weights_have_the_permissions_that_the_umask_leaves(umask: int, tmp_path: Path) -> None:
    save_weights({"one": torch.zeros(2)}, tmp_path / "one.safetensors", {"format": "pt"})
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    save_model(LlamaForCausalLM(LlamaConfig(vocab_size=8, **shape)), tmp_path)
    files = {path.name: permissions(path) for path in tmp_path.iterdir()}
    assert files == dict.fromkeys(files, 0o666 & ~umask)
    assert {"one.safetensors", "model.safetensors", "config.json"} <= files.keys()
