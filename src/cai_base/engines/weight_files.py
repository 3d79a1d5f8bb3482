"""Writes weights so that whoever may read a model's other files may read them too.

safetensors writes each of its files readable for its owner alone.
"""

import stat
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

ALL_WEIGHTS = "*.safetensors"


def save_weights(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors as a safetensors file, with the permissions of any other new file."""
    save_file(dict(tensors), path, metadata=dict(metadata))
    path.chmod(_permissions())


def save_model(model: Any, folder: Path) -> None:
    """Write a model of transformers, its weights with the permissions of any other new file."""
    model.save_pretrained(folder)
    for path in folder.glob(ALL_WEIGHTS):
        path.chmod(_permissions())


def _permissions() -> int:
    """The permissions of a new file, as the user's umask leaves them. It can only be read by setting it, for all
    threads, so a file is made instead."""
    with TemporaryDirectory() as folder:
        new = Path(folder) / "new"
        new.touch()
        return stat.S_IMODE(new.stat().st_mode)
