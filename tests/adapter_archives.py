"""Adapters as a Tinker service archives them."""

import io
import json
import tarfile

import torch
from safetensors.torch import save

NAME = "base_model.model.model.layers.0.self_attn.q_proj"
TENSORS = {f"{NAME}.lora_A.weight": torch.ones(2, 4), f"{NAME}.lora_B.weight": torch.zeros(4, 2)}
CONFIG = json.dumps({"r": 2, "lora_alpha": 32, "target_modules": None}).encode()


def archive(members: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return out.getvalue()


GOOD = {"./adapter_config.json": CONFIG, "./adapter_model.safetensors": save(TENSORS)}
