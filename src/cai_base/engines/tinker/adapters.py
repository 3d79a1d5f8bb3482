"""Converts an adapter from a Tinker service's archive to PEFT's format."""

import gzip
import io
import json
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from cai_base.engines.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from cai_base.engines.weight_files import save_weights
from cai_base.reading import quote

GROWTH = 64
"""An archive unpacks to at most so many times its own bytes: numbers that were trained hardly shrink."""
LEAST = 1 << 20
"""Bytes that every archive may unpack to."""
GZIP = b"\x1f\x8b"


def unpack(archive: bytes) -> dict[str, bytes]:
    """The two files of an adapter from a tar archive, in memory. Other files in it are not read.

    Raises:
        ValueError: it is no tar archive, is far larger unpacked, lacks one of the files, or contains a link or a path
            outside the archive.
    """
    files: dict[str, bytes] = {}
    try:
        plain = _decompressed(archive)
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise ValueError(f"its archive has a path that leads outside: {quote(member.name)}")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise ValueError(f"its archive has a link, a device or a file with holes: {quote(member.name)}")
                if str(path) in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
                    content = tar.extractfile(member)
                    assert content is not None
                    files[str(path)] = content.read()
    except (tarfile.TarError, OSError, EOFError, OverflowError, zlib.error) as error:
        raise ValueError(f"it is no tar archive, or a damaged one ({error})") from error
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
        if name not in files:
            raise ValueError(f"its archive has no {name}")
    return files


def _decompressed(archive: bytes) -> bytes:
    """The tar archive, if it is compressed by gzip.

    Raises:
        ValueError: it is larger than what was trained can be.
    """
    if not archive.startswith(GZIP):
        return archive
    most = max(GROWTH * len(archive), LEAST)
    with gzip.open(io.BytesIO(archive)) as file:
        plain = file.read(most + 1)
    if len(plain) > most:
        raise ValueError(f"its archive of {len(archive):,} bytes unpacks to more than {most:,}")
    return plain


def write(directory: Path, base_model: str, files: dict[str, bytes]) -> None:
    """Write an unpacked adapter in PEFT's format; `target_modules` is determined from its weights.

    Raises:
        ValueError: the files are not those of a whole LoRA adapter, or a weight is not finite.
    """
    try:
        config = json.loads(files[ADAPTER_CONFIG])
        tensors = load(files[ADAPTER_WEIGHTS])
    except (ValueError, RecursionError, SafetensorError) as error:
        raise ValueError(f"its files cannot be read ({error})") from error
    settings = config if isinstance(config, dict) else {}
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    is_rank = isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1
    is_scale = isinstance(alpha, int | float) and not isinstance(alpha, bool) and 0 < alpha < float("inf")
    if not (is_rank and is_scale):
        raise ValueError(f"its {ADAPTER_CONFIG} has r = {quote(rank)} and lora_alpha = {quote(alpha)}")
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        place, dot, half = name.removesuffix(".weight").rpartition(".lora_")
        if not dot or half not in ("A", "B") or not place.startswith("base_model.model."):
            raise ValueError(f"{quote(name)} is no weight of a LoRA adapter")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} is not finite")
        halves.setdefault(place, {})[half] = tensor
    for place, pair in halves.items():
        for half, side in (("A", 0), ("B", 1)):
            if half not in pair:
                raise ValueError(f"{place} has no lora_{half}")
            if pair[half].dim() != 2 or pair[half].shape[side] != rank:
                raise ValueError(f"lora_{half} of {place} has the shape {tuple(pair[half].shape)}, and r is {rank}")
    if not halves:
        raise ValueError(f"{ADAPTER_WEIGHTS} holds no weights")
    modules = {place.rpartition(".")[2] for place in halves}
    directory.mkdir(parents=True, exist_ok=True)
    save_weights(tensors, directory / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    written = {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(modules),
        "task_type": "CAUSAL_LM",
    }
    (directory / ADAPTER_CONFIG).write_text(json.dumps(written, indent=2) + "\n")
