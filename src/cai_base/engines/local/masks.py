"""Ready-made attention masks, as a model takes them: one for all layers, or one for each type of layer.

A sliding window is a mask over positions. With it, a token of a packed row, or one behind a shared prefix, sees exactly
the tokens that it would see in a row of its own.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

FULL, SLIDING = "full_attention", "sliding_attention"
"""The types of layers for which masks are made, as `config.layer_types` names them."""


@dataclass(frozen=True, slots=True)
class Masks:
    """How one model takes ready-made masks.

    Attributes:
        window: tokens that a layer with a sliding window sees, its own included; None if no layer has one.
        by_type: the model takes a dictionary with a mask for each type of layer (Gemma 2 and 3, Qwen 2 and 3, OLMo 3,
            gpt-oss, Ministral, Cohere 2). Else one mask serves all layers (Mistral, Phi-3).
        additive: the mask is added to the attention scores (eager attention); else it is boolean (sdpa).
    """

    window: int | None
    by_type: bool
    additive: torch.dtype | None

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Masks":
        """How `model` takes them, by its config."""
        config = model.config.get_text_config()
        types = getattr(config, "layer_types", None) or ()
        window = getattr(config, "sliding_window", None) if SLIDING in types or not types else None
        eager = config._attn_implementation == "eager"
        return cls(window, SLIDING in types, model.dtype if eager else None)

    def make(self, seen: Tensor, queries: Tensor, keys: Tensor) -> Any:
        """What to give the model as `attention_mask`.

        Args:
            seen: `[rows, 1, queries, keys]`, true where a token may look, windows apart.
            queries: positions `[rows, queries]` of the tokens that look, each in its own sequence.
            keys: positions `[rows, keys]` of the tokens that are looked at.
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
