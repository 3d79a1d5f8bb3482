"""A Hugging Face tokenizer behind the `Tokenizer` protocol: text to tokens and back, and chat templates."""

from collections.abc import Sequence
from typing import cast

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cai_base.engines import EngineError, Message

TEMPLATE_DATE = "26 Jul 2024"
"""The day that Llama 3's templates name where they cannot ask a clock."""
CHAT_REMEDY = "give an instruct model that stores its chat template with its tokenizer"


class HubTokenizer:
    """A Hugging Face tokenizer behind the engines' `Tokenizer` protocol.

    Args:
        tokenizer: as transformers loads it.
        eos: the tokens that end a text of the model that it belongs to; the tokenizer's own end token by default.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, eos: frozenset[int] | None = None) -> None:
        self._tokenizer = tokenizer
        end = tokenizer.eos_token_id
        own = frozenset() if end is None else frozenset([int(end)])
        self.eos: frozenset[int] = own if eos is None else eos
        # Llama's tokenizer puts its first token before every text, Qwen's does not: ask it, do not guess.
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        self.bos: int | None = full[0] if full[1 : 1 + len(bare)] == bare else None
        self._specials = [added.content for added in tokenizer.added_tokens_decoder.values() if added.special]

    def encode(self, text: str) -> list[int]:
        # A user's text that spells a special token stays text.
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def chat(self, messages: Sequence[Message]) -> list[int]:
        if not self._tokenizer.chat_template:
            raise self._no_chat("its tokenizer has no chat template")
        escaped = [{**message, "content": self._escape(message["content"])} for message in messages]
        try:
            # Some templates name the day; a fixed one, so that a run does not depend on when it was made.
            tokens = self._tokenizer.apply_chat_template(
                escaped, add_generation_prompt=True, return_dict=False, date_string=TEMPLATE_DATE
            )
        except TemplateError as error:
            raise self._no_chat(f"its chat template takes no plain question ({error})") from error
        return cast(list[int], tokens)

    def check_chat(self, messages: Sequence[Message]) -> None:
        """Check that the chat template takes `messages` and shows what each of them says.

        Raises:
            EngineError: there is no chat template, or it does not take these messages, or leaves one out.
        """
        tokens = self.chat(messages)
        for number, message in enumerate(messages):
            changed = [*messages[:number], {**message, "content": f"{message['content']} again"}]
            if self.chat([*changed, *messages[number + 1 :]]) == tokens:
                raise self._no_chat(f"its chat template leaves out what the {message['role']} says")

    def _escape(self, text: str) -> str:
        """The text with every special token that it spells split by a space, so that it stays text."""
        for special in self._specials:
            text = text.replace(special, f"{special[:1]} {special[1:]}")
        return text

    def _no_chat(self, reason: str) -> EngineError:
        return EngineError("tokenizer", self._tokenizer.name_or_path, reason, CHAT_REMEDY)


def load_tokenizer(name: str) -> HubTokenizer:
    """The tokenizer of a folder or a hub id; no weights are loaded.

    Raises:
        EngineError: there is none.
    """
    try:
        return HubTokenizer(AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    except Exception as error:  # transformers raises nearly everything for what is wrong in a folder
        reason = f"its tokenizer cannot be loaded ({one_line(error)})"
        raise EngineError("tokenizer", name, reason, "give a folder with tokenizer.json") from error


def one_line(error: object) -> str:
    """The first 300 characters of another library's message, without line breaks."""
    return " ".join(str(error).split())[:300]
