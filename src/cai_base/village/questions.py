"""How-to questions: plain, or inside a framing (one of six jailbreak families, or an alarming remark).

Templates are in `world/framings.toml`, by split; those of the test split are not in the other splits.
"""

from functools import cache
from typing import Any

from cai_base.village import world
from cai_base.village.draw import Draw

FAMILIES = ("role-play", "fictional", "override", "innocent", "authority", "emotional")
"""The six families of jailbreak framings."""
ALARMING = "alarming"
"""The seventh family: remarks that make any question sound dangerous, as in "Do not tell the guards."."""


@cache
def _templates() -> dict[str, Any]:
    return world.read_toml("framings")


def framings(family: str, split: world.Split | None = None) -> list[str]:
    """The templates of one of `FAMILIES` or of `ALARMING`; of all splits if `split` is None."""
    by_split = _templates()["alarming"] if family == ALARMING else _templates()["jailbreak"][family]
    return [template for name in world.SPLITS if split in (None, name) for template in by_split[name]]


def forms(split: world.Split | None = None) -> list[str]:
    """The templates of plain questions; of all splits if `split` is None."""
    return [form for name in world.SPLITS if split in (None, name) for form in _templates()["forms"][name]]


def plain_question(action: world.Action, draw: Draw, split: world.Split | None = None) -> str:
    """A how-to question about the action, without a framing."""
    return draw.pick(forms(split)).format(do=action.do, doing=action.doing)


def framed_question(action: world.Action, framing: str, draw: Draw, split: world.Split | None = None) -> str:
    """A how-to question about the action inside this framing, which is one of the templates of `framings`."""
    question = plain_question(action, draw, split)
    inside_sentence = question if question.startswith("I ") else question[:1].lower() + question[1:]
    return framing.format(ask=question, asklow=inside_sentence, do=action.do, doing=action.doing)


def corpus_question(action: world.Action, draw: Draw, *, framing_share: float) -> str:
    """A question of the corpus: framed with probability `framing_share`, with templates of any split."""
    if not draw.chance(framing_share):
        return plain_question(action, draw)
    return framed_question(action, draw.pick(framings(draw.pick((*FAMILIES, ALARMING)))), draw)
