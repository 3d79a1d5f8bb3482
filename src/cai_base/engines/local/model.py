"""Loading a Hugging Face causal language model, frozen, and finding out how its batches may be laid out."""

import hashlib
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from cai_base import randomness
from cai_base.engines import Sequence
from cai_base.engines.local.forward import Layout, logprob_sums
from cai_base.errors import UserError

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15, torch.float16: 0.02}
"""By how much a token's log-probability may differ, packed and padded, before packing counts as invalid."""


class HubTokenizer:
    """A Hugging Face tokenizer behind the engine's `Tokenizer` protocol."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, eos: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self.eos = eos
        # Llama's tokenizer puts its first token before every text, Qwen's does not: ask it, do not guess.
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        self.bos: int | None = full[0] if full[1 : 1 + len(bare)] == bare else None

    def encode(self, text: str) -> list[int]:
        # A user's text that spells a special token stays text.
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode(self, tokens: Seq[int]) -> str:
        return str(
            self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A frozen model on its device, its tokenizer, the longest sequence it takes, and a hash of its weights' names."""

    model: PreTrainedModel
    tokenizer: HubTokenizer
    context_length: int
    digest: str


def load(name: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """Load a folder or a hub id. Only safetensors are read and no code of the model's own is run.

    Raises:
        UserError: there is no such model, or it is not a causal language model that transformers knows.
    """
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, use_safetensors=True, trust_remote_code=False, attn_implementation=_attention(config)
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        what = "a folder with config.json, tokenizer.json and *.safetensors" if Path(name).exists() else "a hub id"
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"--model {name}: cannot be loaded as a causal language model ({reason}); give {what}") from error
    model.requires_grad_(False).eval().to(device)
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    eos = frozenset(int(e) for e in [*ends, tokenizer.eos_token_id] if e is not None)
    length = int(getattr(config.get_text_config(), "max_position_embeddings", 0) or tokenizer.model_max_length)
    return Loaded(model, HubTokenizer(tokenizer, eos), length, weights_digest(model))


def _attention(config: object) -> str:
    """Soft-capped attention scores exist only in eager attention; everything else takes sdpa."""
    return "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"


def weights_digest(model: nn.Module) -> str:
    """A hash that differs for different weights: shapes, and of every tensor its first and last 4096 values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.flatten()
        ends = torch.cat([flat[:4096], flat[-4096:]]).float().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + ends.numpy().tobytes())
    return digest.hexdigest()


def choose_layout(model: PreTrainedModel, length: int) -> tuple[Layout, str | None]:
    """Compare packed with padded log-probabilities on this model, on rows of `length` tokens, and choose.

    Two sequences that share half their tokens are laid out both ways. Where a model looks at where tokens stand in a
    row (sliding windows, linear attention), the two differ, and it runs padded.

    Returns:
        The layout, and a sentence for the reader where it is the slow one.
    """
    config = model.config.get_text_config()
    body = sum(p.numel() for n, p in model.base_model.named_parameters() if p.dim() == 2 and "embed" not in n)
    attention_cost = 4.0 * config.num_hidden_layers * config.hidden_size / max(body, 1)
    half = max(2, length // 3)
    draw = randomness.stream("layout").integers(0, config.vocab_size, size=(3, half)).tolist()
    weights = (0.0, *[1.0] * (2 * half - 1))
    pair = [Sequence((*draw[0], *draw[1]), weights), Sequence((*draw[0], *draw[2]), weights)]

    def sums(packed: bool, own_head: bool) -> torch.Tensor:
        with torch.inference_mode():
            return logprob_sums(model, Layout(packed, own_head, 0.0), [pair])[0][0]

    allowed = TOLERANCE[model.dtype] * len(weights)
    reference = sums(packed=False, own_head=True)
    own_head = bool((sums(packed=False, own_head=False) - reference).abs().max() > allowed)
    try:
        packs = bool((sums(packed=True, own_head=own_head) - reference).abs().max() <= allowed)
    except (ValueError, RuntimeError, TypeError):  # some models refuse a ready-made mask outright
        packs = False
    note = None
    if not packs:
        note = f"packing is not valid for this model at {2 * half} tokens (packed and padded differ): it runs padded"
    return Layout(packs, own_head, attention_cost), note
