"""The weights of an exported arm: its adapter, or the base model with the adapter merged."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from cai_base.engines.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from cai_base.engines.local.peft_format import PREFIX
from cai_base.errors import UserError
from cai_base.reading import RESTORE, parse_json, read_text

SMALL = 1_000_000_000
"""Up to this number of parameters, `auto` writes merged weights in float32, so the sum loses no precision."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_base(folder: str, dtype: str) -> Any:
    """The base model, in the dtype to write.

    Args:
        folder: the model's folder or hub id.
        dtype: one of `DTYPES`, or `auto`: float32 for up to `SMALL` parameters, else the stored dtype.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    kind: Any = DTYPES.get(dtype, "auto")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, use_safetensors=True, trust_remote_code=False)
    if dtype == "auto" and sum(p.numel() for p in model.parameters()) <= SMALL:
        model = model.float()
        model.config.dtype = torch.float32
    return model.eval()


def merge(model: Any, adapter: Path) -> None:
    """Add an adapter's product `alpha / r * B A` to each layer that it adapts. The sum is taken in float32.

    Raises:
        UserError: the adapter has layers that the model does not have.
    """
    config = _config(adapter)
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    scale = config["lora_alpha"] / config["r"]
    modules = dict(model.named_modules())
    for name in sorted({name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in tensors}):
        if name not in modules:
            raise UserError(
                f"{adapter / ADAPTER_WEIGHTS}: adapts {name}, which the base model does not have; it belongs to another"
            )
        a, b = (tensors[f"{PREFIX}{name}.lora_{half}.weight"].float() for half in "AB")
        weight = modules[name].weight
        with torch.no_grad():
            weight.copy_((weight.float() + scale * (b @ a)).to(weight.dtype))


def copy_adapter(adapter: Path, out: Path, base: str) -> None:
    """Copy an adapter, naming its base model so that PEFT finds it.

    Args:
        base: a hub id, or the path of a folder.
    """
    shutil.copyfile(adapter / ADAPTER_WEIGHTS, out / ADAPTER_WEIGHTS)
    config = _config(adapter)
    (out / ADAPTER_CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": base}, indent=2) + "\n")


def _config(adapter: Path) -> dict[str, Any]:
    """The settings of an adapter that a run wrote."""
    file = adapter / ADAPTER_CONFIG
    config = parse_json(file, read_text(file, "an adapter's settings"))
    if not isinstance(config, dict):
        raise UserError(f"{file}: must be a JSON object of settings; {RESTORE}")
    return config
