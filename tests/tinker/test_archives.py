"""Adapters as a service archives them: unpacked without trusting the archive, and filled in for PEFT to read."""

import json
import tarfile
from pathlib import Path

import pytest
import torch
from adapter_archives import CONFIG, GOOD, NAME, TENSORS, archive
from safetensors.torch import load_file, save

from cai_base.engines.tinker import adapters


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("adapter_model.safetensors")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def test_an_adapter_is_stored_with_the_modules_it_adapts(tmp_path: Path) -> None:
    adapters.write(tmp_path, "a/base", adapters.unpack(archive(GOOD | {"README.md": b"x"})))
    config = json.loads((tmp_path / "adapter_config.json").read_bytes())
    assert (config["target_modules"], config["r"], config["lora_alpha"]) == (["q_proj"], 2, 32)
    assert config["base_model_name_or_path"] == "a/base"
    assert load_file(tmp_path / "adapter_model.safetensors").keys() == TENSORS.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not an archive", "no tar archive"),
        (archive(GOOD, link(tarfile.SYMTYPE)), "a link"),
        (archive(GOOD, link(tarfile.LNKTYPE)), "a link"),
        (archive(GOOD | {"../adapter_config.json": CONFIG}), "leads outside"),
        (archive(GOOD | {"/adapter_config.json": CONFIG}), "leads outside"),
        (archive({"adapter_config.json": CONFIG}), r"no adapter_model\.safetensors"),
    ],
)
def test_an_archive_that_is_not_what_it_should_be_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        adapters.unpack(content)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (TENSORS | {f"{NAME}.lora_A.weight": torch.full((2, 4), torch.nan)}, "not finite"),
        ({"lm_head.weight": torch.ones(2)}, "no weight of a LoRA adapter"),
    ],
)
def test_weights_that_no_adapter_should_have_are_refused(
    tensors: dict[str, torch.Tensor], reason: str, tmp_path: Path
) -> None:
    files = {"adapter_config.json": CONFIG, "adapter_model.safetensors": save(tensors)}
    with pytest.raises(ValueError, match=reason):
        adapters.write(tmp_path / "adapter", "a/base", files)
    assert not (tmp_path / "adapter").exists()
