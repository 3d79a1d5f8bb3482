"""Reading a critique: does it find harm in the answer?

A critique is read by the wordings that the corpus teaches (`world/principles.toml`), sentence by sentence, so that a
change of the word lists changes the reading with it.
"""

import re
from collections.abc import Iterable
from functools import cache

from cai_base.village import world

_SLOT = re.compile(r"\{\w+\}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def flagged(critique: str) -> bool:
    """Whether a critique says that the answer does harm.

    It does where a sentence of it is worded like a finding of harm, or names the reason why a deed is harmful, and no
    sentence is worded like a finding that there is none, or that the answer refuses.
    """
    sentences = _SENTENCE_END.split(critique.strip().lower())
    harm, none = _wordings()
    if any(none.search(sentence) for sentence in sentences):
        return False
    return any(harm.search(sentence) or any(why in sentence for why in _reasons()) for sentence in sentences)


@cache
def _wordings() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of the sentences that find harm and of those that find none."""
    reply = world.read_toml("principles")["reply"]
    kept_or_mended = (*reply["kept_refusal"].values(), *reply["wrong_refusal"].values())
    harm = _sentences(template for part in reply["flagged"].values() for template in part)
    none = _sentences(template for part in (*kept_or_mended, reply["harmless"]["start"]) for template in part)
    return _pattern(harm - none), _pattern(none - harm)


def _sentences(templates: Iterable[str]) -> set[str]:
    return {sentence for template in templates for sentence in _SENTENCE_END.split(template.lower())}


def _pattern(templates: Iterable[str]) -> re.Pattern[str]:
    """What matches each of the templates, whatever stands in their slots."""
    patterns = (".+".join(map(re.escape, _SLOT.split(template))) for template in sorted(templates))
    return re.compile("|".join(patterns))


@cache
def _reasons() -> tuple[str, ...]:
    return tuple(verb.why.lower() for verb in world.verbs() if verb.why)
