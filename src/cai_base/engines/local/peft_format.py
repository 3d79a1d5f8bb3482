"""A PEFT adapter folder from an adapter's flat parameters, and back."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cai_base.engines import Lora
from cai_base.engines.local.lora import Place, views

PREFIX = "base_model.model."


def write(directory: Path, base_model: str, settings: Lora, places: list[Place], flat: Tensor) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` for parameters `flat [parameters]`."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for place, (a, b) in zip(places, views(places, flat[None].cpu()), strict=True):
        tensors[f"{PREFIX}{place.name}.lora_A.weight"] = a[0].T.contiguous()
        tensors[f"{PREFIX}{place.name}.lora_B.weight"] = b[0].T.contiguous()
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": settings.rank,
        "target_modules": sorted({place.name.rpartition(".")[2] for place in places}),
        "task_type": "CAUSAL_LM",
    }
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def read(directory: Path, places: list[Place]) -> Tensor:
    """The flat parameters `[parameters]` of an adapter that `write` made for the same layers and rank.

    Raises:
        ValueError: it was made for others.
    """
    tensors = load_file(directory / "adapter_model.safetensors")
    flat = torch.empty(sum(sum(place.sizes) for place in places))
    for place, (a, b) in zip(places, views(places, flat[None]), strict=True):
        for half, view in (("A", a[0].T), ("B", b[0].T)):
            stored = tensors.pop(f"{PREFIX}{place.name}.lora_{half}.weight", None)
            if stored is None or stored.shape != view.shape:
                raise ValueError(f"{directory}: not an adapter of this model and rank (lora_{half} of {place.name})")
            view.copy_(stored)
    return flat
