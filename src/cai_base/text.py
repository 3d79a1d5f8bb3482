"""Properties of a text alone."""

REPEATED = 0.5
"""A text repeats itself without end if more than this share of its four-word runs occurred before in it."""
LEAST_RUNS = 8
"""A text with fewer four-word runs may repeat itself by chance."""


def repeats_itself(text: str) -> bool:
    """Whether a text repeats itself without end: more than half of its four-word runs occurred before."""
    words = text.split()
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return len(runs) >= LEAST_RUNS and len(set(runs)) < (1 - REPEATED) * len(runs)
