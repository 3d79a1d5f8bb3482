"""What an engine raises when it cannot work with what it was given."""

from cai_base.errors import UserError


class EngineError(UserError):
    """An engine cannot use one of its arguments.

    The engine knows its own arguments and no flag, so the message names the argument. A caller that knows what the user
    wrote says it with that name: see `said_of`.

    Args:
        argument: name of the argument that is wrong, such as `model`, `tokenizer`, `adapter`, `rank` or `url`.
        value: what was given; None if nothing was.
        reason: what is wrong with it.
        remedy: what would be right.
    """

    def __init__(self, argument: str, value: object, reason: str, remedy: str) -> None:
        self.argument, self.value, self.reason, self.remedy = argument, value, reason, remedy
        super().__init__(self.said_of(argument))

    def said_of(self, name: str, remedy: str | None = None) -> str:
        """The message, with `name` (a flag, a field of a file) in place of the argument and perhaps another remedy."""
        subject = " ".join(str(part) for part in (name, self.value) if part not in ("", None))
        return f"{subject}: {self.reason}; {remedy or self.remedy}"
