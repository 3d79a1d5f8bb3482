"""The fields of OpenAI's API that requests may have. Fields that a run's models cannot honour are refused."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

MOST_CHOICES = 16
MOST_PROMPTS = 64
MOST_STOPS = 16
LEAST_TEMPERATURE = 0.01
"""The least temperature above 0: logits divided by a smaller one overflow, and the draws are greedy anyway."""
WHOLE = "this server draws from the model's whole distribution, unchanged"


class WrongRequest(Exception):
    """A request that cannot be honoured: the status, the field, and a sentence."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


class _Form(BaseModel):
    """The fields common to both kinds of request."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    # What a field must be is its description, and the end of the sentence that refuses another value.
    model: str = Field(description="the name of a model, as GET /v1/models lists them")
    temperature: float | None = Field(
        None, ge=0, le=100, description=f"0, which is greedy, or a number from {LEAST_TEMPERATURE:g} to 100"
    )
    n: int | None = Field(None, ge=1, le=MOST_CHOICES, description=f"a whole number from 1 to {MOST_CHOICES}")
    seed: int | None = Field(None, description="a whole number")
    stop: str | list[str] | None = Field(None, description="a text or a list of texts")
    stream: bool | None = Field(None, description="true or false")
    stream_options: dict[str, Any] | None = Field(None, description='an object such as {"include_usage": true}')
    user: str | None = Field(None, description="a text")
    # Accepted only with values that have no effect.
    top_p: Literal[1] | None = Field(None, description=f"1: {WHOLE}")
    frequency_penalty: Literal[0] | None = Field(None, description=f"0: {WHOLE}")
    presence_penalty: Literal[0] | None = Field(None, description=f"0: {WHOLE}")
    logit_bias: dict[str, float] | None = Field(None, max_length=0, description=f"empty: {WHOLE}")

    @field_validator("top_p", "frequency_penalty", "presence_penalty", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return int(value) if isinstance(value, float) and value.is_integer() else value

    @field_validator("temperature")
    @classmethod
    def _no_overflow(cls, value: float | None) -> float | None:
        if value and value < LEAST_TEMPERATURE:
            raise PydanticCustomError("too_cold", "too small")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end the response."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def usage_at_end(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool((self.stream_options or {}).get("include_usage"))

    @model_validator(mode="after")
    def _few_stops(self) -> "_Form":
        if len(self.stops) > MOST_STOPS or not all(self.stops):
            raise ValueError(f"stop: give at most {MOST_STOPS} texts, none of them empty")
        return self


class CompletionForm(_Form):
    """A request to `/v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]] = Field(
        description="a text, a list of texts, a list of tokens, or a list of lists of tokens"
    )
    max_tokens: int | None = Field(None, ge=0, description="a whole number from 0")
    echo: bool | None = Field(None, description="true or false")
    logprobs: int | None = Field(None, ge=0, le=20, description="a whole number from 0 to 20")
    best_of: Literal[1] | None = Field(None, description="1: every answer that is drawn is returned")
    suffix: None = Field(None, description="null: the models only continue a text")

    @property
    def prompts(self) -> list[str | list[int]]:
        """Every prompt, as text or as tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)  # type: ignore[arg-type]

    @model_validator(mode="after")
    def _few_prompts(self) -> "CompletionForm":
        if not 1 <= len(self.prompts) <= MOST_PROMPTS or not all(self.prompts):
            raise ValueError(f"prompt: give 1 to {MOST_PROMPTS} prompts, none of them empty")
        return self


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="system, developer, user or assistant"
    )
    content: str | list[TextPart] = Field(
        description='text, or a list of parts such as {"type": "text", "text": "Hello."}'
    )

    @property
    def text(self) -> str:
        """The text of all its parts."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatForm(_Form):
    """A request to `/v1/chat/completions`."""

    messages: list[ChatMessage] = Field(description='a list of messages such as {"role": "user", "content": "Hello."}')
    max_tokens: int | None = Field(None, ge=1, description="a whole number from 1")
    max_completion_tokens: int | None = Field(None, ge=1, description="a whole number from 1")
    logprobs: bool | None = Field(None, description="true or false")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="a whole number from 0 to 20")
    tools: list[Any] | None = Field(None, max_length=0, description="empty: a run's models call no tools")
    response_format: dict[Literal["type"], Literal["text"]] | None = Field(None, description='{"type": "text"}')

    @property
    def longest(self) -> int | None:
        """The most tokens of the answer."""
        return self.max_completion_tokens or self.max_tokens

    @model_validator(mode="after")
    def _top_with_logprobs(self) -> "ChatForm":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs true; add it, or leave top_logprobs out")
        return self


def read_form(kind: type[CompletionForm] | type[ChatForm], body: bytes) -> Any:
    """Parse a request's body.

    Raises:
        WrongRequest: it is not JSON, or a field is wrong or cannot be honoured.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
    reason, where = first["msg"].removeprefix("Value error, "), first["loc"]
    if first["type"] == "value_error":  # a sentence of a form's own
        raise WrongRequest(reason, reason.partition(":")[0])
    if not where:
        fields = " and ".join(name for name, field in kind.model_fields.items() if field.is_required())
        wrong = f" ({reason})" if first["type"] == "json_invalid" else ""
        raise WrongRequest(f"the body: must be a JSON object with {fields}{wrong}")
    if first["type"] == "extra_forbidden" and len(where) == 1:
        name = str(where[0])[:60]
        raise WrongRequest(f"{name}: cannot be honoured by a run's models; leave it out", name)
    of_message = where[0] == "messages" and len(where) > 2
    name = ".".join(map(str, where[: 3 if of_message else 1]))
    what = (ChatMessage if of_message else kind).model_fields[str(where[2 if of_message else 0])].description
    missing = "is missing; it " if first["type"] == "missing" else ""
    raise WrongRequest(f"{name}: {missing}must be {what}", name)


def turns_of(messages: list[ChatMessage]) -> tuple[list[tuple[str, str]], str]:
    """The earlier turns of a conversation, and its last question.

    A base model has no slot for a system message: the texts of all of them, wherever they stand, are put before the
    first question. Consecutive messages of one role are joined. `export.layout.chat_template` does the same.

    Raises:
        WrongRequest: the conversation does not begin and end with the user.
    """
    instructions = (one.text.strip() for one in messages if one.role in ("system", "developer"))
    system = "\n\n".join(text for text in instructions if text)
    joined: list[tuple[str, str]] = []
    for one in messages:
        if one.role in ("system", "developer"):
            continue
        if joined and joined[-1][0] == one.role:
            joined[-1] = (one.role, f"{joined[-1][1]}\n\n{one.text}")
        else:
            joined.append((one.role, one.text))
    if not joined or joined[0][0] != "user" or joined[-1][0] != "user":
        raise WrongRequest("messages: must begin and end with a user message", "messages")
    if system:
        joined[0] = ("user", f"{system}\n\n{joined[0][1]}")
    texts = [text for _, text in joined]
    return list(zip(texts[:-1:2], texts[1:-1:2], strict=True)), texts[-1]
