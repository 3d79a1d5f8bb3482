"""A small GGUF file as llama.cpp's converter would write it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from engines.checkpoints import save_tokenizer

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
WIDTH, INNER, LAYERS, HEADS, KV_HEADS = 32, 64, 2, 4, 2
HEAD, THETA = 8, 500_000.0


def write(
    file: Path,
    architecture: str = "llama",
    extra: Callable[[Any], None] = lambda writer: None,
    *,
    head: int = HEAD,
    tokenizer: str = "gpt2",
    pre: str | None = "llama-bpe",
    bos: bool | None = True,
) -> Path:
    """A random model of few layers with its tokenizer, its large matrices in 8-bit blocks.

    Args:
        file: where to.
        architecture: "llama", "gemma3" or "phi3" have their tensors; another has Llama's.
        extra: adds fields and tensors.
        head: the width of an attention head.
        tokenizer: "gpt2", or "llama" for one of SentencePiece.
        pre: how its tokenizer divides text.
        bos: whether it says that a text has a first token; None says nothing.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants

    save_tokenizer(file.parent / "tokenizer", bos=True)
    learned = json.loads((file.parent / "tokenizer" / "tokenizer.json").read_text())["model"]
    tokens = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    if tokenizer == "llama":
        tokens = [token.replace("Ġ", "▁") for token in tokens]
    writer = GGUFWriter(file, architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(THETA)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model(tokenizer)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in ("<s>", "</s>") else TokenType.NORMAL for token in tokens])
    if tokenizer == "llama":
        writer.add_token_scores([-float(place) for place in range(len(tokens))])
    else:
        writer.add_token_merges([" ".join(pair) for pair in learned["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_eot_token_id(7)
    writer.add_pad_token_id(0)
    if bos is not None:
        writer.add_add_bos_token(bos)
    writer.add_chat_template(TEMPLATE)
    generator = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        values = generator.normal(0, 0.15, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, 1 + values)
        else:
            blocks = quants.quantize(values, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, blocks, raw_dtype=GGMLQuantizationType.Q8_0)

    add("token_embd.weight", len(tokens), WIDTH)
    add("output_norm.weight", WIDTH)
    add("output.weight", len(tokens), WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        add(f"{block}.attn_norm.weight", WIDTH)
        add(f"{block}.ffn_norm.weight", WIDTH)
        if architecture == "phi3":
            add(f"{block}.attn_qkv.weight", head * (HEADS + 2 * KV_HEADS), WIDTH)
            add(f"{block}.ffn_up.weight", 2 * INNER, WIDTH)
        else:
            add(f"{block}.attn_q.weight", head * HEADS, WIDTH)
            add(f"{block}.attn_k.weight", head * KV_HEADS, WIDTH)
            add(f"{block}.attn_v.weight", head * KV_HEADS, WIDTH)
            add(f"{block}.ffn_gate.weight", INNER, WIDTH)
            add(f"{block}.ffn_up.weight", INNER, WIDTH)
        add(f"{block}.attn_output.weight", WIDTH, head * HEADS)
        add(f"{block}.ffn_down.weight", WIDTH, INNER)
        if architecture == "gemma3":
            add(f"{block}.attn_q_norm.weight", head)
            add(f"{block}.attn_k_norm.weight", head)
            add(f"{block}.post_attention_norm.weight", WIDTH)
            add(f"{block}.post_ffw_norm.weight", WIDTH)
    if architecture == "gemma3":
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_sliding_window(16)
    extra(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
