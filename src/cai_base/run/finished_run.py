"""The arms of a finished run as models that can be asked again: for another suite, for styles."""

import gc
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from cai_base.dialogue import Chat, Dialogue, Layout
from cai_base.embedded import EMBEDDED
from cai_base.engines import Adapter, Engine
from cai_base.errors import UserError
from cai_base.inputs import Inputs
from cai_base.models import load_engine, load_instruct
from cai_base.progress import Progress
from cai_base.settings.schema import RunSettings
from cai_base.settings.validation import stored_settings
from cai_base.store import Run

PHASES = {"sft": "sft", "cai": "dpo", "sl-cai": "sl-cai", "shuffled": "shuffled", "placebo": "placebo"}
"""Arm -> the phase whose adapters it is."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Models that are compared under one name.

    Attributes:
        layout: how it is asked, each arm in its own right way.
        models: each seed's adapter, or None for the engine's model as it is.
    """

    name: str
    engine: Engine
    layout: Layout
    models: dict[int, Adapter | None]


def of_run(
    directory: Path, progress: Progress, wanted: Collection[str] | None = None, threads: int | None = None
) -> Iterator[Arm]:
    """The arms of a run, base model first, the instruct model last: by then the base model's engine is let go.

    A seed that a phase lost is not in that arm.

    Args:
        wanted: names of arms; all that the run has, by default. `instruct` is there for every run on the embedded
            model, which has a sibling.
        threads: CPU threads; the run's by default.

    Raises:
        UserError: it is no finished run, it has no such arm, or its models cannot be loaded.
    """
    run = Run.open(directory)
    if not run.progress("results"):
        raise UserError(f"{directory}: is not finished; finish it first: cai-base resume {directory}")
    settings = stored_settings(run)
    if threads is not None:
        settings = settings.model_copy(update={"threads": threads})
    there = [arm for arm in settings.evaluated_arms if arm in PHASES or arm in ("base", "instruct")]
    if "instruct" in (wanted or ()) and "instruct" not in there and settings.model == EMBEDDED:
        there += ["instruct"] if settings.engine == "local" else []
    for name in wanted or ():
        if name not in there:
            raise UserError(f"{directory}: has no arm {name!r}; it has {', '.join(there)}")
    return _arms(run, settings, [name for name in there if wanted is None or name in wanted], progress)


def _arms(run: Run, settings: RunSettings, names: list[str], progress: Progress) -> Iterator[Arm]:
    if names != ["instruct"]:
        inputs = Inputs.read(run.directory / "inputs.json")
        progress.say(f"Loading {settings.model}")
        engine = load_engine(settings, progress, run.recorded("engine"))
        layout = Dialogue(inputs.few_shot, inputs.critique_examples)
        for name in names:
            if name == "base":
                yield Arm(name, engine, layout, dict.fromkeys(settings.seed_numbers))
            elif name != "instruct":
                stored = {seed: _weights(run, settings, seed, PHASES[name]) for seed in settings.seed_numbers}
                adapters: dict[int, Adapter | None] = {s: f"{name}/{s}" for s, place in stored.items() if place}
                engine.load({f"{name}/{s}": place for s, place in stored.items() if place}, optimizer=False)
                yield Arm(name, engine, layout, adapters)
        del engine  # two models may not fit
        gc.collect()
    if "instruct" in names:
        progress.say(f"Loading {settings.instruct or 'the instruct sibling'}")
        engine, adapter = load_instruct(settings, progress)
        yield Arm("instruct", engine, Chat(), dict.fromkeys(settings.seed_numbers, adapter))


def _weights(run: Run, settings: RunSettings, seed: int, phase: str) -> Path | None:
    """Where a seed's adapter lies; on a Tinker service only its own checkpoints load again. None if it was lost."""
    exported = run.directory / f"seed-{seed}/{phase}/adapter"
    if not exported.is_dir() or settings.engine == "local":
        return exported if exported.is_dir() else None
    steps = {"sft": settings.sft, "sl-cai": settings.sl_cai}.get(phase, settings.dpo).steps
    return run.directory / f"seed-{seed}/{phase}/state-{steps}"
