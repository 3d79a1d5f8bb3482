"""What is read in a text, and told from it, without knowing what it is about; how it may stand in a terminal."""

REPEATED = 0.5
"""A text repeats itself without end if more than this share of its four-word runs occurred before in it."""
LEAST_RUNS = 8
"""A text with fewer four-word runs may repeat itself by chance."""


def split_names(given: str) -> tuple[str, ...]:
    """The names of a list with commas, such as `sft,cai`.

    Raises:
        ValueError: one is empty, or stands there twice.
    """
    return distinct(tuple(name.strip() for name in given.split(",")))


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if none is empty and none stands there twice.

    Raises:
        ValueError: one is or does.
    """
    if "" in names:
        raise ValueError("has an empty name; give names with one comma between them, such as a,b")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"has {twice[0]!r} twice; give it once")
    return names


def repeats_itself(text: str) -> bool:
    """Whether a text repeats itself without end: more than half of its four-word runs occurred before."""
    words = text.split()
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return len(runs) >= LEAST_RUNS and len(set(runs)) < (1 - REPEATED) * len(runs)


LONGEST_LINE = 4000
"""Characters of one line that a terminal is given; of a longer one the rest is counted."""


def for_terminal(text: str) -> str:
    """A text of a model, a file or a person as it may stand in a terminal.

    Line breaks and tabs stay. Whatever else controls a terminal, changes the direction of writing or has no width is
    shown as its escape, such as `\\x1b`. A line of more than `LONGEST_LINE` characters is cut, and says so.
    """
    return "\n".join(_line(line) for line in text.replace("\r\n", "\n").split("\n"))


def one_line(text: str) -> str:
    """A text as it may stand in a terminal, on one line."""
    return for_terminal(" ".join(text.split()))


def _line(line: str) -> str:
    rest = len(line) - LONGEST_LINE
    shown = "".join(c if c.isprintable() or c == "\t" else _escaped(c) for c in line[:LONGEST_LINE])
    return f"{shown}… ({rest:,} more characters)" if rest > 0 else shown


def _escaped(character: str) -> str:
    if character.isspace() and character not in "\r\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029":
        return " "  # a space of another width
    return character.encode("unicode_escape").decode()
