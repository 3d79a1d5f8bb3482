"""Makes the common stages of a study's runs only once: the files that one run stored are copied into the others.

A stage is a phase of the method. It is the same in two runs if the phases have equal content (settings, prompts,
constitution and all other fields), if the phases that it needs are the same, and if the runs have equal seeds, base
model and evaluation. Every random draw has an address, so equal stages write equal bytes.

If the name of a stored file or of a piece of work does not say to which phase it belongs, a copy could be incomplete.
Then nothing is copied, and the stage is made again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cai_base import paths
from cai_base.arms import ARMS, BASE, FULL
from cai_base.evaluation.tasks import pairwise
from cai_base.experiment import phases
from cai_base.inputs import Inputs
from cai_base.inputs.kinds import ANSWER_FILES
from cai_base.method.phase import Interpreting, Phase
from cai_base.run.identity import same_files
from cai_base.settings.presets import Table
from cai_base.settings.schema import RunSettings
from cai_base.settings.validation import section_models
from cai_base.store import CONFIG, Run

OF_PHASES = ("arms", "control", "accept", "constitution", "principles", "prompts", "prompts-column", "interpreter")
"""Settings that affect a stage only through the fields of its phase. The interpreter affects the stages that use it."""
SECTIONS = section_models(RunSettings).keys() - {"lora", "evaluation", "judging"}
"""Sections of settings that affect a stage only through the fields of its phase."""
OF_RUNS = {
    CONFIG,
    paths.INPUTS,
    paths.WARNINGS,
    paths.PREFLIGHT,
    paths.RESULTS,
    paths.README,
    paths.PAIRWISE,
    *(paths.replies(judge) for judge in ("judge", "second-judge")),
}
"""Files of a run that belong to no stage."""
EVALUATION = "evaluation"


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of one run.

    Attributes:
        context: everything on which all of them depend, in addition to the fields of their phases.
        phases: the phases by name, in order.
        interpreter: the value of `--interpreter`; it matters for the phases that use it.
    """

    context: Table
    phases: Mapping[str, Phase]
    interpreter: str

    def equal(self, other: "Stages") -> list[str]:
        """The names of the stages that are equal in another run, in order."""
        same: list[str] = []
        if self.context != other.context:
            return same
        for name, phase in self.phases.items():
            interpreted = isinstance(phase, Interpreting) and self.interpreter != other.interpreter
            if other.phases.get(name) == phase and not interpreted and all(need in same for need in phase.needs):
                same.append(name)
        return same


def stages(settings: RunSettings, inputs: Inputs) -> Stages:
    """The stages of a run with these settings and inputs."""
    table = settings.model_dump(mode="json", by_alias=True)
    context = {name: value for name, value in table.items() if name not in (*OF_PHASES, *SECTIONS)}
    for name in ("evaluation_prompts", "few_shot", "critique_examples", "rubrics"):
        context[name] = getattr(inputs, name)
    return Stages(context, {phase.name: phase for phase in phases(settings, inputs)}, settings.interpreter)


def finished(run: Run | None, mine: Stages) -> list[str]:
    """The stages that a run has finished: its adapters are exported, or a later stage has begun."""
    if run is None:
        return []
    names = list(mine.phases)
    if run.progress("results"):
        return names
    begun = [place for place, name in enumerate(names) if _works_of(run, name, mine)]
    last = max(begun, default=-1)
    return [name for place, name in enumerate(names) if place < last or run.progress(f"{name} adapters")]


def copy_stages(run: Run, mine: Stages, donor: Run, theirs: Stages) -> list[str]:
    """Copy the stages that another run has finished and this run has not begun. Returns their names.

    None if the runs began with other weights under the same name, of the base model, a judge or the interpreter.

    Raises:
        UserError: a file of the donor was changed.
    """
    interpreter = mine.interpreter == theirs.interpreter
    if not _all_known(donor, theirs) or not same_files(run, donor, interpreter=interpreter):
        return []
    equal, done = mine.equal(theirs), finished(donor, theirs)
    names = [name for name in equal if name in done and not _works_of(run, name, mine)]
    works = {work: count for name in names for work, count in _works_of(donor, name, theirs).items()}
    files = [file for file in donor.files if _phase_of_file(file, theirs) in names]
    if mine.context == theirs.context and not run.progress(_evaluation_of(BASE)):
        works |= {work: count for work, count in donor.works.items() if work == _evaluation_of(BASE)}
        files += [file for file in donor.files if _arm_of_file(file) == BASE and works.get(_evaluation_of(BASE))]
    if works:
        run.copy_from(donor, works, files)
    return names


def _works_of(run: Run, name: str, mine: Stages) -> dict[str, int]:
    return {work: count for work, count in run.works.items() if _phase_of_work(work, mine) == name}


def _all_known(run: Run, theirs: Stages) -> bool:
    """Whether every stored file and piece of work is known to belong to a stage, or to none.

    The answers of untrained arms (the base model, the instruct model) belong to none.
    """
    untrained = {arm.name for arm in ARMS.values() if arm.folder is None}
    files = (
        file in OF_RUNS or _arm_of_file(file) in untrained or _phase_of_file(file, theirs) is not None
        for file in run.files
    )
    works = (
        work in ("results", pairwise.NAME)
        or _arm_of_work(work) in untrained
        or _phase_of_work(work, theirs) is not None
        for work in run.works
    )
    return all(files) and all(works)


def _evaluation_of(arm: str) -> str:
    return f"{EVALUATION} of {arm}"


def _arm_of_work(work: str) -> str | None:
    """The arm of an evaluation's work, at the end or at a step."""
    match = re.fullmatch(rf"{EVALUATION} of (.+?)( at step \d+)?", work)
    return match[1] if match else None


def _phase_of_work(work: str, mine: Stages) -> str | None:
    """The phase to which a piece of work belongs, by its name."""
    arm = _arm_of_work(work)
    if arm is not None:
        return _phase_of_arm(arm, mine)
    if work.partition(" of ")[0] == "reference":
        trained = work.partition(" of ")[2] or ARMS[FULL].folder
        return trained if trained in mine.phases else None
    name = work.removesuffix(" adapters")
    return name if name in mine.phases else None


def _phase_of_arm(arm: str, mine: Stages) -> str | None:
    folder = ARMS[arm].folder if arm in ARMS else None
    return folder if folder in mine.phases else None


def _arm_of_file(file: str) -> str | None:
    """The arm whose answers are in a file."""
    of_file = paths.answers_of(file)
    return of_file.arm if of_file is not None and of_file.task in ANSWER_FILES else None


def _phase_of_file(file: str, mine: Stages) -> str | None:
    """The phase to which a stored file belongs, by its path."""
    arm = _arm_of_file(file)
    if arm is not None:
        return _phase_of_arm(arm, mine)
    name, place = paths.failures_of(file), paths.in_seed(file)
    if place is not None:
        # seed-0/revision.jsonl is the run's, seed-0/placebo/revision.jsonl an arm's, seed-0/dpo/... a training phase's.
        whole = place.name if place.folder is None else f"{place.name} of {place.folder}"
        name = whole if whole in mine.phases else place.folder
    return name if name in mine.phases else None


def sharing(planned: Sequence[Stages]) -> list[dict[str, int]]:
    """For every run, the stages that an earlier run in the list makes, each with the index of that run."""
    shared: list[dict[str, int]] = []
    for place, mine in enumerate(planned):
        first: dict[str, int] = {}
        for donor in range(place):
            for name in mine.equal(planned[donor]):
                first.setdefault(name, donor)
        shared.append(first)
    return shared
