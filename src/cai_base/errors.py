"""Expected early exits of a command, and their exit codes."""


class UserError(Exception):
    """The user's input is wrong. The message names the file, line or field, what is wrong, and what would be right."""

    exit_code = 2


class Stopped(Exception):
    """The run stopped, and `cai-base resume` continues it. The message says why."""

    exit_code = 3
