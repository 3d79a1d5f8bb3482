"""Loads the arms of a finished run, to evaluate them on another suite or in styles."""

import gc
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cai_base import arms, paths
from cai_base.arms import Arm
from cai_base.dialogue import Chat
from cai_base.embedded import EMBEDDED
from cai_base.engines import Adapter, Engine
from cai_base.errors import UserError
from cai_base.evaluation.tasks import LoadedArm
from cai_base.inputs import Inputs
from cai_base.method.interpreter import itself
from cai_base.method.phase import adapter_name
from cai_base.models import load_engine, load_instruct
from cai_base.progress import Progress
from cai_base.reading import quote, suggestion
from cai_base.run.findings import stored_findings
from cai_base.run.inference import interpreter_of, layout_of, revision_of
from cai_base.run.stored import check_finished, stored_adapter
from cai_base.settings.choices import InstructChoice, ModelChoice, Models, Scope
from cai_base.settings.engines import engine_kind
from cai_base.settings.schema import Prompted, Revision
from cai_base.settings.validation import stored_settings
from cai_base.store import Run


def load_arms(
    directory: Path, progress: Progress, names: Collection[str] | None = None, threads: int | None = None
) -> Iterator[LoadedArm]:
    """The arms of a run: the base model first, the instruct model last, after the base model's engine is released.

    An arm has no adapter for a seed that failed in the arm's training.

    Args:
        names: arm names; by default all arms that the run evaluated. `instruct` is available for every run on the
            embedded model, which has an instruct sibling.
        threads: CPU threads; by default as in the run.

    Raises:
        UserError: the run is not finished, it has no such arm, or its models cannot be loaded.
    """
    run = Run.watch(directory)
    check_finished(run)
    settings = stored_settings(run)
    if threads is not None:
        settings = settings.model_copy(update={"threads": threads})
    available = available_arms(settings.evaluated_arms, settings.base_model)
    check_arms(names or (), available, f"{directory}:")
    run.verify()  # after the names are checked, because the hashes of all files take long
    selection = settings.evaluated_arms if names is None else names
    chosen = [name for name in available if name in selection]
    revision, prompted = settings.answer_revision, settings.prompted
    return _load(run, settings.scope, settings.models, revision, prompted, chosen, progress)


def available_arms(evaluated: Sequence[str], base: ModelChoice) -> list[str]:
    """The arms of a run that can be loaded: those it evaluated and, for the embedded model, the instruct sibling."""
    has_sibling = base.model == EMBEDDED and not engine_kind(base.engine).served
    return list(dict.fromkeys([*evaluated, *([arms.INSTRUCT] if has_sibling else [])]))


def check_arms(names: Iterable[str], available: Sequence[str], place: str) -> None:
    """Check that a run has these arms.

    Args:
        place: names the flag and the run, as the beginning of a sentence that ends with "has no arm".

    Raises:
        UserError: it has no such arm.
    """
    for name in names:
        if name not in available:
            meant = "" if name in arms.ARMS else suggestion(name, available)
            raise UserError(
                f"{place} has no arm {quote(name)}; {f'{meant} It' if meant else 'it'} has {', '.join(available)}"
            )


def _load(
    run: Run,
    scope: Scope,
    chosen: Models,
    revision: Revision,
    prompted: Prompted,
    names: Sequence[str],
    progress: Progress,
) -> Iterator[LoadedArm]:
    of_base = [arm for arm in map(arms.arm, names) if arm.group != "other"]
    seeds, base = scope.seeds, chosen.base
    if of_base:
        inputs = Inputs.read(run.directory / paths.INPUTS)
        progress.say(f"Loading {base.model}")
        engine = load_engine(base, progress, stored_findings(run))
        # A Tinker service loads only its own checkpoints, not exported adapters.
        states = scope.steps if engine_kind(base.engine).served else {}
        for arm in of_base:
            models = _adapters(run, seeds, arm, states, engine)
            revises = arm.inference == "revision"
            interpreter = interpreter_of(chosen.interpreter, engine, progress) if revises else itself(engine)
            revise = revision_of(arm, revision, inputs, engine, interpreter)
            layout = layout_of(arm, inputs, prompted)
            yield LoadedArm(arm.name, engine, layout, models, arm.draw, revise=revise)
        del engine  # two models may not fit into memory
        gc.collect()
    if arms.INSTRUCT in names:
        yield load_instruct_arm(chosen.instruct, seeds, progress)


def load_instruct_arm(instruct: InstructChoice, seeds: Sequence[int], progress: Progress) -> LoadedArm:
    """The instruct model in its chat layout. Its seeds differ only in sampling."""
    progress.say(f"Loading {instruct.model or 'the instruct sibling'}")
    engine, adapter = load_instruct(instruct, progress)
    arm = arms.arm(arms.INSTRUCT)
    return LoadedArm(arm.name, engine, Chat(), dict.fromkeys(seeds, adapter), arm.draw)


def _adapters(
    run: Run, seeds: Sequence[int], arm: Arm, states: Mapping[str, int], engine: Engine
) -> dict[int, Adapter | None]:
    """Each seed's adapter, loaded into the engine; None if the arm is the base model itself.

    Args:
        states: by arm, the step whose state is loaded instead of the exported adapter.
    """
    if arm.group == "start":
        return dict.fromkeys(seeds)
    trained = arms.arm(arm.adapters_of or arm.name)
    assert trained.folder is not None
    present = {}
    for seed in seeds:
        exported = stored_adapter(run, seed, trained.folder)
        if exported is not None:
            step = states.get(trained.name)
            present[seed] = exported if step is None else run.directory / paths.state(seed, trained.folder, step)
    engine.load({adapter_name(arm.name, seed): folder for seed, folder in present.items()}, optimizer=False)
    return {seed: adapter_name(arm.name, seed) for seed in present}
