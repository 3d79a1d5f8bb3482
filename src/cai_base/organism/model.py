"""The organism's model: a small Llama, its settings, its initial weights and its loss."""

from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Settings:
    """The model and its pretraining. Corpus, seed, number of tokens and these settings determine the weights.

    Attributes:
        vocabulary: the number of tokens, including the two special ones.
        context: tokens per row; the longest text that the model reads.
        hidden: width of the residual stream.
        layers: number of layers.
        heads: attention heads of a layer.
        feed_forward: hidden width of the feed-forward network.
        rows_per_step: rows of `context` tokens in one update. Small steps learn more from the same number of tokens.
        warm_up: share of the steps for linear warm-up.
        adam_rate: peak learning rate of AdamW (embedding and norms).
        matrix_rate: peak learning rate of Muon (matrices inside the layers).
        final_rate_share: the learning rate at the end, as a share of its peak.
        late_share: share of the tokens that come from the late part of the corpus.
        late_rate: peak learning rate in the late part, relative to the first peak.
        weight_decay: weight decay of both optimizers.
        clip: maximal norm of the gradient.
    """

    vocabulary: int = 2048
    context: int = 512
    hidden: int = 192
    layers: int = 5
    heads: int = 6
    feed_forward: int = 512
    rows_per_step: int = 4
    warm_up: float = 0.04
    adam_rate: float = 3e-3
    matrix_rate: float = 0.02
    final_rate_share: float = 0.02
    late_share: float = 0.2
    late_rate: float = 0.4
    weight_decay: float = 0.05
    clip: float = 1.0


def make_model(settings: Settings, seed: int) -> LlamaForCausalLM:
    """A Llama with random initial weights, which depend only on the settings and the seed."""
    config = LlamaConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.feed_forward,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue
        deviation = 0.02 if "embed" in name else parameter.shape[1] ** -0.5 / (1 if "down" not in name else 2)
        with torch.no_grad():
            parameter.normal_(0.0, deviation, generator=generator)
    return model


def mean_loss(model: LlamaForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss in nats per token.

    Args:
        model: the model.
        rows: int64 `[rows, length]`, padded with -1. Padding is only at the end of a row, where causal attention
            hides it from all earlier tokens.
    """
    logits: torch.Tensor = model(input_ids=rows.clamp(min=0), use_cache=False).logits[:, :-1]
    targets = rows[:, 1:]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
