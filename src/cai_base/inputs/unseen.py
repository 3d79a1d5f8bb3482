"""Families of jailbreaks that the method never sees: they are taken out of its prompts and asked all the same."""

from collections.abc import Sequence

from cai_base import randomness
from cai_base.errors import UserError
from cai_base.inputs.prompts import Prompt
from cai_base.reading import listed

FLAG = "--evaluation.unseen-families"


def draw_unseen(tests: Sequence[Prompt], trained: Sequence[Prompt], count: int) -> tuple[str, ...]:
    """`count` families that both sets of prompts have, the same ones every time; more of them include fewer.

    Args:
        tests: the evaluation prompts.
        trained: the method's prompts.

    Raises:
        UserError: there are not so many, or none would be left to train on.
    """
    shared = families(tests) & families(trained)
    if not shared:
        raise UserError(
            f"{FLAG} {count}: the method's prompts and the evaluation prompts have no family in common, so every "
            "family is unseen already; leave it out, or give both files a column family"
        )
    if count >= len(shared):
        raise UserError(
            f"{FLAG} {count}: the prompts have {len(shared)} families in common ({listed(sorted(shared))}); leave at "
            f"least one to train on: at most {len(shared) - 1}"
        )
    names = sorted(shared)
    order = randomness.stream("families", "unseen").permutation(len(names))
    return tuple(sorted(names[place] for place in order[:count]))


def families(prompts: Sequence[Prompt]) -> set[str]:
    """The families that these prompts name."""
    return {prompt.family for prompt in prompts if prompt.family is not None}
