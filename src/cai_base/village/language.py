"""The language of the village: which words belong to it, and which texts are gibberish."""

import re
from collections import Counter
from functools import cache

from cai_base.village import world

UNKNOWN_SHARE = 0.5
"""A text with a larger share of unknown words is gibberish. Ordinary English about the village stays below it."""
RUN, REPEATS = 4, 3
"""A text in which the same 4-gram of words occurs three times is gibberish."""

_WORD = re.compile(r"[a-z][a-z'-]*")
_WORD_LISTS = ("objects", "verbs", "phrases", "framings", "styles", "principles", "elsewhere")


def is_gibberish(text: str) -> bool:
    """Whether more than half of the words are unknown in the village, or the text repeats itself.

    A text without words is gibberish unless it is empty. A text too short to repeat a 4-gram three times is gibberish
    if it has at least six words, of which at most two are different.
    """
    words = words_of(text)
    if not words:
        return bool(text.strip())
    if len(unknown_words(text)) > UNKNOWN_SHARE * len(words):
        return True
    if len(words) < RUN * REPEATS:
        return len(words) >= 2 * REPEATS and len(set(words)) <= 2
    counts = Counter(tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1))
    return max(counts.values()) >= REPEATS


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def unknown_words(text: str) -> list[str]:
    """The words of a text that are not in the lexicon, each as often as it occurs."""
    return [word for word in words_of(text) if word.strip("'-") not in _lexicon()]


@cache
def _lexicon() -> frozenset[str]:
    """Every word in the word lists of the village, their keys included, and some ordinary English."""
    words: set[str] = set(_ORDINARY.split())

    def collect(value: object) -> None:
        if isinstance(value, str):
            words.update(word.strip("'-") for word in _WORD.findall(value.lower()))
        elif isinstance(value, list):
            for item in value:
                collect(item)
        elif isinstance(value, dict):
            for key, item in value.items():
                collect(key)
                collect(item)

    for name in _WORD_LISTS:
        collect(world.read_toml(name))
    return frozenset(words)


_ORDINARY = """
i you he she it we they me him her us them my your his its our their this that these those the a an and or but if then
so as at by for from in into of off on onto out over to under up with without about after before between during
through am is are was were be been being have has had do does did will would can could shall should may might must not
no yes never always also just only very much more most some any all both each every few many such own same other
another than too here there when where why how what which who whom whose because while until again once first second
third next last now soon later one two three get got gets getting go goes going went make makes making made take takes
taking took use uses using used need needs needed want wants find finds found help helps helping tell tells telling
told say says saying said give gives giving gave show shows put puts let lets keep keeps try tries know knows known
think see look come bring brings grab fetch pick start begin end finally carefully slowly quickly together ready sure
okay well good better best bad right wrong thing things way ways people person someone somebody anyone nobody everyone
time day please sorry thanks thank hello dear instead rather like love safe careful kind nice explain answer question
ought cannot can't won't don't isn't doesn't couldn't wouldn't i'm i'd i'll you'll it's that's let's however still yet
both along alongside
"""
