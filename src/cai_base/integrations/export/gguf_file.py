"""Writes an arm as a GGUF file for llama.cpp, if its architecture and tokenizer can be represented exactly.

llama.cpp identifies a byte-level BPE tokenizer by the name of its pre-tokenisation rule. A rule is used only if it
gives this tokenizer's tokens for every text that the run stored.
"""

import copy
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cai_base.errors import UserError, install

ELSEWHERE = (
    "export with --merged and convert that folder with llama.cpp's convert_hf_to_gguf.py, which supports more models"
)
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
RULES = {
    "llama-bpe": _LLAMA_3,
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    "bloom": r" ?[^(\s|.,!?…。，、।۔،)]+",
}
"""The pre-tokenisation rules of llama.cpp to try, with their regular expressions (llama.cpp, llama-vocab.cpp)."""


def write_gguf(model: Any, tokenizer: Any, out: Path, name: str, texts: Iterable[str]) -> str:
    """Write a merged model.

    Args:
        model: a transformers model.
        tokenizer: a transformers tokenizer with the chat template.
        out: the file.
        name: the model's name, for the metadata.
        texts: the texts on which the tokenizer's rule is checked.

    Returns:
        A sentence for the reader about the tokenizer.

    Raises:
        UserError: the architecture or the tokenizer cannot be written exactly, or the package is missing.
    """
    try:
        import gguf
    except ImportError:
        raise UserError(f"--gguf: the package gguf is not installed; {install('gguf')}") from None

    _refuse_other_architectures(model)
    rule, sentence = _rule(tokenizer, list(texts))
    config = model.config
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    single = model.dtype == torch.float32
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if single else gguf.LlamaFileType.MOSTLY_F16)
    _add_tokenizer(writer, tokenizer, config.vocab_size, rule, gguf.TokenType)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if key.endswith("q_proj.weight"):
            values = _interleaved(values, config.num_attention_heads)
        if key.endswith("k_proj.weight"):
            values = _interleaved(values, config.num_key_value_heads)
        writer.add_tensor(
            names.get_name(key, try_suffixes=(".weight",)),
            values if single or values.ndim == 1 else values.astype(np.float16),
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sentence


def _refuse_other_architectures(model: Any) -> None:
    kind = type(model).__name__
    if kind != "LlamaForCausalLM":
        raise UserError(f"--gguf: {kind} is not supported, only LlamaForCausalLM; {ELSEWHERE}")
    config = model.config
    rope = config.rope_parameters.get("rope_type", "default")
    for what, stands in (
        (f"rope of type {rope}", rope != "default"),
        ("biases in attention or MLP", config.attention_bias or config.mlp_bias),
    ):
        if stands:
            raise UserError(f"--gguf: a Llama with {what} is not supported; {ELSEWHERE}")


def _rule(tokenizer: Any, texts: Sequence[str]) -> tuple[str, str]:
    """The first rule of llama.cpp that gives this tokenizer's tokens for every text, and a sentence about it."""
    from tokenizers import Tokenizer

    content = json.loads(tokenizer.backend_tokenizer.to_str())
    if content["model"]["type"] != "BPE" or not _byte_level(content):
        raise UserError(f"--gguf: its tokenizer is not byte-level BPE, the only supported kind; {ELSEWHERE}")
    own = Tokenizer.from_str(json.dumps(content))
    for name, expression in RULES.items():
        changed = copy.deepcopy(content)
        split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        changed["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
        other = Tokenizer.from_str(json.dumps(changed))
        if all(own.encode(text).ids == other.encode(text).ids for text in texts):
            return name, (
                f"llama.cpp pre-tokenises by its rule {name}, which gave this tokenizer's tokens for all {len(texts)} "
                "texts of the run; for other texts the tokens may differ"
            )
    raise UserError(f"--gguf: no known rule of llama.cpp gives its tokenizer's tokens; {ELSEWHERE}")


def _byte_level(content: dict[str, Any]) -> bool:
    before = content["pre_tokenizer"] or {}
    return any(one["type"] == "ByteLevel" for one in (before, *before.get("pretokenizers", ())) if "type" in one)


def _add_tokenizer(writer: Any, tokenizer: Any, size: int, rule: str, kinds: Any) -> None:
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    words = {index: word for word, index in tokenizer.get_vocab().items()}
    special = {added["id"] for added in content["added_tokens"] if added["special"]}
    added = {added["id"] for added in content["added_tokens"]}
    kind = {index: kinds.CONTROL if index in special else kinds.USER_DEFINED for index in added}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list([words.get(index, f"[unused {index}]") for index in range(size)])
    writer.add_token_types([kind.get(index, kinds.NORMAL if index in words else kinds.UNUSED) for index in range(size)])
    merges = content["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.eos_token_id is not None:
        writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)
    writer.add_chat_template(tokenizer.chat_template)


def _interleaved(values: Any, heads: int) -> Any:
    """The rows of a query or key matrix in llama.cpp's order: its RoPE rotates neighbours, transformers' the halves."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
