"""The fields of OpenAI's API that requests may have. Fields that a run's models cannot honour are refused."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

MOST_CHOICES = 16
MOST_PROMPTS = 64
MOST_STOPS = 16


class WrongRequest(Exception):
    """A request that cannot be honoured: the status, the field, and a sentence."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


class _Form(BaseModel):
    """The fields common to both kinds of request."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    model: str
    temperature: Annotated[float | None, Field(ge=0, le=100)] = None
    n: Annotated[int | None, Field(ge=1, le=MOST_CHOICES)] = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    user: str | None = None
    # Accepted only with values that have no effect.
    top_p: Literal[1] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float] | None, Field(max_length=0)] = None

    @field_validator("top_p", "frequency_penalty", "presence_penalty", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return int(value) if isinstance(value, float) and value.is_integer() else value

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

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: Annotated[int | None, Field(ge=0)] = None
    echo: bool | None = None
    logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    best_of: Literal[1] | None = None
    suffix: None = None

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

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """The text of all its parts."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatForm(_Form):
    """A request to `/v1/chat/completions`."""

    messages: list[ChatMessage]
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    tools: Annotated[list[Any] | None, Field(max_length=0)] = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None

    @property
    def longest(self) -> int | None:
        """The most tokens of the answer."""
        return self.max_completion_tokens or self.max_tokens


def read_form(kind: type[CompletionForm] | type[ChatForm], body: bytes) -> Any:
    """Parse a request's body.

    Raises:
        WrongRequest: it is not JSON, or a field is wrong or cannot be honoured.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            reason = "cannot be honoured by a run's models; leave it out"
        raise WrongRequest(f"{field or 'the body'}: {reason}", field) from None


def turns_of(messages: list[ChatMessage]) -> tuple[list[tuple[str, str]], str]:
    """The earlier turns of a conversation, and its last question.

    A base model has no slot for a system message: its text is put before the first question. Consecutive messages of
    one role are joined.

    Raises:
        WrongRequest: the conversation does not begin and end with the user.
    """
    system = "\n\n".join(one.text.strip() for one in messages if one.role in ("system", "developer"))
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
