"""An arm of a finished run as a model of Inspect: `--model cai_base/RUN:ARM`, or `cai_base/RUN:ARM:SEED`."""

import asyncio
import secrets
from functools import cache
from pathlib import Path
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
)

from cai_base.errors import UserError
from cai_base.integrations.desk import TOGETHER, Desk
from cai_base.integrations.server.forms import ChatMessage as PlainMessage
from cai_base.integrations.server.forms import WrongRequest, turns_of
from cai_base.integrations.server.models import Models, run_models
from cai_base.progress import Progress
from cai_base.run.talk import Sampling, request


@cache
def _load(run: Path, arm: str) -> tuple[Models, Desk]:
    """The models and the desk of a run's arm; all users of the arm share one engine and one thread."""
    return run_models(run, [arm], None, Progress()), Desk(places=4096)


class CaiBaseModel(ModelAPI):  # type: ignore[misc]  # Inspect may not be installed where types are checked
    """An arm of a finished run, in its own layout; see `run.talk`.

    Raises:
        UserError: the name is not `RUN:ARM`, the run is not finished, or it has no such arm.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  # as Inspect calls it
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        run, _, arm = model_name.partition(":")
        if not run or not arm:
            raise UserError(f"cai_base/{model_name}: give a run and an arm, such as cai_base/runs/llama:cai")
        self._models, self._desk = _load(Path(run), arm.partition(":")[0])
        try:
            self._speaker = self._models.named(arm)
        except WrongRequest as error:
            raise UserError(f"cai_base/{model_name}: {error}") from None

    def max_connections(self) -> int:
        """The number of concurrent requests from Inspect: the size of a batch."""
        return TOGETHER

    def connection_key(self) -> str:
        """All arms of a run share its engine."""
        return str(self.model_name)

    async def generate(
        self, input: list[ChatMessage], tools: Any, tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        """The arm's answer.

        Raises:
            UserError: there are tools, or the conversation does not fit the model's context.
        """
        if tools:
            raise UserError("a base-derived arm cannot call tools; use a task without tools")
        try:
            messages = [PlainMessage(role=one.role, content=one.text) for one in input]
            before, question = turns_of(messages)
        except (ValueError, WrongRequest) as error:
            raise UserError(f"cai_base/{self.model_name}: {error}") from None
        drawn_as = self._models.sampling
        temperature = drawn_as.temperature if config.temperature is None else config.temperature
        seed = secrets.randbits(60) if config.seed is None else config.seed
        sampling = Sampling(temperature, config.max_tokens or drawn_as.max_tokens, seed)
        question_request = request(self._speaker, question, before, sampling)
        stops = (*question_request.stop, *(config.stop_seqs or ()))
        question_request = type(question_request)(
            question_request.adapter,
            question_request.prompt,
            question_request.max_tokens,
            question_request.temperature,
            stops,
            question_request.seed,
        )
        sample = await asyncio.wrap_future(self._desk.draw(self._speaker.engine, question_request))
        answer = ChatMessageAssistant(content=sample.text.strip(), model=self.model_name, source="generate")
        reason = "stop" if sample.stop_reason == "stop" else "max_tokens"
        usage = ModelUsage(
            input_tokens=len(question_request.prompt),
            output_tokens=len(sample.tokens),
            total_tokens=len(question_request.prompt) + len(sample.tokens),
        )
        choice = ChatCompletionChoice(message=answer, stop_reason=reason)
        return ModelOutput(model=self.model_name, choices=[choice], usage=usage)
