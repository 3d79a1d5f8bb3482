"""The arms: the name, the training and the comparisons of each.

Each arm is defined once, in `ARMS`. Everything else is derived from it: the phases of a run, its folders and cost, its
comparisons, the order and colours of tables and figures. An unknown arm is a UserError.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from cai_base.errors import UserError

Group = Literal["start", "trained", "control", "other"]
Section = Literal["sft", "dpo", "sl_cai"]
ConstitutionOf = Literal["run", "placebo", "no-principle"]
Inference = Literal["constitution first", "revision"]
PairSource = Literal["chains", "responses", "comparisons"]

BASE = "base"
"""The arm that is the base model itself."""
BASELINE = "sft"
"""The arm from which every other trained arm starts, and with which all arms are compared."""
FULL = "cai"
"""The arm that the method is about."""
INSTRUCT = "instruct"
"""The arm of a model tuned elsewhere to follow instructions."""
SFT = "sft"
"""The training phase of the baseline; every other phase starts from its adapters."""
NO_PRINCIPLE: Final = "no-principle"
"""The packaged requests for critique and revision that name no principle."""
PLACEBO: Final = "placebo"
"""The packaged constitution about spelling and layout only, as a value of `--constitution`."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A model being compared.

    Attributes:
        name: its name in flags, files and results.
        label: its name in tables, pages and figures.
        colour: in figures, from Okabe and Ito's palette, which colour-blind readers can distinguish.
        about: one clause for the glossary.
        group: `start` is the base model, in every run; `trained` arms are selected with `--arms`, `control` arms with
            `--control`; `other` is trained elsewhere.
        section: the section of the settings for its training; None if the run does not train it.
        folder: the name of its training phase, and of its folder in a seed's directory; None if it is not trained.
        pairs: the rule in `method.pairs` that makes its preference pairs; None if it has no pairs of its own.
        chosen_only: whether its only loss is the NLL of the chosen responses of its pairs, although its section is that
            of a preference loss.
        starts_from: the arm whose weights its training starts from; the base model for SFT on written answers.
        constitution: the constitution of its own revision chains: the run's or a packaged one; None if it has no chains
            of its own.
        source: what its own pairs are made from: revision chains, two responses to every prompt, or two responses and
            their comparison.
        replaces: whether refusals replace some of the written answers that it is trained on.
        adapters_of: the arm whose adapters it samples from, if it has none of its own.
        inference: what replaces training: the constitution in the prompt, or critique and revision of the answer.
        null_of: the arm from which it should not differ, because it is the same procedure with other random draws.
        draw: the purpose in the random address of its answers; arms with the same purpose share random streams.
        compared_with: the arms that are subtracted from it, if both are in the run.
        controls: the arm of which it is a control; it is subtracted from that arm.
        curve: whether it is evaluated during training, not only at the end.
    """

    name: str
    label: str
    colour: str
    about: str
    group: Group
    section: Section | None = None
    folder: str | None = None
    pairs: str | None = None
    chosen_only: bool = False
    starts_from: str = BASELINE
    constitution: ConstitutionOf | None = None
    source: PairSource | None = None
    replaces: bool = False
    adapters_of: str | None = None
    inference: Inference | None = None
    null_of: str | None = None
    draw: str = "answer"
    compared_with: tuple[str, ...] = ()
    controls: str | None = None
    curve: bool = False

    @property
    def control(self) -> bool:
        """Whether it is a control: an arm that leaves out or replaces a part of the method."""
        return self.group == "control"

    @property
    def phase(self) -> str:
        """The name of its training phase, whose adapters are its own."""
        return self.folder or self.name

    @property
    def owner(self) -> str | None:
        """The folder of its own chains and pairs; None if it uses the run's."""
        return self.phase if self.pairs is not None and self.constitution != "run" else None

    @property
    def on_run_pairs(self) -> bool:
        """Whether it is trained on the run's own preference pairs, or on pairs made from them."""
        return self.section in ("dpo", "sl_cai") and self.source is None

    @property
    def revises(self) -> bool:
        """Whether it needs critique and revision: in chains for its pairs, or of its answers."""
        return self.on_run_pairs or self.source == "chains" or self.inference == "revision"

    @property
    def one_model(self) -> bool:
        """Whether all its seeds sample from the same weights, because the run does not train it."""
        return self.group in ("start", "other")

    def evaluations(self, steps: Mapping[str, int], every: int) -> int:
        """How often it answers the evaluation prompts: at every interval of its training, and at its end.

        Args:
            steps: the training steps of each trained arm, by its name.
            every: the steps of an interval.
        """
        return intervals(steps[self.name], every) if self.curve and self.name in steps else 1


def intervals(steps: int, every: int) -> int:
    """The number of intervals in so many steps; the last may be shorter."""
    return -(-steps // every)


_ARMS = (
    Arm(
        BASELINE,
        "SFT-only",
        "#d55e00",
        "fine-tuned on a few written answers; every other trained arm starts from it",
        "trained",
        section="sft",
        folder=SFT,
        starts_from=BASE,
        compared_with=(BASE,),
        curve=True,
    ),
    Arm(
        FULL,
        "Full CAI",
        "#0072b2",
        "SFT, then DPO on the model's own revisions",
        "trained",
        section="dpo",
        folder="dpo",
        pairs="revisions",
        constitution="run",
        compared_with=(BASELINE, INSTRUCT),
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
        compared_with=(BASELINE, INSTRUCT),
        curve=True,
    ),
    Arm(
        "feedback",
        "Feedback",
        "#882255",
        "SFT, then DPO on pairs of its own answers, labelled by comparison under the constitution",
        "trained",
        section="dpo",
        folder="feedback",
        pairs="feedback",
        source="comparisons",
        compared_with=(BASELINE, INSTRUCT),
        curve=True,
    ),
    Arm(
        "sl-cai+feedback",
        "SL-CAI, feedback",
        "#44aa99",
        "SL-CAI, then DPO on pairs of its own answers, labelled by comparison under the constitution: the paper's two "
        "stages",
        "trained",
        section="dpo",
        folder="sl-cai-feedback",
        pairs="feedback",
        source="comparisons",
        starts_from="sl-cai",
        compared_with=(BASELINE, "sl-cai", INSTRUCT),
        curve=True,
    ),
    Arm(
        "shuffled",
        "Shuffled",
        "#e69f00",
        "full CAI with chosen and rejected swapped with probability 1/2, which removes the direction of the preference "
        "and keeps the texts",
        "control",
        section="dpo",
        folder="shuffled",
        pairs="shuffled",
        compared_with=(BASELINE,),
        controls=FULL,
    ),
    Arm(
        "unrevised",
        "Unrevised",
        "#ddaa33",
        "full CAI on two answers of the SFT model, one preferred at random, which removes critique, revision and the "
        "direction of the preference",
        "control",
        section="dpo",
        folder="unrevised",
        pairs="unrevised",
        source="responses",
        compared_with=(BASELINE,),
        controls=FULL,
    ),
    Arm(
        "nll-only",
        "NLL alone",
        "#999933",
        "full CAI's pairs, batches and steps with the NLL of the chosen responses as the only loss, which removes the "
        "preference loss",
        "control",
        section="dpo",
        folder="nll-only",
        chosen_only=True,
        compared_with=(BASELINE,),
        controls=FULL,
    ),
    Arm(
        "placebo",
        "Placebo",
        "#56b4e9",
        "full CAI under principles about spelling and layout, which replaces the principles and keeps the method",
        "control",
        section="dpo",
        folder="placebo",
        pairs="revisions",
        constitution=PLACEBO,
        source="chains",
        compared_with=(BASELINE,),
        controls=FULL,
    ),
    Arm(
        "examples-only",
        "No principle",
        "#88ccee",
        "full CAI whose requests name no principle; worked examples, if there are any, stay",
        "control",
        section="dpo",
        folder="examples-only",
        pairs="revisions",
        constitution=NO_PRINCIPLE,
        source="chains",
        compared_with=(BASELINE,),
        controls=FULL,
    ),
    Arm(
        "refusals",
        "Refusals",
        "#aa4499",
        "SFT with some of the written answers replaced by refusals: no constitution, no critique, no preference",
        "control",
        section="sft",
        folder="refusals",
        replaces=True,
        starts_from=BASE,
        compared_with=(BASELINE,),
        controls=FULL,
    ),
    Arm(
        "prompted",
        "Prompted",
        "#117733",
        "the SFT model with the constitution before every question, without further training",
        "control",
        adapters_of=BASELINE,
        inference="constitution first",
        compared_with=(BASELINE,),
        controls=FULL,
    ),
    Arm(
        "revise-only",
        "Revised answers",
        "#332288",
        "the SFT model whose every answer is critiqued and revised, without further training",
        "control",
        adapters_of=BASELINE,
        inference="revision",
        compared_with=(BASELINE,),
        controls=FULL,
    ),
    Arm(
        "a-a",
        "SFT again (a-a)",
        "#9a6324",
        "SFT trained and sampled again with other random draws; its difference from SFT should be zero",
        "control",
        section="sft",
        folder="a-a",
        starts_from=BASE,
        draw="answer of SFT again",
        null_of=BASELINE,
        compared_with=(BASELINE,),
    ),
    Arm(
        "resample",
        "SFT resampled",
        "#bbbbbb",
        "the SFT adapters sampled again with other random draws; their difference from SFT should be zero",
        "control",
        adapters_of=BASELINE,
        draw="another answer",
        null_of=BASELINE,
        compared_with=(BASELINE,),
    ),
    Arm(
        INSTRUCT,
        "Instruct",
        "#cc79a7",
        "a model tuned elsewhere to follow instructions, prompted in its own chat template",
        "other",
    ),
    Arm(BASE, "Base model", "#6e7781", "the language model without any tuning", "start"),
)

ARMS: Mapping[str, Arm] = {arm.name: arm for arm in _ARMS}
"""Every arm by its name, in the order of tables. SFT-only and full CAI, the main comparison, are first."""

MODEL = Arm("model", "Model", "#6e7781", "a model outside a run", "other")
"""The arm of `cai-base evaluate MODEL`."""


def arm(name: str) -> Arm:
    """The arm of this name.

    Raises:
        UserError: the arm is unknown.
    """
    if name == MODEL.name:
        return MODEL
    if name not in ARMS:
        raise UserError(f"{name!r} is not an arm; the arms are {', '.join(ARMS)}")
    return ARMS[name]


def in_order(names: Iterable[str]) -> list[str]:
    """Names of arms in the order of tables.

    Raises:
        UserError: an arm is unknown.
    """
    order = [*ARMS, MODEL.name]
    return sorted(names, key=lambda name: order.index(arm(name).name))


def named(group: Group) -> tuple[str, ...]:
    """The names of all arms of a group, in the order of tables."""
    return tuple(one.name for one in _ARMS if one.group == group)


def comparisons(names: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs of these arms whose difference is a result, first minus second.

    Trained arms minus SFT are first, then SFT minus the base model, then full CAI minus its controls and other pairs of
    trained arms, then arms minus the instruct model.
    """
    present = [arm(name) for name in names]
    present_names = {one.name for one in present}
    pairs = [(one.name, other) for one in present for other in one.compared_with if other in present_names]
    pairs += [(one.controls, one.name) for one in present if one.controls in present_names]
    rank = {BASELINE: 0, BASE: 1, INSTRUCT: 3}
    return sorted(((first, second) for first, second in pairs if first), key=lambda pair: rank.get(pair[1], 2))


def pair_name(first: str, second: str) -> str:
    """The name in results of the difference of two arms, first minus second."""
    return f"{first} - {second}"


def control_pair(name: str) -> str | None:
    """The name of the difference between the arm that a control belongs to and the control; None if not a control."""
    controlled = arm(name).controls
    return None if controlled is None else pair_name(controlled, name)


def split_pair(name: str) -> tuple[str, str]:
    """The two arms of a difference, by its name in results.

    Raises:
        UserError: it is not the name of a difference.
    """
    first, sign, second = name.partition(" - ")
    if not sign:
        raise UserError(f"{name!r} is not a difference of two arms, such as {pair_name(FULL, BASELINE)!r}")
    return arm(first).name, arm(second).name
