"""Every arm once: what it is called, how it is trained, and what it is compared with.

Everything that is said of arms elsewhere is derived from `ARMS`: which phases a run has, its folders and cost, its
comparisons, the order and colours of tables and figures. An arm that is not here is an error with a sentence.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from cai_base.errors import UserError

Group = Literal["start", "trained", "control", "other"]
Section = Literal["sft", "dpo", "sl_cai"]


@dataclass(frozen=True, slots=True)
class Arm:
    """A model being compared.

    Attributes:
        name: as flags, files and results have it.
        label: as tables, pages and figures have it.
        colour: in figures, from Okabe and Ito's palette, which colour-blind readers can tell apart.
        about: one clause for the glossary.
        group: `start`, the base model, is always there; `trained` is asked for with `--arms`, `control` with
            `--control`; `other` is trained elsewhere.
        section: the settings that it is trained with, which also say by which loss; None if this run does not train it.
        folder: the name of its training phase, and of its folder in a seed's directory; None if it has none.
        pairs: the rule in `method.pairs` that makes its preference pairs; None if it trains on none of its own.
        constitution: whose principles its own revision chains are made under: the run's, or the packaged placebo; None
            if it makes no chains.
        adapters_of: the arm whose adapters it is asked with, if it has none of its own.
        draw: the purpose in the address of its answers' draws; arms of one purpose are compared on equal luck.
        compared_with: the arms that are subtracted from it, where both are there.
        controls: the arm that it is subtracted from, as what that arm must differ from.
        curve: whether it is evaluated while it is trained; of a control only the end is compared.
    """

    name: str
    label: str
    colour: str
    about: str
    group: Group
    section: Section | None = None
    folder: str | None = None
    pairs: str | None = None
    constitution: Literal["run", "placebo"] | None = None
    adapters_of: str | None = None
    draw: str = "answer"
    compared_with: tuple[str, ...] = ()
    controls: str | None = None
    curve: bool = False

    @property
    def control(self) -> bool:
        """Whether it must show nothing of what the constitution does."""
        return self.group == "control"

    @property
    def owner(self) -> str | None:
        """The folder of its own chains and pairs; None for an arm that trains on the run's own."""
        return self.folder if self.pairs is not None and self.constitution != "run" else None

    @property
    def one_model(self) -> bool:
        """Whether no seed trains it: its seeds are then draws from one model."""
        return self.group in ("start", "other")


_ARMS = (
    Arm(
        "sft",
        "SFT-only",
        "#d55e00",
        "fine-tuned on a few human-written answers; every other trained arm starts from it",
        "trained",
        section="sft",
        folder="sft",
        compared_with=("base",),
        curve=True,
    ),
    Arm(
        "cai",
        "Full CAI",
        "#0072b2",
        "SFT, then DPO on the model's own revisions",
        "trained",
        section="dpo",
        folder="dpo",
        pairs="revisions",
        constitution="run",
        compared_with=("sft", "instruct"),
        curve=True,
    ),
    Arm(
        "sl-cai",
        "SL-CAI",
        "#009e73",
        "SFT, then SFT on the revisions, the paper's supervised stage",
        "trained",
        section="sl_cai",
        folder="sl-cai",
        compared_with=("sft", "instruct"),
        curve=True,
    ),
    Arm(
        "shuffled",
        "Shuffled",
        "#e69f00",
        "full CAI with chosen and rejected swapped with probability 1/2",
        "control",
        section="dpo",
        folder="shuffled",
        pairs="shuffled",
        compared_with=("sft",),
        controls="cai",
    ),
    Arm(
        "placebo",
        "Placebo",
        "#56b4e9",
        "full CAI under principles about spelling and layout",
        "control",
        section="dpo",
        folder="placebo",
        pairs="revisions",
        constitution="placebo",
        compared_with=("sft",),
        controls="cai",
    ),
    Arm(
        "a-a",
        "SFT again",
        "#9a6324",
        "the SFT adapters asked again with other draws, whose difference from SFT must be none",
        "control",
        adapters_of="sft",
        draw="another answer",
        compared_with=("sft",),
    ),
    Arm(
        "instruct",
        "Instruct",
        "#cc79a7",
        "a model tuned elsewhere to follow instructions, asked in its own chat template",
        "other",
    ),
    Arm("base", "Base model", "#6e7781", "the language model without any tuning", "start"),
)

ARMS: Mapping[str, Arm] = {arm.name: arm for arm in _ARMS}
"""Every arm by its name, in the order of tables: SFT-only and full CAI first, whose difference is what a run is for."""

MODEL = Arm("model", "Model", "#6e7781", "a model that is no run's arm", "other")
"""What `cai-base evaluate MODEL` asks."""


def arm(name: str) -> Arm:
    """The arm of this name.

    Raises:
        UserError: there is none.
    """
    found = MODEL if name == MODEL.name else ARMS.get(name)
    if found is None:
        raise UserError(f"{name!r} is not an arm; the arms are {', '.join(ARMS)}")
    return found


def in_order(names: Iterable[str]) -> list[str]:
    """Names of arms in the order of tables.

    Raises:
        UserError: one is not an arm.
    """
    order = [*ARMS, MODEL.name]
    return sorted(names, key=lambda name: order.index(arm(name).name))


def named(group: Group) -> tuple[str, ...]:
    """The names of all arms of a group, in the order of tables."""
    return tuple(one.name for one in _ARMS if one.group == group)


def comparisons(names: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs of these arms whose difference is a result, first minus second.

    What training changed comes first, then SFT against the base model, then full CAI against what controls it.
    """
    present = [arm(name) for name in names]
    known = {one.name for one in present}
    pairs = [(one.name, other) for one in present for other in one.compared_with if other in known]
    pairs += [(one.controls, one.name) for one in present if one.controls in known]
    rank = {"sft": 0, "base": 1, "instruct": 3}
    return sorted(((first, second) for first, second in pairs if first), key=lambda pair: rank.get(pair[1], 2))
