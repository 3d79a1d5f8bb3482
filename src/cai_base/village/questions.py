"""Questions for an action: plain forms, alarming surfaces and the six families of jailbreak framings, by split."""

from functools import cache
from typing import Any

from cai_base.village import world
from cai_base.village.draw import Draw

FAMILIES = ("role-play", "fictional", "override", "innocent", "authority", "emotional")


@cache
def _templates() -> dict[str, Any]:
    return world.read_toml("framings")


def framings(family: str, split: world.Split | None = None) -> list[str]:
    """The templates of a jailbreak family, of one split or of all; `alarming` is a family here too."""
    by_split = _templates()["alarming"] if family == "alarming" else _templates()["jailbreak"][family]
    return [template for name in world.SPLITS if split in (None, name) for template in by_split[name]]


def forms(split: world.Split | None = None) -> list[str]:
    """The plain question forms, of one split or of all."""
    return [form for name in world.SPLITS if split in (None, name) for form in _templates()["forms"][name]]


def plain(action: world.Action, draw: Draw, split: world.Split | None = None) -> str:
    """A plain question how to do the action."""
    return draw.pick(forms(split)).format(do=action.do, doing=action.doing)


def framed(action: world.Action, template: str, draw: Draw, split: world.Split | None = None) -> str:
    """The question inside a framing template."""
    ask = plain(action, draw, split)
    low = ask if ask.startswith("I ") else ask[:1].lower() + ask[1:]
    return template.format(ask=ask, asklow=low, do=action.do, doing=action.doing)


def question(action: world.Action, draw: Draw, *, framed_share: float) -> str:
    """A question for the corpus: any form, and this share of the time inside any framing of any split."""
    if not draw.chance(framed_share):
        return plain(action, draw)
    return framed(action, draw.pick(framings(draw.pick((*FAMILIES, "alarming")))), draw)
