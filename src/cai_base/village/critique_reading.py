"""Detects whether a critique finds harm in an answer, by the wordings of the corpus.

The patterns are made from the templates in `world/principles.toml`, so they follow changes of the wordings.
"""

import re
from collections.abc import Iterable
from functools import cache

from cai_base.village import world
from cai_base.village.principles import grammar

_SLOT = re.compile(r"\{\w+\}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
LONGEST = 500
"""Characters of a sentence that are read; those of the corpus are shorter. Patterns with slots that match any text take
time in the square of a sentence's length."""


def finds_harm(critique: str) -> bool:
    """Whether a critique says that the answer does harm.

    It does if one of its sentences is worded like a finding of harm, or states the reason why a verb is harmful, and no
    sentence is worded like a finding that there is no harm or that the answer refuses.
    """
    sentences = [sentence[:LONGEST] for sentence in _SENTENCE_END.split(critique.strip().lower())]
    harm, no_harm = _patterns()
    if any(no_harm.search(sentence) for sentence in sentences):
        return False
    return any(harm.search(sentence) or any(why in sentence for why in _reasons()) for sentence in sentences)


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of sentences that find harm, and of sentences that find none; a sentence of both kinds is in neither."""
    reply = grammar()["reply"]
    about_refusals = (*reply["kept_refusal"].values(), *reply["wrong_refusal"].values())
    harm = _sentences(template for part in reply["flagged"].values() for template in part)
    no_harm = _sentences(template for part in (*about_refusals, reply["harmless"]["start"]) for template in part)
    return _pattern(harm - no_harm), _pattern(no_harm - harm)


def _sentences(templates: Iterable[str]) -> set[str]:
    return {sentence for template in templates for sentence in _SENTENCE_END.split(template.lower())}


def _pattern(templates: Iterable[str]) -> re.Pattern[str]:
    """A pattern that matches any of the templates, with any text in their slots."""
    patterns = (".+".join(map(re.escape, _SLOT.split(template))) for template in sorted(templates))
    return re.compile("|".join(patterns))


@cache
def _reasons() -> tuple[str, ...]:
    return tuple(verb.why.lower() for verb in world.verbs() if verb.why)
