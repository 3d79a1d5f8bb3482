"""A Hugging Face tokenizer behind the `Tokenizer` protocol: text to tokens and back, and chat templates."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cai_base.engines import EngineError, Message

TEMPLATE_DAY = datetime(2024, 7, 26)
"""The time that every chat template is told: the day that Llama 3's templates name where they cannot ask a clock. It is
fixed so that a run that is resumed, or repeated, asks the same."""
NO_THINKING: dict[str, Any] = {"enable_thinking": False, "thinking": False}
"""The switches by which chat templates take the model's thinking before its answer; a template without one ignores
them."""
CHAT_REMEDY = "give an instruct model that stores its chat template with its tokenizer"
VOCABULARY_REMEDY = "give the model that the tokenizer was made for, with embeddings for all of its tokens"


class HubTokenizer:
    """A Hugging Face tokenizer behind the engines' `Tokenizer` protocol.

    Args:
        tokenizer: as transformers loads it.
        eos: the tokens that end a text of the model that it belongs to; the tokenizer's own end token by default.
        vocabulary: how many tokens the model has embeddings for; None if that is not known.
        thinking: False switches a chat model's thinking off, where its template has a switch; True leaves it to the
            template.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        eos: frozenset[int] | None = None,
        *,
        vocabulary: int | None = None,
        thinking: bool = True,
    ) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._switches = {} if thinking else NO_THINKING
        end = tokenizer.eos_token_id
        own = frozenset() if end is None else frozenset([int(end)])
        self.eos: frozenset[int] = own if eos is None else eos
        # Llama's tokenizer puts its first token before every text, Qwen's does not: ask it, do not guess.
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        self.bos: int | None = full[0] if full[1 : 1 + len(bare)] == bare else None
        self.unused_bos: int | None = tokenizer.bos_token_id if self.bos is None else None
        """The first token that the tokenizer has and puts before no text. A mirror of a model may have lost that."""
        self._specials = [added.content for added in tokenizer.added_tokens_decoder.values() if added.special]

    def encode(self, text: str) -> list[int]:
        # A user's text that spells a special token stays text.
        return self._embedded(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def decode_special(self, token: int) -> str:
        """How the tokenizer writes one token, special or not."""
        return str(self._tokenizer.convert_ids_to_tokens(token))

    def chat(self, messages: Sequence[Message]) -> list[int]:
        template = self._template()
        escaped = [{**message, "content": self._escape(message["content"])} for message in messages]
        try:
            tokens = self._tokenizer.apply_chat_template(
                escaped,
                chat_template=template,
                add_generation_prompt=True,
                return_dict=False,
                date_string=f"{TEMPLATE_DAY:%d %b %Y}",
                **self._switches,
            )
        except Exception as error:  # a template is a program: it may divide by zero, call itself without end, ...
            reason = f"its chat template takes no plain question ({one_line(error) or type(error).__name__})"
            raise self._no_chat(reason) from error
        return self._embedded(cast(list[int], tokens))

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

    def _template(self) -> str:
        """The chat template, which asks no clock; raises EngineError if there is none for plain questions."""
        templates = self._tokenizer.chat_template
        if not templates:
            raise self._no_chat("its tokenizer has no chat template")
        if isinstance(templates, dict) and "default" not in templates:
            names = ", ".join(sorted(templates))
            raise self._no_chat(f"its tokenizer has chat templates for special uses alone ({names}), and no default")
        template = str(templates["default"] if isinstance(templates, dict) else templates)
        # A macro hides transformers' function of that name, which asks the clock. transformers strips the line break.
        return f"{_STRFTIME}\n{template}" if "strftime_now" in template else template

    def _embedded(self, tokens: list[int]) -> list[int]:
        """The tokens, all of which the model has embeddings for.

        Raises:
            EngineError: it has none for one of them.
        """
        largest = max(tokens, default=0)
        if self._vocabulary is not None and largest >= self._vocabulary:
            word = self.decode_special(largest)
            reason = f"its token {largest} ({word!r}) is beyond the {self._vocabulary} tokens that the model knows"
            raise EngineError("tokenizer", self._tokenizer.name_or_path, reason, VOCABULARY_REMEDY)
        return tokens

    def _escape(self, text: str) -> str:
        """The text with every special token that it spells split by a space, so that it stays text."""
        for special in self._specials:
            text = text.replace(special, f"{special[:1]} {special[1:]}")
        return text

    def _no_chat(self, reason: str) -> EngineError:
        return EngineError("tokenizer", self._tokenizer.name_or_path, reason, CHAT_REMEDY)


def _strftime_macro() -> str:
    """A Jinja macro `strftime_now(format)` for `TEMPLATE_DAY`."""
    letters = "aAbBcdDeFgGHIjklmMnpPrRStTuUVwWxXyYzZ"
    codes = [f"%{flag}{letter}" for flag in ("-", "") for letter in letters]
    filters = "".join(f" | replace({code!r}, {TEMPLATE_DAY.strftime(code)!r})" for code in codes)
    return f"{{%- macro strftime_now(format) -%}}{{{{- format{filters} | replace('%%', '%') -}}}}{{%- endmacro %}}"


_STRFTIME = _strftime_macro()


def load_tokenizer(name: str, *, thinking: bool = True) -> HubTokenizer:
    """The tokenizer of a folder or a hub id; no weights are loaded.

    Args:
        name: the folder or hub id.
        thinking: see `HubTokenizer`.

    Raises:
        EngineError: there is none.
    """
    try:
        return HubTokenizer(AutoTokenizer.from_pretrained(name, trust_remote_code=False), thinking=thinking)
    except Exception as error:  # transformers raises nearly everything for what is wrong in a folder
        reason = f"its tokenizer cannot be loaded ({one_line(error)})"
        raise EngineError("tokenizer", name, reason, "give a folder with tokenizer.json") from error


def one_line(error: object) -> str:
    """The first 300 characters of another library's message, without line breaks."""
    return " ".join(str(error).split())[:300]
