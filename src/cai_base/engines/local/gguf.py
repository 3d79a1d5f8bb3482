"""A GGUF file as a folder in Hugging Face layout: converted once, and kept under the user's cache.

transformers reads the file and dequantises its weights. The folder is then loaded as any other. Its weights are fp32,
four bytes each. It is kept by the file's hash and what decides what is read how: the versions of the packages, and the
source of this module and of those that add what transformers leaves out. The hashes of its own files are stored in it,
and compared before it is used.
"""

import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from cai_base.cache import cache_folder, file_digest
from cai_base.engines import EngineError
from cai_base.engines.local import gguf_meaning, gguf_tokenizer, sizes
from cai_base.engines.tokenizer import one_line
from cai_base.engines.weight_files import save_model
from cai_base.errors import install

SUFFIX = ".gguf"
PACKAGES = ("gguf", "accelerate")
"""What transformers needs to read such a file; the extra `gguf` has them."""
HASHES = "converted.json"
"""The file of a conversion with the hashes of its other files, written last."""
END_FIELDS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""The fields of `tokenizer.ggml` that name a token that ends a text, a turn or a message."""


def is_gguf(model: str) -> bool:
    """Whether a model's name is that of a GGUF file, by its ending."""
    return model.lower().endswith(SUFFIX)


def converted(model: str) -> str:
    """The folder with the weights and the tokenizer of a GGUF file, converted now if they are not in the cache.

    It may be deleted at any time: the file is then converted again.

    Args:
        model: path of the file.

    Raises:
        EngineError: there is no such file, it is damaged, transformers does not read its architecture, or a package
            that reads it is missing.
    """
    file = Path(model)
    if not file.is_file():
        raise EngineError("model", model, "there is no such file", "give the path of a GGUF file")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = cache_folder() / "gguf" / f"{digest}-{_way()}"
    if not _is_whole(folder):
        absent = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
        if absent:
            reason = f"a GGUF file is read with {' and '.join(absent)}, not installed here"
            raise EngineError("model", model, reason, f"install with {install('gguf')}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            with _read_once() as ignored:
                _convert(model, Path(scratch), Path(scratch) / folder.name, ignored)
            _put(Path(scratch) / folder.name, folder)
    return str(folder)


def _put(new: Path, folder: Path) -> None:
    """Put a finished conversion in its place, unless another process was faster; a damaged one there is removed."""
    (new / HASHES).write_text(json.dumps({path.name: file_digest(path) for path in sorted(new.iterdir())}))
    if folder.exists() and not _is_whole(folder):
        folder.rename(new.with_name("damaged"))  # removed with the folder that both are in
    try:
        new.rename(folder)
    except OSError:
        if not _is_whole(folder):
            raise


def _is_whole(folder: Path) -> bool:
    """Whether a folder has the files of a finished conversion, as they were written."""
    try:
        stored = json.loads((folder / HASHES).read_bytes())
        return bool({path.name: file_digest(path) for path in folder.iterdir() if path.name != HASHES} == stored)
    except (OSError, ValueError):
        return False


def _way() -> str:
    """What decides how a file is read, as a part of a folder's name."""
    try:
        package = importlib.metadata.version("gguf")
    except importlib.metadata.PackageNotFoundError:
        package = "none"
    here = inspect.getmodule(_way)
    text = "".join(inspect.getsource(module) for module in (here, gguf_meaning, gguf_tokenizer) if module is not None)
    return f"{transformers.__version__}-{package}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@contextmanager
def _read_once() -> Iterator[list[str]]:
    """Within it a file's fields are read once and from an array, and transformers shows no progress bar of its own.

    transformers has them read three times, for the config, the tokenizer and the weights. The reader takes them apart
    piece by piece, and a piece of a memory map, which is what it reads from, costs several times one of an array: that
    was most of a conversion's time where the vocabulary is large.

    Yields:
        A list to which the names of tensors that transformers passes over are added.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as reading

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
        @property
        def data(self) -> Any:
            return self._array

        @data.setter
        def data(self, mapped: Any) -> None:
            self._array = np.asarray(mapped)

    def without_bar(tensors: Any, **_: object) -> Any:
        return tensors

    ignored: list[str] = []

    class Names(dict[str, str]):
        """The tensors that transformers takes; it looks up every tensor of the file, but those it took before."""

        def __contains__(self, name: object) -> bool:
            present = super().__contains__(name)
            if not present and isinstance(name, str):
                ignored.append(name)
            return present

    own_names = reading.get_gguf_hf_weights_map

    def names(*positional: Any, **named: Any) -> Names:
        return Names(own_names(*positional, **named))

    readers = cache(lambda file: Reader(file))
    with (
        _in_place(gguf, "GGUFReader", readers),
        _in_place(reading, "tqdm", without_bar),
        _in_place(reading, "get_gguf_hf_weights_map", names),
    ):
        yield ignored


@contextmanager
def _in_place(module: Any, name: str, value: object) -> Iterator[None]:
    own = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, own)


def _convert(model: str, scratch: Path, folder: Path, ignored: list[str]) -> None:
    from gguf import GGUFReader

    # Alone in a folder: transformers would take a tokenizer or an adapter that lies beside the file for a part of it.
    alone = scratch / "source"
    alone.mkdir()
    (alone / "model.gguf").symlink_to(Path(model).resolve())
    try:
        reader = GGUFReader(str(alone / "model.gguf"))
        fields, tensors = reader.fields, len(reader.tensors)
        architecture = str(fields["general.architecture"].contents())
        settings = _fields(fields, f"{architecture}.")
        factors = next((part.data for part in reader.tensors if part.name == gguf_meaning.ROPE_FACTORS), None)
    except Exception as error:  # the reader trusts every length in the file, so anything can happen
        reason = f"is no GGUF file, or a damaged one ({one_line(error) or type(error).__name__})"
        raise EngineError(
            "model", model, reason, "fetch it again, and compare its size or hash with its source"
        ) from error
    sizes.check(model, Path(model).name, settings, tensors, Path(model).stat().st_size)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source: dict[str, Any] = {"gguf_file": "model.gguf", "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(alone, **source)
        both: Any = AutoModelForCausalLM.from_pretrained(alone, dtype=torch.float32, output_loading_info=True, **source)
    except Exception as error:  # as above, and transformers adds its own
        reason = f"transformers {transformers.__version__} does not read this file of architecture {architecture!r}"
        remedy = "give the model as a folder in Hugging Face layout, or a GGUF file of another architecture"
        raise EngineError("model", model, f"{reason} ({one_line(error) or type(error).__name__})", remedy) from error
    model_in_fp32, report = both
    if report["missing_keys"]:
        reason = f"it lacks weights that its config asks for, such as {min(report['missing_keys'])}"
        raise EngineError("model", model, reason, "fetch it again, or give the model in another form")
    ignored.extend(report["unexpected_keys"])
    try:
        division = {
            name: fields[f"tokenizer.ggml.{name}"]
            for name in gguf_tokenizer.FIELDS
            if f"tokenizer.ggml.{name}" in fields
        }
        gguf_tokenizer.complete(model, _fields(division, ""), tokenizer)
        read, taken = _taken(architecture, model_in_fp32.config.model_type, str(alone / "model.gguf"))
        settings = {name: value for name, value in settings.items() if name not in read}
        gguf_meaning.complete(model, architecture, settings, taken, ignored, factors, model_in_fp32)
    except EngineError:
        raise
    except Exception as error:  # a value of another type than its field has
        reason = f"is no GGUF file, or a damaged one ({one_line(error) or type(error).__name__})"
        raise EngineError("model", model, reason, "fetch it again") from error
    ends = {int(fields[name].contents()) for end in END_FIELDS if (name := f"tokenizer.ggml.{end}") in fields}
    if ends:
        model_in_fp32.generation_config.eos_token_id = sorted(ends)
    # What is loaded is dequantised, but transformers still holds it for a quantised model, which it does not write.
    model_in_fp32.hf_quantizer = None
    model_in_fp32.is_quantized = False
    if hasattr(model_in_fp32.config, "quantization_config"):
        del model_in_fp32.config.quantization_config
    save_model(model_in_fp32, folder)
    tokenizer.save_pretrained(folder)


def _fields(fields: Mapping[str, Any], start: str) -> dict[str, Any]:
    """The fields whose names have this start, by the rest of their names."""
    return {name.removeprefix(start): field.contents() for name, field in fields.items() if name.startswith(start)}


def _taken(architecture: str, kind: str, file: str) -> tuple[set[str], set[str]]:
    """The fields of an architecture from which transformers itself makes the config, and those that it only renames.

    Args:
        architecture: as the file has it.
        kind: the name that transformers has for it.
        file: its path.
    """
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS, get_gguf_config
    from transformers.integrations.gguf.reader import read_gguf_metadata

    if architecture not in GGUF_CONFIG_ARCHS:
        mapping: Mapping[str, Mapping[str, str | None]] = GGUF_CONFIG_MAPPING  # type: ignore[assignment]
        names = mapping.get(architecture) or mapping.get(kind, {})
        return set(), {name for name, own in names.items() if own is not None}
    read: set[str] = set()

    class Fields(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            read.add(name.removeprefix(f"{architecture}."))
            return super().__getitem__(name)

        def get(self, name: str, default: Any = None) -> Any:
            read.add(name.removeprefix(f"{architecture}."))
            return super().get(name, default)

    metadata, tensors = read_gguf_metadata(file)
    get_gguf_config(Fields(metadata), tensors)
    return read, set()
