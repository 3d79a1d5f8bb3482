"""The phases that train an arm, in addition to SFT and to the run's own chains and pairs.

They are what its pairs are made from, where it has its own (`SOURCES`), its pairs, and its training (`TRAINING`). A new
phase is a row of one of the tables.
"""

from collections.abc import Callable, Mapping

from cai_base import arms
from cai_base.arms import Arm, PairSource, Section
from cai_base.inputs import Inputs
from cai_base.method.dpo import DpoPhase
from cai_base.method.feedback import FeedbackPhase
from cai_base.method.pairs import Pairs
from cai_base.method.phase import Phase
from cai_base.method.responses import UnrevisedResponses
from cai_base.method.revision import RevisionPhase
from cai_base.method.sft import Sft, SftOnPairs
from cai_base.method.training import Start
from cai_base.settings.schema import RunSettings

Maker = Callable[[Arm, RunSettings, Inputs], Phase]
"""The phase of an arm, with its sections of the settings and its part of the inputs."""


def _dpo(arm: Arm, settings: RunSettings, inputs: Inputs) -> Phase:
    if arm.chosen_only:
        return SftOnPairs(arm, settings.dpo, settings.sft.steps, settings.dpo.pairs, draws="dpo")
    before = arms.arm(arm.starts_from)
    return DpoPhase(arm, settings.dpo, Start(before.phase, settings.training(before.section or "sft").steps))


def _sl_cai(arm: Arm, settings: RunSettings, inputs: Inputs) -> Phase:
    draws = "dpo" if settings.sl_cai.as_dpo else arm.phase
    return SftOnPairs(arm, settings.training("sl_cai"), settings.sft.steps, settings.dpo.pairs, draws)


SOURCES: Mapping[PairSource, Maker] = {
    "chains": lambda arm, settings, inputs: RevisionPhase.of_arm(arm, settings.revision, inputs),
    "responses": lambda arm, settings, inputs: UnrevisedResponses.of_arm(arm, settings.revision, inputs),
    "comparisons": lambda arm, settings, inputs: FeedbackPhase.of_arm(
        arm, settings.feedback, settings.revision, inputs
    ),
}
"""What makes the source of an arm's own pairs."""

TRAINING: Mapping[Section, Maker] = {
    "sft": lambda arm, settings, inputs: Sft.of_arm(arm, settings.sft, inputs),
    "dpo": _dpo,
    "sl_cai": _sl_cai,
}
"""What trains an arm, by the section of the settings for it."""


def phases_of(arm: Arm, settings: RunSettings, inputs: Inputs) -> list[Phase]:
    """The phases that the arm needs, in order; none if the run trains no adapters for it.

    Raises:
        UserError: the inputs lack something that the arm needs.
    """
    own: list[Phase] = []
    if arm.pairs is not None and arm.owner is not None:
        if arm.source is not None:
            own.append(SOURCES[arm.source](arm, settings, inputs))
        own.append(Pairs(arm.pairs, arm.owner, arm.source, held_out=settings.dpo.held_out))
    if arm.section is not None:
        own.append(TRAINING[arm.section](arm, settings, inputs))
    return own
