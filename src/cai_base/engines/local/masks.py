"""Attention masks in the form that a model expects: one for all layers, or one for each type of layer.

A sliding window is expressed as a mask over positions. A token in a packed row, or after a shared prefix, then attends
to exactly the tokens that it would attend to in a row of its own.
"""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cai_base.engines.local.config_fields import source_words

FULL, SLIDING = "full_attention", "sliding_attention"
"""The layer types for which masks are made, as named in `config.layer_types`."""


@dataclass(frozen=True, slots=True)
class Masks:
    """The form of attention mask that one model accepts.

    Attributes:
        window: the size of the sliding window in tokens, the current one included; None if no layer has a window.
        by_type: the model takes a dictionary with one mask per layer type (Gemma 2 and 3, Qwen 2 and 3, OLMo 3,
            gpt-oss, Ministral, Cohere 2). Otherwise one mask serves all layers (Mistral, Phi-3).
        additive: the type of a mask that is added to the attention scores (eager attention); None if the mask is
            boolean (sdpa).
    """

    window: int | None
    by_type: bool
    additive: torch.dtype | None

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Masks":
        """The form that `model` accepts, according to its config."""
        config = model.config.get_text_config()
        types = getattr(config, "layer_types", None) or ()
        has_window = SLIDING in types or (not types and reads_window(model))
        window = getattr(config, "sliding_window", None) if has_window else None
        eager = config._attn_implementation == "eager"
        return cls(window, SLIDING in types, model.dtype if eager else None)

    def windows(self, model: PreTrainedModel) -> list[int | None]:
        """The sliding window of each decoder layer."""
        config = model.config.get_text_config()
        types = config.layer_types if self.by_type else [SLIDING] * config.num_hidden_layers
        return [self.window if one == SLIDING else None for one in types]

    def make(self, seen: Tensor, queries: Tensor, keys: Tensor) -> Any:
        """The value of the model's argument `attention_mask`.

        Args:
            seen: `[rows, 1, queries, keys]`, true where the query may attend to the key, before any sliding window.
            queries: `[rows, queries]`, the position of each query token in its own sequence.
            keys: `[rows, keys]`, the position of each key token in its own sequence.
        """
        if self.window is None:
            return self._as_taken(seen)
        sliding = seen & (queries[:, None, :, None] - keys[:, None, None, :] < self.window)
        if not self.by_type:
            return self._as_taken(sliding)
        return {FULL: self._as_taken(seen), SLIDING: self._as_taken(sliding)}

    def _as_taken(self, mask: Tensor) -> Tensor:
        if self.additive is None:
            return mask
        lowest = torch.finfo(self.additive).min
        return torch.zeros_like(mask, dtype=self.additive).masked_fill_(~mask, lowest)


def reads_window(model: PreTrainedModel) -> bool:
    """Whether the model's architecture reads the field `sliding_window`: in others, such as Llama, it is no window."""
    parts = (type(model), type(model.get_decoder()))  # type: ignore[no-untyped-call]
    return "sliding_window" in source_words(frozenset(sys.modules[part.__module__] for part in parts))
