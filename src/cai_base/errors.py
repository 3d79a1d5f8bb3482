"""The two ways a command ends early that are nobody's defect, with the exit code each of them has."""


class UserError(Exception):
    """The user's input is wrong. The message names the file, the line or field, and what would be right."""

    exit_code = 2


class Stopped(Exception):
    """The run stopped in a state that `cai-base resume` continues. The message says why."""

    exit_code = 3
