"""A GGUF file as a folder in Hugging Face layout: converted once, and kept under the user's cache.

transformers reads the file and dequantises its weights. The folder is then loaded as any other. Its weights are fp32,
four bytes each. It is kept by the file's hash and the version of transformers, which decides what is read how.
"""

import hashlib
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from cai_base.cache import cache_folder
from cai_base.engines import EngineError
from cai_base.engines.local import sizes
from cai_base.engines.tokenizer import one_line

SUFFIX = ".gguf"
PACKAGES = ("gguf", "accelerate")
"""What transformers needs to read such a file; the extra `gguf` has them."""
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
    folder = cache_folder() / "gguf" / f"{digest}-{transformers.__version__}"
    if not folder.is_dir():
        absent = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
        if absent:
            reason = f"a GGUF file is read with {' and '.join(absent)}, not installed here"
            raise EngineError("model", model, reason, "install with pip install 'cai-base[gguf]'")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            with _read_once():
                _convert(model, Path(scratch), Path(scratch) / folder.name)
            if not folder.is_dir():  # unless another process was faster
                (Path(scratch) / folder.name).rename(folder)
    return str(folder)


@contextmanager
def _read_once() -> Iterator[None]:
    """Within it a file's fields are read once and from an array, and transformers shows no progress bar of its own.

    transformers has them read three times, for the config, the tokenizer and the weights. The reader takes them apart
    piece by piece, and a piece of a memory map, which is what it reads from, costs several times one of an array: that
    was most of a conversion's time where the vocabulary is large.
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

    readers = cache(lambda file: Reader(file))
    with _in_place(gguf, "GGUFReader", readers), _in_place(reading, "tqdm", without_bar):
        yield


@contextmanager
def _in_place(module: Any, name: str, value: object) -> Iterator[None]:
    own = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, own)


def _convert(model: str, scratch: Path, folder: Path) -> None:
    from gguf import GGUFReader

    # Alone in a folder: transformers would take a tokenizer or an adapter that lies beside the file for a part of it.
    alone = scratch / "source"
    alone.mkdir()
    (alone / "model.gguf").symlink_to(Path(model).resolve())
    try:
        reader = GGUFReader(str(alone / "model.gguf"))
        fields, tensors = reader.fields, len(reader.tensors)
        architecture = str(fields["general.architecture"].contents())
        named = {name: fields.get(f"{architecture}.{name}") for name in (*sizes.LAYERS, *sizes.SIDES)}
        settings = {name: field.contents() for name, field in named.items() if field is not None}
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
    ends = {int(fields[name].contents()) for end in END_FIELDS if (name := f"tokenizer.ggml.{end}") in fields}
    if ends:
        model_in_fp32.generation_config.eos_token_id = sorted(ends)
    # What is loaded is dequantised, but transformers still holds it for a quantised model, which it does not write.
    model_in_fp32.hf_quantizer = None
    model_in_fp32.is_quantized = False
    if hasattr(model_in_fp32.config, "quantization_config"):
        del model_in_fp32.config.quantization_config
    model_in_fp32.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
