"""Loading a Hugging Face causal language model, frozen, and finding out how its batches may be laid out."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from cai_base import randomness
from cai_base.engines import Datum, Message
from cai_base.engines.local.forward import Layout, weighted_logprobs
from cai_base.errors import UserError

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15}
"""By how much log-probabilities may differ, packed and padded, before packing counts as invalid."""
COMPARED = 16
"""Tokens at a sequence's end whose mean difference is compared: there, what a model leaves out or adds is largest."""
TEMPLATE_DATE = "26 Jul 2024"
"""The day that Llama 3's templates name where they cannot ask a clock."""


class HubTokenizer:
    """A Hugging Face tokenizer behind the engine's `Tokenizer` protocol."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, eos: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self.eos = eos
        # Llama's tokenizer puts its first token before every text, Qwen's does not: ask it, do not guess.
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        self.bos: int | None = full[0] if full[1 : 1 + len(bare)] == bare else None
        self._specials = [added.content for added in tokenizer.added_tokens_decoder.values() if added.special]

    def encode(self, text: str) -> list[int]:
        # A user's text that spells a special token stays text.
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def chat(self, messages: Sequence[Message]) -> list[int]:
        name = self._tokenizer.name_or_path
        if not self._tokenizer.chat_template:
            raise UserError(f"{name}: its tokenizer has no chat template; {_CHAT_WANTED}")
        kept = [{**message, "content": self._defused(message["content"])} for message in messages]
        try:
            # Some templates name the day; a fixed one, so that a run does not depend on when it was made.
            found = self._tokenizer.apply_chat_template(
                kept, add_generation_prompt=True, return_dict=False, date_string=TEMPLATE_DATE
            )
        except TemplateError as error:
            raise UserError(f"{name}: its chat template takes no plain question ({error}); {_CHAT_WANTED}") from error
        return cast(list[int], found)

    def _defused(self, text: str) -> str:
        """The text with every special token that it spells moved apart by a space, so that it stays text."""
        for special in self._specials:
            text = text.replace(special, f"{special[:1]} {special[1:]}")
        return text

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A frozen model on its device, its tokenizer, the longest sequence it takes, and a hash of its weights."""

    model: PreTrainedModel
    tokenizer: HubTokenizer
    context_length: int
    digest: str


def check_folder(name: str, flag: str) -> None:
    """Raises UserError if `name` is the path of a folder, not a hub id, and no model lies there."""
    folder = Path(name)
    if folder.exists() or name.startswith((".", "/", "~")):
        if not (folder / "config.json").is_file():
            raise UserError(f"{flag} {name}: no model there (no config.json); {_WANTED}")
        if not any(folder.glob("*.safetensors")):
            raise UserError(f"{flag} {name}: no *.safetensors there (pickled weights are not read); {_WANTED}")
    elif not _HUB_ID.fullmatch(name):  # the hub would be asked, and asked again, for half a minute
        raise UserError(f"{flag} {name}: there is no such folder, and a hub id has the form owner/name; {_WANTED}")


def check_chat(name: str, flag: str, messages: Sequence[Message]) -> None:
    """Raises UserError if the tokenizer of a folder or hub id cannot be loaded, or has no chat template for `messages`.

    Reads the tokenizer alone, so it can come long before the model is loaded.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # as for the model
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{flag} {name}: its tokenizer cannot be loaded ({reason}); {_CHAT_WANTED}") from error
    wrapped = HubTokenizer(tokenizer, frozenset())
    try:
        shown = wrapped.chat(messages)
        for number, message in enumerate(messages):
            changed = [*messages[:number], {**message, "content": f"{message['content']} again"}]
            if wrapped.chat([*changed, *messages[number + 1 :]]) == shown:
                left_out = f"its chat template leaves out what the {message['role']} says"
                raise UserError(f"{name}: {left_out}; {_CHAT_WANTED}")
    except UserError as error:
        raise UserError(f"{flag} {error}") from error


def load_tokenizer(name: str) -> HubTokenizer:
    """The tokenizer of a folder or a hub id; no weights are loaded.

    Raises:
        UserError: there is none.
    """
    try:
        return HubTokenizer(AutoTokenizer.from_pretrained(name, trust_remote_code=False), frozenset())
    except Exception as error:  # transformers raises nearly everything for what is wrong in a folder
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"--tokenizer {name}: cannot be loaded ({reason}); give a folder with tokenizer.json"
        ) from error


def load(
    name: str, device: torch.device, dtype: torch.dtype, *, tokenizer_of: str | None = None, flag: str = "--model"
) -> Loaded:
    """Load a folder or a hub id. Only safetensors are read and no code of the model's own is run.

    Args:
        name: the folder or hub id.
        device: where to.
        dtype: of the weights.
        tokenizer_of: folder or hub id whose tokenizer goes with the model, such as an adapter's; `name` by default.
        flag: what named the model, for messages.

    Raises:
        UserError: there is no such model, or it is not a causal language model that transformers knows.
    """
    check_folder(name, flag)
    try:
        model, tokenizer, report = _read(name, tokenizer_of or name, dtype)
    except Exception as error:  # transformers raises nearly everything for what is wrong in a folder
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{flag} {name}: cannot be loaded as a causal language model ({reason}); {_WANTED}") from error
    unloaded = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if unloaded:
        raise UserError(
            f"{flag} {name}: its files lack weights that its config asks for, such as {unloaded[0]}; {_WANTED}"
        )
    if not any(isinstance(module, nn.Linear) for module in model.base_model.modules()):
        raise UserError(f"{flag} {name}: {type(model).__name__} has no linear layers that LoRA can adapt")
    model.requires_grad_(False).eval().to(device)
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    eos = frozenset(int(end) for end in [*ends, tokenizer.eos_token_id] if end is not None)
    length = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or tokenizer.model_max_length)
    return Loaded(model, HubTokenizer(tokenizer, eos), length, weights_digest(model))


def _read(name: str, tokenizer_of: str, dtype: torch.dtype) -> tuple[Any, PreTrainedTokenizerBase, dict[str, Any]]:
    """The model, its tokenizer, and what became of each of its weights."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a run has its own progress
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of, trust_remote_code=False)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        name,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        # Soft-capped attention scores exist only in eager attention; everything else takes sdpa.
        attn_implementation="eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa",
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are reported, and refused by `load`
    )
    return loaded[0], tokenizer, loaded[1]


_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CHAT_WANTED = "give an instruct model that stores its chat template with its tokenizer"
_WANTED = "give a hub id, or a folder with config.json, tokenizer.json and *.safetensors"


def weights_digest(model: nn.Module) -> str:
    """A hash of every weight, by name, type and shape."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().flatten().view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()


def choose_layout(model: PreTrainedModel, length: int, *, pack: bool) -> tuple[Layout, str | None]:
    """Compare packed with padded log-probabilities on this model, on sequences of `length` tokens, and choose.

    Two sequences that share half their tokens are laid out both ways. Where a model looks at where tokens stand in a
    row (sliding windows, linear attention), the two differ, and it runs padded.

    Args:
        model: frozen, without adapters.
        length: of the longest sequence to come.
        pack: False runs padded whatever comes out.

    Returns:
        The layout, and a sentence for the reader where it is the slow one against their will.

    Raises:
        UserError: the model is not causal.
    """
    length = max(4, length)
    config = model.config.get_text_config()
    body = sum(p.numel() for n, p in model.base_model.named_parameters() if p.dim() == 2 and "embed" not in n)
    attention_cost = 2.0 * config.num_hidden_layers * config.hidden_size / max(body, 1)
    drawn = randomness.stream("layout").integers(0, config.vocab_size, size=(2, length))
    half = length // 2
    drawn[1, :half] = drawn[0, :half]
    pair = [Datum(tuple(tokens), (0.0, *[1.0] * (length - 1))) for tokens in drawn.tolist()]
    allowed = TOLERANCE[model.dtype]

    def logprobs(*, packed: bool, own_head: bool) -> Tensor:
        with torch.inference_mode():
            return weighted_logprobs(model, Layout(packed, own_head, 0.0), [pair])[0]

    def differ(one: Tensor, other: Tensor) -> bool:
        return not bool(((one - other)[..., -COMPARED:].abs().mean(dim=-1) <= allowed).all())

    reference = logprobs(packed=False, own_head=True)
    if differ(reference[0, : half - 1], reference[1, : half - 1]):
        raise UserError(
            f"--model {model.name_or_path}: {type(model).__name__} is not causal (a token's probability depends on "
            "what follows it); give a causal language model"
        )
    own_head = differ(logprobs(packed=False, own_head=False), reference)
    if not pack:
        return Layout(False, own_head, attention_cost), None
    try:
        packs = not differ(logprobs(packed=True, own_head=own_head), reference)
    except (ValueError, RuntimeError, TypeError):  # some models refuse a ready-made mask outright
        packs = False
    if packs:
        return Layout(True, own_head, attention_cost), None
    note = f"Packing is not valid for this model at {length} tokens (packed and padded differ): it runs padded"
    return Layout(False, own_head, attention_cost), note
