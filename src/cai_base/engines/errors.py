"""The error that an engine raises if an argument cannot be used."""

from typing import TypeVar

from cai_base.errors import UserError

State = TypeVar("State")


class EngineError(UserError):
    """An engine cannot use one of its arguments.

    An engine knows no flags, so its message names the argument. A caller that knows which flag or field the value came
    from uses `message_for` to name that instead.

    Args:
        argument: name of the argument that is wrong, such as `model`, `tokenizer`, `adapter`, `rank` or `url`.
        value: the value that was given; None if none was.
        reason: what is wrong with it.
        remedy: what would be right.
    """

    def __init__(self, argument: str, value: object, reason: str, remedy: str) -> None:
        self.argument, self.value, self.reason, self.remedy = argument, value, reason, remedy
        super().__init__(self.message_for(argument))

    def message_for(self, name: str, remedy: str | None = None) -> str:
        """The message with `name` (a flag, or a field of a file) in place of the argument, and optionally a remedy."""
        subject = " ".join(str(part) for part in (name, self.value) if part not in ("", None))
        return f"{subject}: {self.reason}; {remedy or self.remedy}"


class NoChatTemplateError(EngineError):
    """A tokenizer has no chat template. (One that has a template which cannot be used raises an `EngineError`.)"""


class Adapters(dict[str, State]):
    """An engine's adapters by name. An unknown name is an `EngineError`."""

    def __missing__(self, name: object) -> State:
        known = f"its adapters are {', '.join(map(str, self))}" if self else "it has none"
        raise EngineError("adapter", name, f"is not in the engine; {known}", "make it with create, copy or load")

    def __delitem__(self, name: str) -> None:
        self[name]  # an unknown one raises
        super().__delitem__(name)
