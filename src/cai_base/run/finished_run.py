"""The arms of a finished run as models that can be asked again: for another suite, for styles."""

import gc
from collections.abc import Collection, Iterator
from pathlib import Path

from cai_base import arms, paths
from cai_base.dialogue import Chat, Dialogue
from cai_base.embedded import EMBEDDED
from cai_base.engines import Adapter
from cai_base.errors import UserError
from cai_base.evaluation.tasks import LoadedArm
from cai_base.inputs import Inputs
from cai_base.models import load_engine, load_instruct
from cai_base.paths import INPUTS
from cai_base.progress import Progress
from cai_base.settings.schema import RunSettings
from cai_base.store import Run


def of_run(
    directory: Path, progress: Progress, names: Collection[str] | None = None, threads: int | None = None
) -> Iterator[LoadedArm]:
    """The arms of a run, base model first, the instruct model last: by then the base model's engine is let go.

    A seed that a phase lost is not in that arm.

    Args:
        names: of arms; all that the run has, by default. `instruct` is there for every run on the embedded model, which
            has a sibling.
        threads: CPU threads; the run's by default.

    Raises:
        UserError: it is no finished run, it has no such arm, or its models cannot be loaded.
    """
    run = Run.open(directory)
    if not run.progress("results"):
        raise UserError(f"{directory}: is not finished; finish it first: cai-base resume {directory}")
    settings = RunSettings.model_validate(run.config)
    if threads is not None:
        settings = settings.model_copy(update={"threads": threads})
    available = available_arms(settings)
    for name in names or ():
        if name not in available:
            raise UserError(f"{directory}: has no arm {name!r}; it has {', '.join(available)}")
    chosen = settings.evaluated_arms if names is None else names
    return _load(run, settings, [name for name in available if name in chosen], progress)


def available_arms(settings: RunSettings) -> list[str]:
    """The arms of a run that can be asked again: its own, and on the embedded model its instruct sibling."""
    sibling = ["instruct"] if settings.model == EMBEDDED and settings.engine == "local" else []
    return list(dict.fromkeys([*settings.evaluated_arms, *sibling]))


def _load(run: Run, settings: RunSettings, names: list[str], progress: Progress) -> Iterator[LoadedArm]:
    if names != ["instruct"]:
        inputs = Inputs.model_validate_json((run.directory / INPUTS).read_bytes())
        progress.say(f"Loading {settings.model}")
        engine = load_engine(settings, progress, run.found("engine"))
        layout = Dialogue(inputs.few_shot, inputs.critique_examples)
        for name in names:
            arm = arms.arm(name)
            owner = arms.arm(arm.adapters_of or name)
            if arm.group == "start":
                yield LoadedArm(name, engine, layout, dict.fromkeys(settings.seed_numbers), arm.draw)
            elif owner.folder is not None:
                folders = {seed: _weights(run, settings, seed, owner) for seed in settings.seed_numbers}
                places = {f"{owner.name}/{seed}": folder for seed, folder in folders.items() if folder}
                engine.load(places, optimizer=False)
                adapters: dict[int, Adapter | None] = {
                    seed: f"{owner.name}/{seed}" for seed, folder in folders.items() if folder
                }
                yield LoadedArm(name, engine, layout, adapters, arm.draw)
        del engine  # two models may not fit
        gc.collect()
    if "instruct" in names:
        progress.say(f"Loading {settings.instruct or 'the instruct sibling'}")
        engine, adapter = load_instruct(settings, progress)
        yield LoadedArm("instruct", engine, Chat(), dict.fromkeys(settings.seed_numbers, adapter))


def _weights(run: Run, settings: RunSettings, seed: int, arm: arms.Arm) -> Path | None:
    """Where a seed's adapter lies; on a Tinker service only its own checkpoints load again. None if it was lost."""
    assert arm.folder is not None
    exported = run.directory / paths.adapter(seed, arm.folder)
    if not exported.is_dir() or settings.engine == "local":
        return exported if exported.is_dir() else None
    training = {"sft": settings.sft, "dpo": settings.dpo, "sl_cai": settings.sl_cai}[arm.section or "dpo"]
    return run.directory / paths.state(seed, arm.folder, training.steps)
