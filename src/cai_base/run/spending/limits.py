"""Checks settings against the limits of a local model, from the headers of its files, without tensors and torch.

For a model in the hub's cache, a GGUF file or another architecture, and for a GPU's memory, the engine checks the same
when it has loaded the model, before any work.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from cai_base import embedded, machine
from cai_base.embedded import EMBEDDED
from cai_base.errors import UserError
from cai_base.settings.choices import ModelChoice
from cai_base.settings.engines import engine_kind

ADAPTED = tuple(f"{name}_proj.weight" for name in ("q", "k", "v", "o", "gate", "up", "down"))
"""Ends of names of weights that are linear layers of a decoder, in most architectures."""
NOT_ADAPTED = ("vision", "audio", "experts")
"""Parts of names of weights that may not be a linear layer, or belong to a model other than the decoder."""
PLAIN = ("F64", "F32", "F16", "BF16")
"""Dtypes of weights that have the layer's shape; quantised weights are packed."""
GPU = Path("/dev/nvidiactl")


@dataclass(frozen=True, slots=True)
class Layer:
    """The shape `[outputs, inputs]` of a layer that LoRA adapts, and its name."""

    name: str
    outputs: int
    inputs: int


def check_limits(base: ModelChoice, seeds: int) -> None:
    """Check the rank and the number of seeds, which the base model limits, if its files are local.

    Raises:
        UserError: the rank is greater than a layer's smaller side, or the adapters of all seeds exceed the memory.
    """
    if base.lora is None or engine_kind(base.engine).served:  # a service checks its own limits
        return
    folder = embedded.weights() if base.model == EMBEDDED else Path(base.model)
    layers = list(_layers(folder)) if folder.is_dir() else []
    if not layers:
        return
    rank = base.lora.rank
    narrow = min(layers, key=lambda layer: min(layer.outputs, layer.inputs))
    largest = min(narrow.outputs, narrow.inputs)
    if rank > largest:
        raise UserError(
            f"--lora.rank {rank}: the largest rank for {base.model} is {largest}, since {narrow.name} has "
            f"{narrow.inputs} inputs and {narrow.outputs} outputs, and an update of it has no higher rank"
        )
    adapter = rank * sum(layer.outputs + layer.inputs for layer in layers)
    if not GPU.exists() and (reason := machine.too_large(seeds, adapter, machine.memory())):
        raise UserError(f"--seeds {seeds} with --lora.rank {rank}: {reason}")


def _layers(folder: Path) -> Iterator[Layer]:
    """The layers that LoRA adapts for certain, from the headers of a model's files. An invalid file has no layers here;
    loading it reports the fault."""
    for path in sorted(path for path in folder.glob("*.safetensors") if path.is_file()):
        try:
            with safe_open(path, framework="np") as file:
                for name in file.keys():  # noqa: SIM118  # no mapping
                    if name.endswith(ADAPTED) and not any(part in name for part in NOT_ADAPTED):
                        weight = file.get_slice(name)
                        shape = weight.get_shape()
                        if weight.get_dtype() in PLAIN and len(shape) == 2 and min(shape) > 0:
                            yield Layer(name.removesuffix(".weight"), *shape)
        except (SafetensorError, OSError):
            continue
