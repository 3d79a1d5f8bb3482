"""A PEFT adapter folder from an adapter's flat parameters, and back."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cai_base.engines import EngineError, Lora
from cai_base.engines.local.lora import Place, views
from cai_base.errors import UserError
from cai_base.reading import parse_json, read_text, shown

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"
REMEDY = "give a folder with a plain LoRA adapter as PEFT writes it (adapter_config.json, adapter_model.safetensors)"


def write(directory: Path, base_model: str, settings: Lora, places: list[Place], flat: Tensor) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` for parameters `flat [parameters]`."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for place, (a, b) in zip(places, views(places, flat[None].cpu()), strict=True):
        tensors[f"{PREFIX}{place.name}.lora_A.weight"] = a[0].T.contiguous()
        tensors[f"{PREFIX}{place.name}.lora_B.weight"] = b[0].T.contiguous()
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
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


def shape(directory: Path) -> Lora:
    """The shape of an adapter, whoever wrote it.

    Raises:
        UserError: it is no LoRA adapter in safetensors, or of a variety that is not read here; names file and field.
    """
    path = directory / "adapter_config.json"
    if not (directory / WEIGHTS).is_file():
        raise UserError(f"{directory}: no {WEIGHTS} there (pickled weights are not read); {REMEDY}")
    config = parse_json(path, read_text(path, "a PEFT adapter's settings"))
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type is not LORA; {REMEDY}")
    for field in ("alpha_pattern", "fan_in_fan_out", "use_dora", "use_rslora"):
        if config.get(field):
            raise UserError(f"{path}: {field} is {shown(config[field])}, which is not read here; {REMEDY}")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
        raise UserError(f"{path}: r is {shown(rank)} and lora_alpha {shown(alpha)}; {REMEDY}")
    return Lora(rank, float(alpha))


def read(directory: Path, places: list[Place]) -> Tensor:
    """The flat parameters `[parameters]` of an adapter of this rank. A layer that it does not adapt is left as it is.

    Raises:
        EngineError: it was made for other layers or another rank.
    """
    tensors = load_file(directory / WEIGHTS)
    flat = torch.zeros(sum(sum(place.sizes) for place in places))
    for place, (a, b) in zip(places, views(places, flat[None]), strict=True):
        for half, view in (("A", a[0].T), ("B", b[0].T)):
            stored = tensors.pop(f"{PREFIX}{place.name}.lora_{half}.weight", None)
            if stored is None:
                continue
            if stored.shape != view.shape:
                raise _mismatch(directory, f"lora_{half} of {place.name}")
            view.copy_(stored)
    if tensors:
        raise _mismatch(directory, f"it holds {min(tensors)}")
    return flat


def _mismatch(directory: Path, detail: str) -> EngineError:
    reason = f"not an adapter of this model and rank ({detail})"
    return EngineError("adapter", directory, reason, "give one that was trained on this model")
