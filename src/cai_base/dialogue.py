"""How text is laid out: for a base model turns, critiques and what ends a response; for a chat model its own template.

A base model continues text, so a question stands behind a few answered ones (few-shot prompting), and critique and
revision continue the same text under headings (Bai et al. 2022, section 3.1 and appendix A). Prompt and response are
tokenised apart, in training as in sampling, so that a response is the same tokens wherever it stands. A chat model is
asked in the chat template that was stored with its tokenizer, and ends a response by its own end token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cai_base.inputs.constitution import CritiqueExample, Principle
from cai_base.inputs.prompts import Example

USER, ASSISTANT = "User:", "Assistant:"
CRITIQUE_REQUEST, CRITIQUE = "Critique Request:", "Critique:"
REVISION_REQUEST, REVISION = "Revision Request:", "Revision:"
HEADINGS = (USER, ASSISTANT, CRITIQUE_REQUEST, CRITIQUE, REVISION_REQUEST, REVISION)

STOPS = tuple(f"\n{heading}" for heading in HEADINGS)
"""A response is over where the next turn or heading begins."""

END = f"\n\n{USER}"
"""The end of a response, as text: what a base model writes after an answer is the next turn. It is trained."""

Turns = Sequence[tuple[str, str]]
"""Earlier turns of a conversation: prompts with their replies."""

LayoutName = Literal["auto", "chat", "dialogue"]
LAYOUTS: tuple[LayoutName, ...] = ("auto", "chat", "dialogue")
"""The layouts of a model that is not a run's arm; `auto` is its chat template if it has one, else the dialogue."""


def escape(text: str) -> str:
    """`text` with no line that begins like a heading, so that nothing written by a model or a file can pass for a turn.

    A heading at the start of a line is moved off it by one space, which a reader does not notice and a parser does.
    """
    lines = text.strip().split("\n")
    return "\n".join(f" {line}" if i and line.startswith(HEADINGS) else line for i, line in enumerate(lines))


def join(*parts: tuple[str, str]) -> str:
    """Headings with their texts, as paragraphs. An empty last text leaves its heading open for the model."""
    return "\n\n".join(f"{heading} {escape(text)}".rstrip() for heading, text in parts)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The texts that a base model continues.

    Attributes:
        few_shot: answered questions before every question.
        critique_examples: worked critiques and revisions before every request for one.
    """

    few_shot: tuple[Example, ...]
    critique_examples: tuple[CritiqueExample, ...]

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end a response."""
        return STOPS

    def asked(self, tokenizer: "Encoder", prompt: str, before: Turns = ()) -> tuple[int, ...]:
        """The tokens of the few-shot turns, the turns before and the question, open for its answer."""
        return prompt_tokens(tokenizer, self.question(prompt, before))

    def answered(self, tokenizer: "Encoder", response: str) -> tuple[int, ...]:
        """The tokens of an answer as they follow, its end not included."""
        return tuple(tokenizer.encode(f" {escape(response)}"))

    def question(self, prompt: str, before: Turns = ()) -> str:
        """The few-shot turns, then the question, open for its answer."""
        turns = (*((shot.prompt, shot.response) for shot in self.few_shot), *before)
        said = [part for asked, answer in turns for part in ((USER, asked), (ASSISTANT, answer))]
        return join(*said, (USER, prompt), (ASSISTANT, ""))

    def critique(self, prompt: str, response: str, principle: Principle) -> str:
        """The question, its answer and the request for a critique, open for the critique."""
        return self._examples() + join(
            (USER, prompt), (ASSISTANT, response), (CRITIQUE_REQUEST, principle.critique_request), (CRITIQUE, "")
        )

    def revision(self, prompt: str, response: str, principle: Principle, critique: str) -> str:
        """The same with the critique and the request for a revision, open for the revision."""
        return self._examples() + join(
            (USER, prompt),
            (ASSISTANT, response),
            (CRITIQUE_REQUEST, principle.critique_request),
            (CRITIQUE, critique),
            (REVISION_REQUEST, principle.revision_request),
            (REVISION, ""),
        )

    def _examples(self) -> str:
        # An example's prompt may hold earlier turns of its conversation: it is shown as it is.
        shown = (
            f"{USER} {example.prompt}\n\n"
            + join(
                (ASSISTANT, example.response),
                (CRITIQUE_REQUEST, example.critique_request),
                (CRITIQUE, example.critique),
                (REVISION_REQUEST, example.revision_request),
                (REVISION, example.revision),
            )
            for example in self.critique_examples
        )
        return "".join(f"{text}\n\n" for text in shown)


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat model's own layout: nothing stands before a question, and nothing but its end token ends a response."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end a response: none."""
        return ()

    def asked(self, tokenizer: "Encoder", prompt: str, before: Turns = ()) -> tuple[int, ...]:
        """The tokens of the turns before and the question in the model's chat template, open for its answer."""
        return chat_tokens(tokenizer, before, prompt)

    def answered(self, tokenizer: "Encoder", response: str) -> tuple[int, ...]:
        """The tokens of an answer as they follow, its end not included."""
        return tuple(tokenizer.encode(response))


class Encoder(Protocol):
    """The part of a tokenizer that layout needs."""

    bos: int | None

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`, no special token added."""
        ...

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation in the model's chat template, open for the assistant's reply."""
        ...


class Layout(Protocol):
    """How a question is put to a model."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end a response."""
        ...

    def asked(self, tokenizer: Encoder, prompt: str, before: Turns = ()) -> tuple[int, ...]:
        """The tokens to continue: a question, after the turns of its conversation before it."""
        ...

    def answered(self, tokenizer: Encoder, response: str) -> tuple[int, ...]:
        """The tokens of a response as they follow these, its end not included."""
        ...


def chat_tokens(tokenizer: Encoder, before: Turns, prompt: str) -> tuple[int, ...]:
    """The tokens of earlier turns (prompt, reply) and a question in the model's chat template, open for its answer."""
    said = [message for turn in before for message in zip(("user", "assistant"), turn, strict=True)]
    messages = [{"role": role, "content": text} for role, text in (*said, ("user", prompt))]
    return tuple(tokenizer.chat(messages))


def prompt_tokens(tokenizer: Encoder, text: str) -> tuple[int, ...]:
    """The tokens to continue: the model's beginning-of-text, if it has one, and `text`."""
    return (*([] if tokenizer.bos is None else [tokenizer.bos]), *tokenizer.encode(text))


def response_tokens(tokenizer: Encoder, response: str) -> tuple[int, ...]:
    """The tokens of a response and its end, as they follow an open heading."""
    return (*tokenizer.encode(f" {escape(response)}"), *tokenizer.encode(END))
