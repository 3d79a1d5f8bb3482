"""Converts an adapter from a Tinker service's archive to PEFT's format."""

import io
import json
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from cai_base.engines.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS

LARGEST = 32 << 30
"""The largest size of an unpacked file, in bytes."""


def unpack(archive: bytes) -> dict[str, bytes]:
    """The two files of an adapter from a tar archive, in memory. Other files in it are not read.

    Raises:
        ValueError: it is no tar archive, lacks one of the files, or contains a link or a path outside the archive.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise ValueError(f"its archive has a path that leads outside: {member.name!r}")
                if member.isdir():
                    continue
                if not member.isreg():
                    raise ValueError(f"its archive has a link or a device: {member.name!r}")
                if str(path) in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
                    if member.size > LARGEST:
                        raise ValueError(f"{member.name} has {member.size} bytes")
                    content = tar.extractfile(member)
                    assert content is not None
                    files[str(path)] = content.read()
    except tarfile.TarError as error:
        raise ValueError(f"it is no tar archive ({error})") from error
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
        if name not in files:
            raise ValueError(f"its archive has no {name}")
    return files


def write(directory: Path, base_model: str, files: dict[str, bytes]) -> None:
    """Write an unpacked adapter in PEFT's format; `target_modules` is determined from its weights.

    Raises:
        ValueError: the files are not those of a LoRA adapter, or a weight is not finite.
    """
    try:
        config: dict[str, Any] = json.loads(files[ADAPTER_CONFIG])
        tensors = load(files[ADAPTER_WEIGHTS])
    except (json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"its files cannot be read ({error})") from error
    modules = set()
    for name, tensor in tensors.items():
        place, dot, half = name.removesuffix(".weight").rpartition(".lora_")
        if not dot or half not in ("A", "B") or not place.startswith("base_model.model."):
            raise ValueError(f"{name!r} is no weight of a LoRA adapter")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} is not finite")
        modules.add(place.rpartition(".")[2])
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    settings = {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": config["lora_alpha"],
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": config["r"],
        "target_modules": sorted(modules),
        "task_type": "CAUSAL_LM",
    }
    (directory / ADAPTER_CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
