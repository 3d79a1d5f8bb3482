"""Functions on text: names in a list, repetition, escaping for a terminal, and the command that continues a run."""

import shlex
from collections.abc import Sequence
from pathlib import Path

REPEATED = 0.5
"""A text counts as repetitive if more than this share of its 4-grams of words occurred earlier in it."""
LEAST_RUNS = 8
"""A text with fewer 4-grams may repeat itself by chance."""


def either(choices: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return " or ".join(part for part in (", ".join(choices[:-1]), choices[-1]) if part)


def counted(number: int, noun: str, several: str = "") -> str:
    """`1 run`, `2 runs`, `1,000 runs`; `several` is the plural where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def split_names(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list, such as `sft,cai`.

    Raises:
        ValueError: a name is empty or occurs twice.
    """
    return distinct(tuple(name.strip() for name in text.split(",")))


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if none is empty and none occurs twice.

    Raises:
        ValueError: a name is empty or occurs twice.
    """
    if "" in names:
        raise ValueError("has an empty name; give names with one comma between them, such as a,b")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"has {twice[0]!r} twice; give it once")
    return names


def command_on(command: str, directory: Path, *flags: str) -> str:
    """The shell command that does something with a run."""
    return shlex.join(["cai-base", command, str(directory), *flags])


def resume_command(directory: Path) -> str:
    """The shell command that continues a run."""
    return command_on("resume", directory)


def repeats_itself(text: str) -> bool:
    """Whether a text repeats itself without end: more than half of its 4-grams of words occurred earlier in it."""
    words = text.split()
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return len(runs) >= LEAST_RUNS and len(set(runs)) < (1 - REPEATED) * len(runs)


LONGEST_LINE = 4000
"""The most characters of one line that are printed; for a longer line, the number of the rest is shown."""


UNPRINTABLE = "\n\t\u200c\u200d"
"""What is not printable and stays in a text file: line breaks, tabs, and the joiners of some scripts and of emoji."""


def for_terminal(text: str) -> str:
    """A text of a model, a file or a person, made safe for a terminal.

    Line breaks and tabs stay. Other characters that control a terminal, change the writing direction or have no width
    are shown as escapes, such as `\\x1b`. A line of more than `LONGEST_LINE` characters is cut, with a note.
    """
    return "\n".join(_line(line) for line in text.replace("\r\n", "\n").split("\n"))


def one_line(text: str) -> str:
    """A text as it may stand in a terminal, on one line."""
    return for_terminal(" ".join(text.split()))


def without_controls(text: str) -> str:
    """A text as it may stand in a file that is read as text, such as Markdown: nothing controls what shows it.

    Control characters, changes of the direction of writing and characters without width are shown as their escapes, but
    for the joiners that scripts need.
    """
    return "".join(c if c.isprintable() or c in UNPRINTABLE else _escaped(c) for c in text.replace("\r\n", "\n"))


def _line(line: str) -> str:
    rest = len(line) - LONGEST_LINE
    printable = "".join(c if c.isprintable() or c == "\t" else _escaped(c) for c in line[:LONGEST_LINE])
    return f"{printable}… ({rest:,} more characters)" if rest > 0 else printable


def _escaped(character: str) -> str:
    if character.isspace() and character not in "\r\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029":
        return " "  # a space of another width
    return character.encode("unicode_escape").decode()
