"""A run from its first phase to its results: the phases in their order, as in the paper.

    base model -> SFT on a few human-written answers -> critique and revision -> preference pairs -> DPO -> evaluation

All seeds go through a phase together, and each finished unit of work is stored. Each phase has its own file in
`method/`; `run/start.py` begins and resumes runs.
"""

from collections.abc import Mapping
from pathlib import Path

from cai_base import arms, paths
from cai_base.arms import Arm
from cai_base.engines import Adapter
from cai_base.inputs import Inputs
from cai_base.method.dpo import DpoPhase
from cai_base.method.feedback import FeedbackPhase
from cai_base.method.pairs import Pairs
from cai_base.method.phase import Phase, Workbench
from cai_base.method.responses import UnrevisedResponses
from cai_base.method.revision import RevisionPhase
from cai_base.method.sft import Sft, SftOnPairs
from cai_base.method.training import Start
from cai_base.progress import Progress
from cai_base.run import start
from cai_base.run.evaluation.own import RunEvaluation
from cai_base.run.repeat import Repeated
from cai_base.run.results import run as results
from cai_base.run.spending import cost
from cai_base.settings.feedback import Feedback
from cai_base.settings.schema import Revision, RunSettings
from cai_base.store import to_json, write_atomic


def phases(settings: RunSettings, inputs: Inputs) -> list[Phase]:
    """The phases of a run, in order."""
    arms_to_train = [arms.arm(name) for name in (*settings.trained_arms, *settings.controls)]
    return [
        Sft(arms.arm(arms.BASELINE), settings.sft, inputs.examples),
        RevisionPhase(settings.revision, inputs.prompts, inputs.constitution, inputs.refusal_openers),
        Pairs("revisions", None, "chains", held_out=settings.dpo.held_out),
        *(phase for arm in arms_to_train for phase in _phases_of(arm, settings, inputs)),
    ]


def _phases_of(arm: Arm, settings: RunSettings, inputs: Inputs) -> list[Phase]:
    """The phases that an arm needs in addition to SFT and the run's own chains and pairs."""
    own: list[Phase] = []
    steps, pairs = settings.sft.steps, settings.dpo.pairs
    if arm.pairs is not None and arm.owner is not None:
        if arm.source is not None:
            own.append(_source(arm, arm.owner, settings.revision, settings.feedback, inputs))
        own.append(Pairs(arm.pairs, arm.owner, arm.source, held_out=settings.dpo.held_out))
    match arm.section:
        case "sft" if arm.name != arms.BASELINE:
            draws, refusals = arm.name if arm.null_of else arms.SFT, inputs.refusals if arm.replaces else ()
            own.append(Sft(arm, settings.sft, inputs.examples, draws, refusals))
        case "dpo" if arm.chosen_only:
            own.append(SftOnPairs(arm, settings.dpo, steps, pairs, draws="dpo"))
        case "dpo":
            before = arms.arm(arm.starts_from)
            start = Start(before.folder or before.name, settings.training(before.section or "sft").steps)
            own.append(DpoPhase(arm, settings.dpo, start))
        case "sl_cai":
            draws = "dpo" if settings.sl_cai.as_dpo else arm.folder or arm.name
            own.append(SftOnPairs(arm, settings.training("sl_cai"), steps, pairs, draws))
    return own


def _source(arm: Arm, owner: str, revision: Revision, feedback: Feedback, inputs: Inputs) -> Phase:
    """The phase that makes the source of an arm's pairs: chains, responses or comparisons."""
    prompts, openers = inputs.prompts, inputs.refusal_openers
    if arm.source == "chains":
        constitution, examples = {
            arms.PLACEBO: (inputs.placebo, inputs.placebo_examples),
            arms.NO_PRINCIPLE: (inputs.no_principle, None),
        }[arm.constitution or ""]
        assert constitution is not None
        return RevisionPhase(revision, prompts, constitution, openers, owner, examples)
    if arm.source == "responses":
        return UnrevisedResponses(revision, prompts, openers, owner)
    requests, solved = inputs.comparison_requests, inputs.solved_comparisons
    answering = arms.arm(arm.starts_from)
    return FeedbackPhase(
        feedback,
        prompts,
        requests,
        solved,
        revision.response_tokens,
        revision.unit,
        answering.folder or answering.name,
        owner,
    )


class Experiment:
    """One run, from its current state to its results.

    Args:
        session: of a run that was begun or resumed.
    """

    def __init__(self, session: start.Session) -> None:
        self.session, self.settings, self.run = session, session.settings, session.run
        self._evaluation = RunEvaluation(session)

    def finish(self) -> None:
        """Do all work that is not stored yet, and write the results.

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
            self._summarise(failed)

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
                self._evaluate(arm.name, None, {seed: f"{arm.adapters_of}/{seed}" for seed in seeds})
        return bench.failed

    def _evaluate(self, arm: str, step: int | None, models: Mapping[int, Adapter | None]) -> None:
        """Evaluate an arm at a step of its training, or, with None, at its end."""
        self._evaluation.answer(arms.arm(arm), step, models)

    def _summarise(self, failed: Mapping[str, Mapping[int, str]]) -> None:
        """Write `results.json` and `usage.json`."""
        session = self.session
        tokens = results.tokens(self.run, self.settings.seed_numbers, self.settings.evaluated_arms)
        usage = {**self.run.usage, "tokens": tokens, "spent": session.budget.spending().dump()}
        write_atomic(self.run.directory / paths.USAGE, to_json(usage))
        content = results.collect(self.run, self.settings, session.inputs, failed)
        self.run.commit("results", 1, write={paths.RESULTS: to_json(content.dump())})
        session.budget.close()


def begin(settings: RunSettings, out: Path, progress: Progress, repeated: Repeated | None = None) -> Experiment:
    """Check everything that can be checked before the run begins, and create the run's directory.

    Args:
        repeated: the run that this one repeats, if it repeats one.

    Raises:
        UserError: an input is wrong, the model cannot be loaded, `out` exists, or a check failed that `--accept` does
            not name.
    """
    return Experiment(start.begin(settings, out, progress, phases, repeated))


def resume(directory: Path, progress: Progress, max_cost: float | None = None) -> Experiment:
    """Open a run that was stopped.

    Args:
        max_cost: a new cost limit in dollars; None for the run's own.

    Raises:
        UserError: the directory is not a run, or its configuration, a stored file or the base model was changed.
    """
    return Experiment(start.resume(directory, progress, max_cost))


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
