"""A chat model small enough to be made in a test, in the published layout, that answers by the words it reads.

One layer whose attention is the mean over what came before, so the model knows how often each word stood in the
question, and a head in which each answer, a token of its own, weighs those words.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BEGIN, END, USER, ASSISTANT, OTHER = "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|other|>"
SPECIAL = (BEGIN, END, USER, ASSISTANT, OTHER)
CHAT = (
    "<|begin|>{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def save(
    folder: Path, answers: Mapping[str, Mapping[str, float]], template: str | None = CHAT, context: int = 4096
) -> Path:
    """A folder with the model.

    Args:
        answers: each answer, and what each word of the question adds to its score, by the share of the words it is.
    """
    words = sorted({word for weights in answers.values() for word in weights})
    vocabulary = {text: number for number, text in enumerate((*SPECIAL, *words, *answers))}
    tokenizer = Tokenizer(models.WordLevel({text: vocabulary[text] for text in (*SPECIAL, *words)}, OTHER))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens(list(answers))
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, unk_token=OTHER)
    made.chat_template = template
    made.save_pretrained(folder)
    size = len(vocabulary)
    width = 2 * size
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=width,
            intermediate_size=4,
            num_hidden_layers=1,
            num_attention_heads=1,
            max_position_embeddings=context,
            bos_token_id=vocabulary[BEGIN],
            eos_token_id=vocabulary[END],
        )
    )
    layer = model.model.layers[0]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        # The first half says which token stands here, the second how often each stood before.
        model.model.embed_tokens.weight[:, :size] = torch.eye(size)
        layer.self_attn.v_proj.weight[:size, :size] = torch.eye(size)
        layer.self_attn.o_proj.weight[size:, :size] = torch.eye(size) / width**0.5
        for answer, weights in answers.items():
            model.lm_head.weight[vocabulary[answer], vocabulary[ASSISTANT]] = 1000.0
            model.lm_head.weight[vocabulary[END], vocabulary[answer]] = 3000.0
            for word, weight in weights.items():
                model.lm_head.weight[vocabulary[answer], size + vocabulary[word]] = weight
    model.save_pretrained(folder)
    return folder
