"""A PEFT adapter folder from one flat row of the bank, and back."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cai_base.engines import Lora
from cai_base.engines.local.lora import Place

PREFIX = "base_model.model."


def write(directory: Path, base_model: str, settings: Lora, places: list[Place], flat: Tensor) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` for parameters `flat [parameters]`."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for place in places:
        a, b = place.views(flat[None])
        tensors[f"{PREFIX}{place.name}.lora_A.weight"] = a[0].T.contiguous().cpu()
        tensors[f"{PREFIX}{place.name}.lora_B.weight"] = b[0].T.contiguous().cpu()
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
    """The flat parameters `[parameters]` of an adapter that `write` made for a model with the same layers."""
    tensors = load_file(directory / "adapter_model.safetensors")
    flat = torch.zeros(1, max(place.start + place.rank * (place.inputs + place.outputs) for place in places))
    for place in places:
        a, b = place.views(flat)
        a[0] = tensors[f"{PREFIX}{place.name}.lora_A.weight"].T
        b[0] = tensors[f"{PREFIX}{place.name}.lora_B.weight"].T
    return flat[0]
