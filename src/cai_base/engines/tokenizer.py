"""A Hugging Face tokenizer behind the `Tokenizer` protocol: text to tokens and back, and chat templates."""

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from itertools import takewhile
from typing import Any, cast

from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cai_base.engines import EngineError, Message, tekken
from cai_base.engines.errors import NoChatTemplateError
from cai_base.engines.limits import TimeLimitError, limited
from cai_base.reading import quote

logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # without a network it logs two lines for every retry

TEMPLATE_DAY = datetime(2024, 7, 26)
"""The date given to chat templates that print the current one: a fixed date, so that a resumed or repeated run builds
the same prompts. Llama 3's templates use this day if they are given none."""
NO_THINKING: dict[str, Any] = {"enable_thinking": False, "thinking": False}
"""Template variables that switch off a model's thinking before its answer; a template without such a switch ignores
them."""
_PLAIN = AddedToken("")
"""In the place of a token that was learned, and not added."""
PANIC = "PanicException"
"""What the library of tokenizers raises where it gives up: no `Exception`, and in no module that can be imported."""
TOKENIZER_REMEDY = "give a folder with tokenizer.json"
MOST_WRITTEN, TIMES_WRITTEN = 1 << 16, 4
"""The most characters that a chat template may write beside its messages, and how often it may repeat them."""
CHAT_REMEDY = "give an instruct model that stores its chat template with its tokenizer"
VOCABULARY_REMEDY = "give the model that the tokenizer was made for, with embeddings for all of its tokens"


class HubTokenizer:
    """A Hugging Face tokenizer behind the engines' `Tokenizer` protocol.

    Args:
        tokenizer: as transformers loads it.
        eos: the model's end-of-text tokens; by default the tokenizer's end token.
        vocabulary: the number of tokens that the model has embeddings for; None if it is not known.
        thinking: False switches a chat model's thinking off if its template has such a switch; True leaves the choice
            to the template.

    Attributes:
        notes: what a user should know about its files.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        eos: frozenset[int] | None = None,
        *,
        vocabulary: int | None = None,
        thinking: bool = True,
    ) -> None:
        self.notes = tekken.correct(tokenizer)
        self._tokenizer, self._vocabulary, self._turns = tokenizer, vocabulary, _Turns(tokenizer)
        self._switches = {} if thinking else NO_THINKING
        longest = tokenizer.model_max_length
        if not isinstance(longest, int | float):  # transformers compares it with a length at every call
            reason = f"model_max_length in its tokenizer_config.json is {quote(longest)}"
            raise EngineError("tokenizer", tokenizer.name_or_path, reason, "give a number of tokens, or leave it out")
        end = tokenizer.eos_token_id
        own = frozenset() if end is None else frozenset([int(end)])
        self.eos: frozenset[int] = own if eos is None else eos
        # Llama's tokenizer puts a first token before every text and Qwen's does not, whatever bos_token says: test it.
        bare, full = self._tokens("a", add_special_tokens=False), self._tokens("a")
        # GLM-4's puts two.
        before = next((n for n in range(len(full)) if full[n : n + len(bare)] == bare), 0)
        self.bos: tuple[int, ...] = tuple(full[:before])
        self.unused_bos: int | None = None if self.bos else tokenizer.bos_token_id
        """A first token that the tokenizer defines but does not add. Repackaged models often lost the setting."""
        self._specials = [added.content for added in tokenizer.added_tokens_decoder.values() if added.special]

    @property
    def vocabulary(self) -> int | None:
        """How many tokens the model has embeddings for; None if that is not known."""
        return self._vocabulary

    @cached_property
    def longest(self) -> int:
        """The most characters that one token can stand for."""
        return max(map(len, self._tokenizer.get_vocab()))

    def encode(self, text: str) -> list[int]:
        # Text that spells out a special token is still encoded as text.
        return self._embedded(self._tokens(text, add_special_tokens=False, split_special_tokens=True))

    def decode(self, tokens: Sequence[int]) -> str:
        with self._turns.take():
            text = self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def decode_special(self, token: int) -> str:
        """How the tokenizer writes one token, special or not."""
        return str(self._tokenizer.convert_ids_to_tokens(token))

    def chat(self, messages: Sequence[Message]) -> list[int]:
        return self._chat_tokens(self._conversation(messages))

    def chat_answer(self, messages: Sequence[Message], answer: str) -> tuple[list[int], list[int]]:
        before = self._conversation(messages)
        start, _ = self._around_answer(messages, before)
        alone, whole = self._chat_tokens(before), self._chat_tokens(f"{before}{start}{self._escape(answer)}")
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(alone, whole, strict=False)))
        return whole[:shared], whole[shared:]

    def end_turns(self) -> None:
        question: list[Message] = [{"role": "user", "content": "Hello!"}]
        _, end = self._around_answer(question, self._conversation(question))
        tokens = self._chat_tokens(end.strip())
        if tokens and self._tokenizer.added_tokens_decoder.get(tokens[0], _PLAIN).special:
            self.eos |= {tokens[0]}

    def _around_answer(self, messages: Sequence[Message], before: str) -> tuple[str, str]:
        """What the template writes between `before`, its text of a conversation, and the answer, and after the answer.

        Of the former only spaces and line breaks count: anything else is not what a model has to write.
        """
        answer = "Hello."
        whole = self._conversation([*messages, {"role": "assistant", "content": answer}], reply=False)
        start, _, _ = whole.removeprefix(before).partition(answer)
        return "" if start.strip() else start, whole.rpartition(answer)[2]

    def _conversation(self, messages: Sequence[Message], *, reply: bool = True) -> str:
        """The text that the chat template makes of messages, up to the start of the next reply if `reply`."""
        template = self._template()
        escaped = [{**message, "content": self._escape(message["content"])} for message in messages]
        try:
            with limited():
                text = self._tokenizer.apply_chat_template(
                    escaped,
                    chat_template=template,
                    add_generation_prompt=reply,
                    tokenize=False,
                    date_string=f"{TEMPLATE_DAY:%d %b %Y}",
                    **self._switches,
                )
        except (TimeLimitError, MemoryError) as error:
            reason = f"its chat template does not come to an end ({one_line(error) or 'it takes too much memory'})"
            raise self._no_chat(reason) from error
        except Exception as error:  # a template is a program, so it can fail in any way
            reason = f"its chat template does not accept a plain question ({one_line(error) or type(error).__name__})"
            raise self._no_chat(reason) from error
        most = MOST_WRITTEN + TIMES_WRITTEN * sum(len(message["content"]) for message in escaped)
        if len(text) > most:
            raise self._no_chat(f"its chat template makes a text of {len(text):,} characters of a conversation")
        return cast(str, text)

    def _chat_tokens(self, text: str) -> list[int]:
        """The tokens of a text with special tokens, as transformers makes them of what a template wrote."""
        return self._embedded(self._tokens(text, add_special_tokens=False))

    def check_chat(self, messages: Sequence[Message]) -> None:
        """Check that the chat template accepts `messages` and includes the text of each.

        Raises:
            EngineError: there is no chat template, it does not accept these messages, or it drops one of them.
        """
        tokens = self.chat(messages)
        for number, message in enumerate(messages):
            changed = [*messages[:number], {**message, "content": f"{message['content']} again"}]
            if self.chat([*changed, *messages[number + 1 :]]) == tokens:
                raise self._no_chat(f"its chat template leaves out what the {message['role']} says")

    def _template(self) -> str:
        """The default chat template, with a fixed date; raises EngineError if there is none."""
        templates = self._tokenizer.chat_template
        absent = ""
        if not templates:
            absent = "its tokenizer has no chat template"
        elif isinstance(templates, dict) and "default" not in templates:
            names = ", ".join(sorted(templates))
            absent = f"its tokenizer has chat templates for special uses only ({names}), and no default"
        if absent:
            raise NoChatTemplateError("tokenizer", self._tokenizer.name_or_path, absent, CHAT_REMEDY)
        template = str(templates["default"] if isinstance(templates, dict) else templates)
        if draws := _DRAWS.search(template):
            words = "draws at random, so no two runs would ask the same"
            raise self._no_chat(f"its chat template {words} ({draws.group().strip('| (')})")
        # The macro shadows transformers' function of this name, which returns the current date. The line break after it
        # is stripped by transformers.
        return f"{_STRFTIME}\n{template}" if "strftime_now" in template else template

    def _tokens(self, text: str, **how: bool) -> list[int]:
        """The tokens of a text.

        Raises:
            EngineError: the tokenizer's library gave up, as on a pattern that tries too many ways to match.
        """
        try:
            with self._turns.take(how.get("split_special_tokens", self._turns.usual)):
                return cast(list[int], self._tokenizer(text, **how)["input_ids"])
        except BaseException as error:
            if type(error).__name__ != PANIC:
                raise
            reason = f"its tokenizer cannot divide a text of {len(text):,} characters ({one_line(error)})"
            raise EngineError("tokenizer", self._tokenizer.name_or_path, reason, TOKENIZER_REMEDY) from error

    def _embedded(self, tokens: list[int]) -> list[int]:
        """`tokens`, once it is checked that the model has an embedding for each.

        Raises:
            EngineError: one of them has none.
        """
        largest = max(tokens, default=0)
        if self._vocabulary is not None and largest >= self._vocabulary:
            word = self.decode_special(largest)
            reason = f"its token {largest} ({word!r}) is beyond the {self._vocabulary} tokens with embeddings"
            raise EngineError("tokenizer", self._tokenizer.name_or_path, reason, VOCABULARY_REMEDY)
        return tokens

    def _escape(self, text: str) -> str:
        """`text` with a space inside every special token that it spells out, so that each is encoded as text."""
        for special in self._specials:
            text = text.replace(special, f"{special[:1]} {special[1:]}")
        return text

    def _no_chat(self, reason: str) -> EngineError:
        return EngineError("tokenizer", self._tokenizer.name_or_path, reason, CHAT_REMEDY)


class _Turns:
    """Lets several threads use a tokenizer. Whether special tokens in a text are divided is a state of its library's
    object, which cannot change while another thread uses it: calls that need the other state wait."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._library: Any = getattr(tokenizer, "backend_tokenizer", None)  # None: it is written in Python
        self._changed = threading.Condition()
        self._divides: bool | None = None
        self._users, self.usual = 0, bool(tokenizer.split_special_tokens)

    @contextmanager
    def take(self, divides: bool | None = None) -> Iterator[None]:
        """A context in which the state is `divides`; None if it does not matter."""
        with self._changed:
            if divides is not None and divides != self._divides:
                self._changed.wait_for(lambda: not self._users or divides == self._divides)
                if divides != self._divides and self._library is not None:
                    self._library.encode_special_tokens = divides
                self._divides = divides
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()


def _strftime_macro() -> str:
    """A Jinja macro `strftime_now(format)` for `TEMPLATE_DAY`."""
    letters = "aAbBcdDeFgGHIjklmMnpPrRStTuUVwWxXyYzZ"
    codes = [f"%{flag}{letter}" for flag in ("-", "") for letter in letters]
    filters = "".join(f" | replace({code!r}, {TEMPLATE_DAY.strftime(code)!r})" for code in codes)
    return f"{{%- macro strftime_now(format) -%}}{{{{- format{filters} | replace('%%', '%') -}}}}{{%- endmacro %}}"


_STRFTIME = _strftime_macro()
_DRAWS = re.compile(r"\|\s*random\b|\blipsum\s*\(")
"""What Jinja has that draws at random: a filter and a function."""


def load_tokenizer(name: str, *, thinking: bool = True) -> HubTokenizer:
    """The tokenizer of a folder or a hub id; no weights are loaded.

    Args:
        name: the folder or hub id.
        thinking: see `HubTokenizer`.

    Raises:
        EngineError: it cannot be loaded.
    """
    try:
        return HubTokenizer(AutoTokenizer.from_pretrained(name, trust_remote_code=False), thinking=thinking)
    except EngineError:
        raise
    except Exception as error:  # transformers raises nearly everything for what is wrong in a folder
        reason = unreachable(error) or f"its tokenizer cannot be loaded ({one_line(error)})"
        raise EngineError("tokenizer", name, reason, TOKENIZER_REMEDY) from error


def unreachable(error: object) -> str:
    """The reason why a model of the hub cannot be loaded, if that is the network; empty for another reason."""
    away = "couldn't connect" in str(error) or "offline mode" in str(error)
    return "is not in the cache, and the hub cannot be reached; check the connection" if away else ""


def one_line(error: object) -> str:
    """The first 300 characters of another library's message, without line breaks."""
    return " ".join(str(error).split())[:300]
