"""Questions to a chat model on an engine, each in the model's own chat template."""

from collections.abc import Callable, Sequence

from cai_base import randomness
from cai_base.engines import Engine, Meter, SampleRequest
from cai_base.evaluation.judges.replies import Keep, Question, Reply

TOGETHER = 64
"""The number of questions that are asked together, and thus the most that are asked again after a crash."""
TOO_LONG = "the question is longer than the judge's context"


class ChatSource:
    """A chat model on an engine of its own.

    Args:
        load: makes the engine. It is called with the first question, so a run that has all its replies loads no judge.
        temperature: of sampling. Each question's draw has its own seed, so equal questions get equal replies.
        max_tokens: longest reply; shorter where the context leaves less room.
    """

    def __init__(self, load: Callable[[], Engine], temperature: float, max_tokens: int) -> None:
        self._load, self._temperature, self._max_tokens = load, temperature, max_tokens
        self._engine: Engine | None = None
        self.meter = Meter()

    def ask(self, questions: Sequence[Question], keep: Keep) -> None:
        engine = self._engine = self._engine or self._load()
        engine.meter = self.meter
        for start in range(0, len(questions), TOGETHER):
            fitting: list[Question] = []
            requests: list[SampleRequest] = []
            for question in questions[start : start + TOGETHER]:
                tokens = tuple(engine.tokenizer.chat(question.messages))
                room = min(self._max_tokens, engine.context_length - len(tokens))
                if room < 1:
                    keep(question, Reply("", TOO_LONG))
                    continue
                seed = randomness.seed("judge", question.key)
                fitting.append(question)
                requests.append(SampleRequest(None, tokens, room, self._temperature, (), seed))
            for question, sample in zip(fitting, engine.sample(requests), strict=True):
                keep(question, Reply(sample.text))
