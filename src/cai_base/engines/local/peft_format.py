"""Reads and writes adapters in PEFT's format.

An adapter is either read so that it computes exactly what PEFT would compute, or refused; the message names the field
that is not supported.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from cai_base.engines import EngineError, Lora
from cai_base.engines.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from cai_base.engines.limits import TimeLimitError, limited
from cai_base.engines.local.lora import Place, views
from cai_base.engines.weight_files import save_weights
from cai_base.errors import UserError
from cai_base.reading import parse_json, quote, read_text

PREFIX = "base_model.model."
REMEDY = f"give a folder with a plain LoRA adapter as PEFT writes it ({ADAPTER_CONFIG}, {ADAPTER_WEIGHTS})"
DAMAGED = "give a whole copy of an adapter of this model"
MERGE = "merge it into the model with PEFT (merge_and_unload) and give the merged folder"

INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""The values of `init_lora_weights` that do not change the base model's weights. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA
change them, so their adapters belong to a modified base model that is not stored anywhere."""
READ = ("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights", "bias")
"""The fields that are read."""
TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
"""The fields that choose the layers."""
WITHOUT_EFFECT = (
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("lora_dropout", "runtime_config", "megatron_core", "qalora_group_size", "ensure_weight_tying"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
)
"""The fields that do not affect what a trained plain LoRA adapter computes."""


LARGEST = 1e30
"""The largest alpha: with a weight it must not leave single precision, which ends at 3.4e38."""


LEAST_SCALE = 1e-6
"""The smallest alpha / r: below it an update is lost in rounding, and the adapter computes what its base does."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The layers that an adapter adapts, their ranks and scales, from its `adapter_config.json`.

    Attributes:
        config: the content of the file, checked to be supported.
        path: of the file.
    """

    config: Mapping[str, Any]
    path: Path

    @classmethod
    def read(cls, directory: Path) -> "Shape":
        """The shape of the adapter in a folder.

        Raises:
            UserError: it is no LoRA adapter, or uses a feature that is not supported; names the file and the field.
        """
        path = directory / ADAPTER_CONFIG
        config = parse_json(path, read_text(path, "a PEFT adapter's settings"))
        if not isinstance(config, dict) or config.get("peft_type") != "LORA":
            raise UserError(f"{path}: peft_type is not LORA; {REMEDY}")
        start = config.get("init_lora_weights", True)
        if not any(start is value or (isinstance(start, str) and start.lower() == value) for value in INITIALISATIONS):
            raise UserError(
                f"{path}: init_lora_weights is {quote(start)}, which is not supported: it may have changed the base "
                "model's weights; convert it to plain LoRA with PEFT's path_initial_model_for_weight_conversion"
            )
        if config.get("bias", "none") != "none":
            raise UserError(f"{path}: bias is {quote(config['bias'])}, which is not supported; {REMEDY}")
        for field in sorted(config.keys() - {*READ, *TARGETS, *WITHOUT_EFFECT}):
            if config[field]:
                raise UserError(f"{path}: {field} is {quote(config[field])}, which is not supported; {REMEDY}")
        rank, alpha = config.get("r"), config.get("lora_alpha")
        if not (_is_rank(rank) and _is_alpha(alpha)):
            raise UserError(f"{path}: r is {quote(rank)} and lora_alpha {quote(alpha)}; {REMEDY}")
        for field, fits in (("rank_pattern", _is_rank), ("alpha_pattern", _is_alpha)):
            pattern = config.get(field) or {}
            valid = isinstance(pattern, dict) and all(map(_is_regex, pattern)) and all(map(fits, pattern.values()))
            if not valid:
                raise UserError(
                    f"{path}: {field} is {quote(pattern)}, not a positive number for each pattern; {REMEDY}"
                )
        for field in TARGETS:
            if not _is_choice(field, config.get(field)):
                raise UserError(f"{path}: {field} is {quote(config[field])}, which selects no layers; {REMEDY}")
        return cls(config, path)

    @property
    def lora(self) -> Lora:
        """The shape of an engine that can hold the adapter: its largest rank, and the alpha that gives the scale of
        `r`."""
        rank, alpha = int(self.config["r"]), float(self.config["lora_alpha"])
        largest = max([rank, *(self.config.get("rank_pattern") or {}).values()])
        if largest == rank and not self.config.get("use_rslora"):
            return Lora(rank, alpha)
        return Lora(largest, largest * self._scale(rank, alpha))

    def rank(self, name: str) -> int:
        """The rank of the layer `name`."""
        return int(self._of("rank_pattern", name, self.config["r"]))

    def scale(self, name: str) -> float:
        """The factor of the product of the layer's matrices; for rsLoRA, Kalajdzievski, arXiv 2312.03732."""
        return self._scale(self.rank(name), float(self._of("alpha_pattern", name, self.config["lora_alpha"])))

    def adapts(self, name: str) -> bool | None:
        """Whether the config selects the layer `name`; None if it has no `target_modules`."""
        targets, excluded = self.config.get("target_modules"), self.config.get("exclude_modules")
        if targets is None:
            return None
        if excluded and _chosen(excluded, name):
            return False
        if isinstance(targets, str) or name in targets:
            return targets == "all-linear" or _chosen(targets, name)
        return _chosen(targets, name) and self._in_layers(name)

    def _in_layers(self, name: str) -> bool:
        """Whether `layers_to_transform` contains the number of the decoder layer that `name` belongs to."""
        numbers = self._layers()
        return not numbers or self._layer(name) in numbers

    def _layers(self) -> list[int]:
        """The numbers in `layers_to_transform`; empty for all layers."""
        numbers = self.config.get("layers_to_transform")
        return [numbers] if isinstance(numbers, int) else numbers or []

    def _layer(self, name: str) -> int | None:
        """The number of the decoder layer that `name` belongs to."""
        patterns = self.config.get("layers_pattern") or [r"[^.]*"]
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            if match := re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name):
                return int(match[1])
        return None

    def unmatched(self, names: Sequence[str]) -> Iterator[str]:
        """What selects none of these layers, field by field: PEFT ignores it, so the adapter is another model's."""
        targets = self.config.get("target_modules")
        for target in targets if isinstance(targets, list) else ():
            if not any(_chosen([target], name) for name in names):
                yield f"target_modules has {quote(target)}"
        existing = {self._layer(name) for name in names} if self._layers() else set()
        for number in self._layers():
            if number not in existing:
                yield f"layers_to_transform has {number}"
        for field in ("rank_pattern", "alpha_pattern"):
            for pattern in self.config.get(field) or {}:
                if not any(_ends_in(pattern, name) for name in names):
                    yield f"{field} has {quote(pattern)}"

    def _scale(self, rank: int, alpha: float) -> float:
        return float(alpha / (rank**0.5 if self.config.get("use_rslora") else rank))

    def _of(self, field: str, name: str, default: Any) -> Any:
        """The value of the first pattern that matches the end of the layer's name, as in PEFT."""
        for pattern, value in (self.config.get(field) or {}).items():
            if _ends_in(pattern, name):
                return value
        return default


def _ends_in(pattern: str, name: str) -> bool:
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_alpha(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LARGEST


def _is_regex(pattern: object) -> bool:
    try:
        re.compile(str(pattern))
    except (re.error, OverflowError, RecursionError):  # too many repetitions, or brackets inside each other
        return False
    return True


def _is_choice(field: str, value: object) -> bool:
    """Whether a field that selects layers has a form that PEFT writes: nothing, names, a pattern, or numbers."""
    kind = int if field == "layers_to_transform" else str
    if isinstance(value, list):
        return all(isinstance(one, kind) and (field != "layers_pattern" or _is_regex(one)) for one in value)
    return value is None or (isinstance(value, kind) and _is_regex(value))


def _chosen(choice: str | list[str], name: str) -> bool:
    """Whether a pattern matches the whole name, or one of a list of names is its end."""
    if isinstance(choice, str):
        return re.fullmatch(choice, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in choice)


def outside(model: PreTrainedModel) -> list[str]:
    """The names of a model's embedding and head."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[no-untyped-call]
    return [name for name, module in model.named_modules() if any(module is end for end in ends)]


def targets(model: nn.Module, places: list[Place]) -> list[str]:
    """The `target_modules` of the adapted layers: short names if no other layer of `model` has them, else full
    names."""
    adapted = {place.name for place in places}
    short = {name.rpartition(".")[2] for name in adapted}
    others = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in short and name not in adapted]
    return sorted(adapted if others else short)


def write(
    directory: Path, base_model: str, settings: Lora, places: list[Place], flat: Tensor, targets: list[str]
) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` for parameters `flat [parameters]`.

    Args:
        directory: the adapter's folder.
        base_model: its name.
        settings: shape of the adapter.
        places: the layers that it adapts.
        flat: its parameters.
        targets: the names of the adapted layers, from `targets()`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for place, (a, b) in zip(places, views(places, flat[None].cpu()), strict=True):
        tensors[f"{PREFIX}{place.name}.lora_A.weight"] = a[0].T.contiguous()
        tensors[f"{PREFIX}{place.name}.lora_B.weight"] = b[0].T.contiguous()
    save_weights(tensors, directory / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": settings.rank,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
    }
    (directory / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def shape(directory: Path) -> Lora:
    """The shape of an adapter in PEFT's format.

    Raises:
        UserError: it is no LoRA adapter in safetensors, or uses a feature that is not supported; names file and field.
    """
    if not (directory / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{directory}: no {ADAPTER_WEIGHTS} there (pickled weights are not read); {REMEDY}")
    shape, path = Shape.read(directory), directory / ADAPTER_WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            sides = [side for name in file.keys() for side in file.get_slice(name).get_shape()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    if sides and shape.lora.rank > max(sides):
        raise UserError(
            f"{shape.path}: its rank is {shape.lora.rank}, and no matrix of {ADAPTER_WEIGHTS} has more than "
            f"{max(sides)} rows; {DAMAGED}"
        )
    for alpha in (shape.config["lora_alpha"], *(shape.config.get("alpha_pattern") or {}).values()):
        if alpha / shape.lora.rank < LEAST_SCALE:
            raise UserError(
                f"{shape.path}: alpha {alpha:g} at rank {shape.lora.rank} scales its updates by less than "
                f"{LEAST_SCALE:g}, so it does nothing; {REMEDY}"
            )
    return shape.lora


def is_base(places: list[Place], flat: Tensor) -> bool:
    """Whether parameters `flat [parameters]` change nothing, because every B is zero."""
    return not any(b.any() for _, b in views(places, flat[None]))


def read(directory: Path, settings: Lora, places: list[Place], outside: Sequence[str] = ()) -> Tensor:
    """The flat parameters `[parameters]` of an adapter, zero for layers that it does not adapt.

    If a layer's rank is below the engine's, its matrices are padded with zeros; if its scale differs, its B is
    multiplied by the ratio.

    Args:
        directory: the adapter's folder.
        settings: shape of the engine's adapters.
        places: the layers of the engine's model, at that rank.
        outside: the names of the model's embedding and head, which are not adapted here.

    Raises:
        UserError: the adapter uses a feature that is not supported, or is damaged; names the file and field or tensor.
        EngineError: it was made for other layers or another rank.
    """
    shape = Shape.read(directory)
    if shape.lora != settings:
        raise _mismatch(directory, f"r is {shape.lora.rank} and lora_alpha {shape.lora.alpha:g}")
    tensors = _load(directory / ADAPTER_WEIGHTS)
    # Without `target_modules`, the tensors in the file say which layers are adapted.
    named = {name.removeprefix(PREFIX).rpartition(".lora_")[0].rpartition(".")[2] for name in tensors}
    of_place = _matched(shape, places, outside)
    flat = torch.zeros(sum(sum(place.sizes) for place in places))
    for place, (a, b) in zip(places, views(places, flat[None]), strict=True):
        names = [f"{PREFIX}{place.name}.lora_{half}.weight" for half in ("A", "B")]
        absent = [name for name in names if name not in tensors]
        adapts, rank, scale = of_place[place.name]
        if len(absent) == 1 or (absent and (place.name.rpartition(".")[2] in named if adapts is None else adapts)):
            raise UserError(f"{directory / ADAPTER_WEIGHTS}: {absent[0]} is missing; {DAMAGED}")
        if absent:
            continue
        if adapts is False:
            raise UserError(
                f"{directory / ADAPTER_WEIGHTS}: {names[0]} is of a layer that {ADAPTER_CONFIG} does not select; "
                f"{DAMAGED}"
            )
        for half, name, view in zip("AB", names, (a[0].T[:rank], b[0].T[:, :rank]), strict=True):
            stored = tensors.pop(name)
            if stored.shape != view.shape:
                raise _mismatch(directory, f"lora_{half} of {place.name}")
            view.copy_(stored)
        if scale != settings.alpha / settings.rank:
            b.mul_(scale * settings.rank / settings.alpha)
    for name in outside:
        if any(key.startswith(f"{PREFIX}{name}.") for key in tensors):
            reason = f"it adapts {name}, and only linear layers of the decoder are supported, not its embedding or head"
            raise EngineError("adapter", directory, reason, MERGE)
    if tensors:
        raise _mismatch(directory, f"it holds {min(tensors)}")
    return flat


def _matched(shape: Shape, places: list[Place], outside: Sequence[str]) -> dict[str, tuple[bool | None, int, float]]:
    """Whether the config selects each layer, its rank and its scale; raises UserError if its patterns take too long."""
    try:
        with limited():
            names = [place.name for place in places]
            unmatched = next(shape.unmatched([*names, *outside]), None)
            of_place = {name: (shape.adapts(name), shape.rank(name), shape.scale(name)) for name in names}
    except (TimeLimitError, MemoryError, RecursionError) as error:
        reason = str(error) or "it takes too much memory"
        raise UserError(f"{shape.path}: its patterns cannot be matched ({reason}); {REMEDY}") from error
    if unmatched is not None:
        raise UserError(f"{shape.path}: {unmatched}, and this model has no such layer; {DAMAGED}")
    return of_place


def _load(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; raises UserError if it is damaged, empty, or holds a number that is not finite."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    if not tensors:
        raise UserError(f"{path}: holds no tensors; {DAMAGED}")
    for name, tensor in sorted(tensors.items()):
        if not tensor.is_floating_point():
            raise UserError(f"{path}: {name} holds {tensor.dtype}, and no floating-point numbers; {DAMAGED}")
        tensors[name] = tensor.float()  # a large number in double precision becomes infinite
        if not tensors[name].isfinite().all():
            raise UserError(f"{path}: {name} holds numbers that are not finite; {DAMAGED}")
    return tensors


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be read as safetensors ({error}); {DAMAGED}")


def _mismatch(directory: Path, detail: str) -> EngineError:
    reason = f"not an adapter of this model and rank ({detail})"
    return EngineError("adapter", directory, reason, "give one that was trained on this model")
