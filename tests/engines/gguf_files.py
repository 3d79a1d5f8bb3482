"""A small GGUF file as llama.cpp's converter would write it."""

import json
from pathlib import Path

import numpy as np
from engines.checkpoints import save_tokenizer

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
WIDTH, INNER, LAYERS, HEADS, KV_HEADS = 32, 64, 2, 4, 2


def write(file: Path, architecture: str = "llama") -> Path:
    """A random Llama of two layers with its tokenizer, its large matrices in 8-bit blocks."""
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants

    save_tokenizer(file.parent / "tokenizer", bos=True)
    learned = json.loads((file.parent / "tokenizer" / "tokenizer.json").read_text())["model"]
    tokens = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    writer = GGUFWriter(file, architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in ("<s>", "</s>") else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in learned["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_eot_token_id(7)
    writer.add_add_bos_token(True)
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
        add(f"{block}.attn_q.weight", WIDTH, WIDTH)
        add(f"{block}.attn_k.weight", WIDTH * KV_HEADS // HEADS, WIDTH)
        add(f"{block}.attn_v.weight", WIDTH * KV_HEADS // HEADS, WIDTH)
        add(f"{block}.attn_output.weight", WIDTH, WIDTH)
        add(f"{block}.ffn_gate.weight", INNER, WIDTH)
        add(f"{block}.ffn_up.weight", INNER, WIDTH)
        add(f"{block}.ffn_down.weight", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
