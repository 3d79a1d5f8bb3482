"""From settings to a run: what comes before its first phase, whether it is new or was stopped.

`begin` makes a run, `carry_on` opens one from where it is; `examine` and `foresee` look without beginning.
"""

import gc
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cai_base.embedded import EMBEDDED
from cai_base.embedded import judge as truth
from cai_base.engines import Engine, Usage
from cai_base.errors import UserError
from cai_base.evaluation.judges import GroundTruth, Judge
from cai_base.evaluation.judges.load import check_judges, keep_replies, load_judges
from cai_base.experiment import Experiment
from cai_base.inputs import Inputs, gather
from cai_base.models import check_instruct, load_engine
from cai_base.progress import Progress
from cai_base.run import cost, preflight
from cai_base.run.context_fit import fit
from cai_base.run.preflight_checks import Check
from cai_base.settings.schema import RunSettings
from cai_base.settings.validation import stored_settings
from cai_base.store import Run, refuse_existing, to_json

FOREIGN = 0.1
"""Share of a constitution's words that the embedded model's world lacks, from which it is warned of: 0.20 of the
packaged one in English, 0.03 of the village's."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What a run begins with, once preflight has looked at it."""

    settings: RunSettings
    inputs: Inputs
    engine: Engine
    judges: Mapping[str, Judge]
    warnings: list[str]
    checks: list[Check]


def examine(settings: RunSettings, out: Path, progress: Progress) -> Examined:
    """Check everything that can be checked before work begins. Nothing is trained or stored.

    Raises:
        UserError: an input is wrong, the model cannot be loaded, or `out` exists.
    """
    refuse_existing(out)
    inputs = gather(settings)
    cost.check_limit(settings)
    check_judges(settings, progress)
    settings = settings.model_copy(update={"threads": settings.threads or len(os.sched_getaffinity(0))})
    instruct = None
    if "instruct" in settings.evaluated_arms:
        check_instruct(settings, progress)
        progress.say(f"Loading {settings.instruct or 'the instruct sibling'}")
        instruct = preflight.ask_instruct(settings, inputs, progress)
        gc.collect()  # two models may not fit
    progress.say(f"Loading {settings.model}")
    engine = load_engine(settings, progress)
    settings, warnings = fit(settings, inputs, engine)
    warnings += _unjudgeable(settings, inputs)
    if settings.protocol == "original":
        warnings.insert(
            0, "protocol original: the method's prompts are also evaluation prompts, so no result here is held out"
        )
    judges = load_judges(settings, inputs, None, progress)
    checks = preflight.checks(settings, inputs, engine, judges, instruct, out, progress)
    return Examined(settings, inputs, engine, judges, warnings, checks)


def begin(settings: RunSettings, out: Path, progress: Progress) -> Experiment:
    """Check everything that can be checked before work begins, and make the run's directory.

    Raises:
        UserError: as `examine`, or a check failed that `--accept` does not name.
    """
    found = examine(settings, out, progress)
    warnings = [*found.warnings, *preflight.refuse(found.checks, settings.accept)]
    run = Run.create(
        out,
        found.settings.model_dump(mode="json", by_alias=True),
        {
            "inputs.json": found.inputs.to_bytes(),
            "warnings.json": to_json(warnings),
            "preflight.json": to_json([asdict(check) for check in found.checks]),
        },
        {"engine": found.engine.findings()},
    )
    keep_replies(found.judges, run.directory)
    return Experiment(found.settings, found.inputs, found.engine, found.judges, run, progress)


def _unjudgeable(settings: RunSettings, inputs: Inputs) -> list[str]:
    """Warnings where the embedded model cannot know what prompts or principles are about, as in real English."""
    if settings.model != EMBEDDED:
        return []
    warnings = []
    found = GroundTruth().judge([(prompt, "-") for prompt in inputs.prompts])
    unknown = sum(judgement.verdict is None for judgement in found)
    if unknown:
        warnings.append(
            f"{unknown} of the method's {len(found)} prompts ask for nothing in the embedded model's world: it cannot "
            "know what they are about, and their revisions mean nothing"
        )
    principles = inputs.constitution.principles
    foreign = truth.unknown_words(" ".join(f"{one.critique_request} {one.revision_request}" for one in principles))
    if foreign > FOREIGN:
        warnings.append(
            f"{foreign:.0%} of the constitution's words are none of the embedded model's world: it takes principles in "
            "such words for principles about harm; begin from data/world/constitution.toml"
        )
    return warnings


def carry_on(directory: Path, progress: Progress, max_cost: float | None = None) -> Experiment:
    """Open a run that was stopped, with another limit to what it may cost if one is given.

    Raises:
        UserError: it is no run, or its configuration, a stored file or the base model was changed.
    """
    run = Run.open(directory)
    settings = stored_settings(run)
    if max_cost is not None:
        settings = settings.model_copy(update={"max_cost": max_cost})
        cost.check_limit(settings)
    inputs = Inputs.read(directory / "inputs.json")
    progress.say(f"Loading {settings.model}")
    engine = load_engine(settings, progress, run.recorded("engine"))
    check_judges(settings, progress)
    judges = load_judges(settings, inputs, directory, progress)
    experiment = Experiment(settings, inputs, engine, judges, run, progress)
    lost = experiment.account.lost
    if lost != Usage():
        progress.say(
            f"What was under way when this run was stopped is done, and paid for, again: at most {lost.prefilled} "
            f"tokens read, {lost.sampled} sampled, {lost.trained} trained on"
        )
    return experiment


def foresee(settings: RunSettings, *, as_json: bool) -> str:
    """What a run with these settings can cost, as a table or as JSON. Only the model's tokenizer is loaded.

    Raises:
        UserError: an input is wrong, or the tokenizer cannot be loaded.
    """
    from cai_base import embedded
    from cai_base.engines.local.model import load_tokenizer

    inputs = gather(settings)
    if settings.tokenizer is not None and not settings.tokenizer.is_dir():
        raise UserError(f"--tokenizer {settings.tokenizer}: there is no such folder; give one with tokenizer.json")
    name = settings.tokenizer or (embedded.weights() if settings.model == EMBEDDED else settings.model)
    found = cost.estimate(settings, inputs, load_tokenizer(str(name)))
    if as_json:
        tokens = {phase: asdict(used) for phase, used in found.items()}
        return to_json({"tokens": tokens, "dollars": cost.dollars(settings, found)}).decode()
    return cost.render(settings, found)
