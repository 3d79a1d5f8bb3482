"""A run from its first phase to its results: the phases in their order, as in the paper.

    base model -> SFT on a few human-written answers -> critique and revision -> preference pairs -> DPO -> evaluation

All seeds go through a phase together, and each finished unit of work is stored. Each phase has its own file in
`method/`; `run/start.py` begins and resumes runs.
"""

from collections.abc import Mapping
from pathlib import Path

from cai_base import arms
from cai_base.engines import Adapter
from cai_base.inputs import Inputs
from cai_base.method.arm_phases import phases_of
from cai_base.method.pairs import Pairs
from cai_base.method.phase import Phase, Workbench, adapter_name
from cai_base.method.revision import RevisionPhase
from cai_base.progress import Progress
from cai_base.run import start
from cai_base.run.evaluation.own import RunEvaluation
from cai_base.run.repeat import Repeated
from cai_base.run.results import run as results
from cai_base.run.spending import cost
from cai_base.settings.schema import RunSettings


def phases(settings: RunSettings, inputs: Inputs) -> list[Phase]:
    """The phases of a run, in order. Its own chains and pairs are among them if an arm needs them."""
    others = [arms.arm(name) for name in (*settings.trained_arms, *settings.controls) if name != arms.BASELINE]
    own: list[Phase] = [
        RevisionPhase.of_run(settings.revision, inputs),
        Pairs("revisions", None, "chains", held_out=settings.dpo.held_out),
    ]
    return [
        *phases_of(arms.arm(arms.BASELINE), settings, inputs),
        *(own if any(arm.on_run_pairs for arm in others) else ()),
        *(phase for arm in others for phase in phases_of(arm, settings, inputs)),
    ]


class Experiment:
    """One run, from its current state to its results; `begin` and `resume` return it."""

    def __init__(self, session: start.Session) -> None:
        """Of a run that was begun or resumed."""
        self.session, self.settings, self.run = session, session.settings, session.run
        self._evaluation = RunEvaluation(session)

    def finish(self) -> None:
        """Do all work that is not stored yet, and write `results.json` into the run's directory.

        Each finished unit of work is stored, so that a run that stops at any point can be resumed.

        Raises:
            UserError: another process is working on this run.
            Stopped: the run has reached its cost limit, or a judge or service stopped responding.
        """
        with self.run.locked():
            self._evaluation.measure_judge()
            self._evaluate(arms.BASE, None, dict.fromkeys(self.settings.seed_numbers))
            failed = self._train()
            if arms.INSTRUCT in self.settings.evaluated_arms:
                self._evaluation.instruct()
            self._evaluation.compare_helpfulness()
            results.write(self.run, self.settings, self.session.inputs, failed, self.session.budget.spending())
            self.session.budget.close()

    def _train(self) -> Mapping[str, Mapping[int, str]]:
        """Run every phase in order. Returns the seeds that failed in each phase, with the reasons."""
        session = self.session
        bench = Workbench(
            engine=session.engine,
            run=session.run,
            dialogue=session.dialogue,
            seeds=self.settings.seed_numbers,
            evaluate_every=self.settings.evaluate_every,
            evaluate=self._evaluate,
            judge=self._evaluation.judge,
            budget=session.budget,
            progress=session.progress,
            interpreter=session.interpreter,
        )
        for phase in phases(self.settings, session.inputs):
            phase.run(bench)
        for arm in (arms.arm(name) for name in self.settings.evaluated_arms):
            if arm.adapters_of is not None:
                seeds = bench.remaining(arm.adapters_of)
                self._evaluate(arm.name, None, {seed: adapter_name(arm.adapters_of, seed) for seed in seeds})
        return bench.failed

    def _evaluate(self, arm: str, step: int | None, models: Mapping[int, Adapter | None]) -> None:
        """Evaluate an arm at a step of its training, or, with None, at its end."""
        self._evaluation.answer(arms.arm(arm), step, models)


def begin(settings: RunSettings, out: Path | str, progress: Progress | None = None) -> Experiment:
    """Check everything that can be checked before the run begins, and create the run's directory.

    Args:
        settings: as from `default_settings`.
        out: the run's directory, which must not exist.
        progress: shows messages and progress bars, as `cai-base run` does; None shows nothing.

    Returns:
        The run, of which nothing is trained yet: `begin(settings, out).finish()` makes the whole run.

    Raises:
        UserError: an input is wrong, the model cannot be loaded, `out` exists, or a check failed that
            `settings.accept` does not name.
    """
    return Experiment(start.begin(settings, Path(out), progress or Progress.quiet(), phases))


def repeat(repeated: Repeated, settings: RunSettings, out: Path, progress: Progress) -> Experiment:
    """`begin`, for a run that repeats another, whose settings these are."""
    return Experiment(start.begin(settings, out, progress, phases, repeated))


def resume(directory: Path | str, progress: Progress | None = None, max_cost: float | None = None) -> Experiment:
    """Open a run that was stopped; its `finish` does what is left.

    Args:
        directory: of the run.
        progress: shows messages and progress bars; None shows nothing.
        max_cost: a new cost limit in dollars; None for the run's own.

    Raises:
        UserError: the directory is not a run, or its configuration, a stored file or the base model was changed.
    """
    return Experiment(start.resume(Path(directory), progress or Progress.quiet(), max_cost))


def examine(settings: RunSettings, out: Path, progress: Progress) -> start.Examination:
    """Make the checks that precede every run. Nothing is trained or stored.

    Raises:
        UserError: an input is wrong, the model cannot be loaded, or `out` exists.
    """
    return start.examine(settings, out, progress, phases)


def estimate_cost(settings: RunSettings, *, as_json: bool) -> str:
    """An upper bound on the cost of a run, as a table or as JSON. Loads only the model's tokenizer.

    Raises:
        UserError: an input is wrong, or the tokenizer cannot be loaded.
    """
    return cost.report(settings, phases, as_json=as_json)
