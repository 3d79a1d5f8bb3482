"""The layout of texts: a dialogue with headings for a base model, its own template for a chat model.

A base model continues text. A question therefore comes after a few answered ones (few-shot prompting), and critique and
revision continue the same text under their headings (Bai et al. 2022, section 3.1 and appendix A). A prompt, its
response and the end of the response are tokenised as one text, so that a model is trained and compared on the tokens
that it reads and samples. A chat model is prompted in the chat template stored with its tokenizer, and ends a response
with its own end token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from cai_base import randomness
from cai_base.inputs.constitution import CritiqueExample, Principle
from cai_base.inputs.prompts import Example

if TYPE_CHECKING:  # a layout needs no engine
    from cai_base.engines import Tokenizer

USER, ASSISTANT = "User:", "Assistant:"
CRITIQUE_REQUEST, CRITIQUE = "Critique Request:", "Critique:"
REVISION_REQUEST, REVISION = "Revision Request:", "Revision:"
HEADINGS = (USER, ASSISTANT, CRITIQUE_REQUEST, CRITIQUE, REVISION_REQUEST, REVISION)

STOPS = tuple(f"\n{heading}" for heading in HEADINGS)
"""A response ends where the next turn or heading begins."""

END = f"\n\n{USER}"
"""The text that ends a response and is trained with it: a base model continues an answer with the next turn."""

Turns = Sequence[tuple[str, str]]
"""Earlier turns of a conversation: prompts with their replies."""

Split = tuple[tuple[int, ...], tuple[int, ...]]
"""The tokens of a prompt, and those of its continuation."""

LayoutName = Literal["auto", "chat", "dialogue"]
LAYOUTS: tuple[LayoutName, ...] = ("auto", "chat", "dialogue")
"""The layouts for a model outside a run; `auto` is its chat template if it has one, else the dialogue."""


def escape(text: str) -> str:
    """`text` with no line that begins like a heading, so that a text of a model or a file cannot imitate a turn.

    A heading at the start of a line is indented by one space, which readers hardly notice.
    """
    lines = text.strip().split("\n")
    return "\n".join(f" {line}" if i and line.startswith(HEADINGS) else line for i, line in enumerate(lines))


def join(*parts: tuple[str, str]) -> str:
    """Headings with their texts, as paragraphs. If the last text is empty, the model continues after its heading."""
    return "\n\n".join(f"{heading} {escape(text)}".rstrip() for heading, text in parts)


def constitution_text(principles: Sequence[Principle]) -> str:
    """The principles as a text before a conversation: the revision request of each."""
    lines = (f"- {' '.join(escape(one.revision_request).split())}" for one in principles)
    return "\n".join(("The assistant follows these principles in every answer:", *lines))


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The texts that a base model continues, under the headings of Bai et al. 2022, section 3.1 and appendix A.

    A response ends where the next heading begins, so that `\\n\\nUser:` is trained as its end.

    Attributes:
        few_shot: questions with answers that come before every question.
        critique_examples: worked critiques and revisions that come before every critique or revision request.
        principles: stated before the few-shot turns of every question.
        draws: how many of them, drawn for each question by its text; 0 for all.
    """

    few_shot: tuple[Example, ...]
    critique_examples: tuple[CritiqueExample, ...]
    principles: tuple[Principle, ...] = ()
    draws: int = 0

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end a response."""
        return STOPS

    def question_tokens(self, tokenizer: "Tokenizer", prompt: str, before: Turns = ()) -> tuple[int, ...]:
        """The tokens of `question`, to be continued by the answer."""
        return prompt_tokens(tokenizer, self.question(prompt, before))

    def answer_tokens(
        self, tokenizer: "Tokenizer", prompt: str, response: str, before: Turns = (), end: str = ""
    ) -> Split:
        """The tokens of a question, and of its answer followed by `end`: nothing, or the next turn's `\\n\\nUser:`.

        Question and answer are tokenised as one text, which is then split.
        """
        return split_tokens(tokenizer, self.question(prompt, before), f" {escape(response)}{end}")

    def question(self, prompt: str, before: Turns = ()) -> str:
        """The few-shot turns, the earlier turns and the question, to be continued by the answer.

        Args:
            prompt: the question.
            before: earlier turns of the conversation: prompts with their replies.
        """
        turns = (*((shot.prompt, shot.response) for shot in self.few_shot), *before)
        parts = [part for question, answer in turns for part in ((USER, question), (ASSISTANT, answer))]
        return self.preamble(prompt) + join(*parts, (USER, prompt), (ASSISTANT, ""))

    def preamble(self, prompt: str) -> str:
        """The text before the few-shot turns of this question; empty if there are no principles."""
        principles = self.principles
        if self.draws:
            order = randomness.stream("principles before a question", prompt).permutation(len(principles))
            principles = tuple(principles[place] for place in sorted(order[: self.draws]))
        return f"{constitution_text(principles)}\n\n" if principles else ""

    def critique(self, prompt: str, response: str, principle: Principle) -> str:
        """The question, its answer and the request for a critique, to be continued by the critique."""
        return self._examples() + join(
            (USER, prompt), (ASSISTANT, response), (CRITIQUE_REQUEST, principle.critique_request), (CRITIQUE, "")
        )

    def revision(self, prompt: str, response: str, principle: Principle, critique: str) -> str:
        """Question, answer, critique and revision request, to be continued by the revision."""
        return self._examples() + join(
            (USER, prompt),
            (ASSISTANT, response),
            (CRITIQUE_REQUEST, principle.critique_request),
            (CRITIQUE, critique),
            (REVISION_REQUEST, principle.revision_request),
            (REVISION, ""),
        )

    def _examples(self) -> str:
        # An example's prompt is not escaped, because it may contain earlier turns with their headings.
        examples = (
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
        return "".join(f"{text}\n\n" for text in examples)


OPTIONS = ("A", "B")
"""The letters of the two compared responses."""
_QUESTION, _REASONING, _VERDICT = "Question:", "Reasoning:", "The better answer is"
_COMPARISON_HEADINGS = (_QUESTION, _REASONING, _VERDICT, *(f"({letter})" for letter in OPTIONS), *HEADINGS)
COMPARISON_STOPS = (f"\n{_QUESTION}", f"\n{_VERDICT}", f"\n({OPTIONS[0]})")
"""The reasoning ends where its verdict or the next question begins."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A prompt and two responses, in the order shown."""

    prompt: str
    responses: tuple[str, str]


def comparison(request: str, solved: Sequence[tuple[Compared, int]], pair: Compared) -> str:
    """A few-shot prompt of solved comparisons and an unsolved one, to be continued by ` (A)` or ` (B)`, see `option`.

    In Bai et al. 2022, section 4.1, the request comes before the options; here it comes after them, as the question
    that the letter answers.

    Args:
        request: the question about the responses, also used for the solved comparisons.
        solved: solved comparisons, each with the index of its better response.
        pair: the comparison to solve.
    """
    shots = [f"{_compared(request, one)}\n{_VERDICT}{option(place)}." for one, place in solved]
    return "\n\n".join((*shots, f"{_compared(request, pair)}\n{_VERDICT}"))


def reasoning(request: str, pair: Compared) -> str:
    """A comparison to be continued by the reasoning for each response."""
    return f"{_compared(request, pair)}\n{_REASONING}"


def reasoned(request: str, pair: Compared, thoughts: str) -> str:
    """A comparison with its reasoning, to be continued by ` (A)` or ` (B)`."""
    return f"{reasoning(request, pair)} {_one_text(thoughts)}\n{_VERDICT}"


def option(place: int) -> str:
    """The continuation of a comparison that chooses the response with this index, 0 or 1."""
    return f" ({OPTIONS[place]})"


def _compared(request: str, pair: Compared) -> str:
    options = "\n".join(
        f"({letter}) {_one_text(response)}" for letter, response in zip(OPTIONS, pair.responses, strict=True)
    )
    return f"{_QUESTION} {_one_text(pair.prompt)}\n{options}\n{' '.join(request.split())}"


def _one_text(text: str) -> str:
    """`text` with no line that begins like a heading of a comparison."""
    lines = text.strip().split("\n")
    return "\n".join(
        f" {line}" if i and line.startswith(_COMPARISON_HEADINGS) else line for i, line in enumerate(lines)
    )


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat model's own layout: no few-shot turns, and only its end token ends a response."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end a response: none."""
        return ()

    def question_tokens(self, tokenizer: "Tokenizer", prompt: str, before: Turns = ()) -> tuple[int, ...]:
        """The tokens of the earlier turns and the question in the model's chat template, before its reply."""
        return chat_tokens(tokenizer, before, prompt)

    def answer_tokens(self, tokenizer: "Tokenizer", prompt: str, response: str, before: Turns = ()) -> Split:
        """The tokens of a question and of its answer, without its end."""
        question, answer = tokenizer.chat_answer(_messages(before, prompt), response)
        return tuple(question), tuple(answer)


Layout = Dialogue | Chat
"""How a question is presented to a model."""


def chat_tokens(tokenizer: "Tokenizer", before: Turns, prompt: str) -> tuple[int, ...]:
    """The tokens of earlier turns (prompt, reply) and a question in the model's chat template, before the answer."""
    return tuple(tokenizer.chat(_messages(before, prompt)))


def _messages(before: Turns, prompt: str) -> list[dict[str, str]]:
    messages = [message for turn in before for message in zip(("user", "assistant"), turn, strict=True)]
    return [{"role": role, "content": text} for role, text in (*messages, ("user", prompt))]


def prompt_tokens(tokenizer: "Tokenizer", text: str) -> tuple[int, ...]:
    """The tokens of a text to continue, after the tokens with which the model expects a text to begin."""
    return (*tokenizer.bos, *tokenizer.encode(text))


def split_tokens(tokenizer: "Tokenizer", prompt: str, continuation: str) -> Split:
    """The tokens of a prompt and of its continuation, tokenised as one text.

    Tokenised separately, they may differ from the tokens that the model reads and samples: the tokenizers of Llama 3
    and Qwen have one token for a full stop with the line breaks after it, and Llama 2's puts a space before every text.
    So the whole text is tokenised, and split after the longest prefix that it shares with the tokens of the prompt
    alone. The rest is what a model has to write after the prompt.
    """
    alone, whole = prompt_tokens(tokenizer, prompt), prompt_tokens(tokenizer, prompt + continuation)
    shared = sum(1 for _ in takewhile(lambda token: token[0] == token[1], zip(alone, whole, strict=False)))
    return whole[:shared], whole[shared:]
