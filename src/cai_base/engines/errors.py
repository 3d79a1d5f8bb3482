"""The error that an engine raises if an argument cannot be used."""

from cai_base.errors import UserError


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
