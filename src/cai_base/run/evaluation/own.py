"""The evaluation of a run's own arms: their answers to the evaluation prompts, with verdicts and fluency."""

import gc
from collections.abc import Mapping, Sequence
from functools import partial

from cai_base import arms, paths
from cai_base.arms import Arm
from cai_base.engines import Adapter, Engine
from cai_base.evaluation import judge_errors
from cai_base.evaluation.fluency import Ruler
from cai_base.evaluation.judges import Response
from cai_base.evaluation.metrics import means
from cai_base.evaluation.tasks import LoadedArm, pairwise
from cai_base.evaluation.tasks.pairwise import PairwiseTask
from cai_base.evaluation.tasks.prompts import METRICS, PromptsTask
from cai_base.evaluation.tasks.suite_forms import SuitePrompt
from cai_base.inputs.kinds import ANSWER_FILES, PROMPT_KINDS
from cai_base.inputs.prompts import Prompt
from cai_base.progress import EVALUATION
from cai_base.records import ATTACK, MAIN_METRICS, Judgement
from cai_base.run.evaluation.flow import Evaluation, Files, ask
from cai_base.run.finished_run import load_instruct_arm
from cai_base.run.inference import layout_of, revision_of
from cai_base.run.start import Session
from cai_base.run.stored import answers_of, evaluation_work
from cai_base.store import to_lines

LABELLED = "judge on labelled answers"
"""The work of measuring the judge."""


class RunEvaluation:
    """Samples, judges and stores the answers of a run's arms, once per arm and step."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._items = [SuitePrompt(prompt, prompt.family) for prompt in session.inputs.evaluation_prompts]
        self._number, self._times = 0, session.settings.scope.evaluations

    def judge(self, items: Sequence[tuple[Prompt, str]]) -> Sequence[Judgement]:
        """The judge's verdicts on responses to prompts."""
        return self._session.judges["judge"].judge([Response.to(prompt, text) for prompt, text in items])

    def measure_judge(self) -> None:
        """Ask the judge about the labelled answers, where there are any, unless what it said is already stored."""
        session = self._session
        labels = session.inputs.labels
        if labels is None or session.run.progress(LABELLED):
            return
        session.progress.say(f"{LABELLED}: {len(labels.answers)} of {labels.name}")
        with session.budget.phase(EVALUATION):
            session.budget.check_budget()
            judgements = session.judges["judge"].judge(judge_errors.responses(labels.answers))
        session.run.commit(LABELLED, 1, write={paths.JUDGE_LABELS: to_lines(one.dump() for one in judgements)})

    def answer(self, arm: Arm, step: int | None, models: Mapping[int, Adapter | None]) -> None:
        """Sample and store the answers of an arm, all seeds together, unless they are already stored.

        At the end of training, the answers also get their fluency and, if there is a second judge, its verdicts.

        Args:
            step: the training step of an interim evaluation; None at the end of training.
            models: each seed's adapter, or None for the base model.
        """
        session = self._session
        if not models:
            return
        self._number += 1
        outlook = session.progress.outlook
        if self._done(arm, step):
            if outlook is not None:
                outlook.note(EVALUATION, self._number / self._times)
        else:
            revise = revision_of(
                arm, session.settings.answer_revision, session.inputs, session.engine, session.interpreter
            )
            layout = layout_of(arm, session.inputs, session.settings.prompted)
            arm_models = LoadedArm(arm.name, session.engine, layout, models, arm.draw, revise=revise)
            ruler = self._ruler(session.engine) if step is None else None
            with session.budget.phase(EVALUATION):
                self._ask(arm, step, arm_models, ruler)
            if outlook is not None:
                outlook.note(EVALUATION, self._number / self._times)

    def instruct(self) -> None:
        """Sample and store the instruct model's answers."""
        session, arm = self._session, arms.arm(arms.INSTRUCT)
        if self._done(arm, None):
            return
        session.release_engine()  # no longer needed; two models may not fit into memory
        gc.collect()
        with session.budget.phase(EVALUATION):
            arm_models = load_instruct_arm(
                session.settings.instruct_model, session.settings.seed_numbers, session.progress
            )
            session.budget.follow(arm.name, arm_models.engine.meter)
            # A separate instruct model replaces the base model in memory, so fluency is not measured.
            is_adapter = any(adapter is not None for adapter in arm_models.models.values())
            self._ask(arm, None, arm_models, self._ruler(arm_models.engine) if is_adapter else None)

    def compare_helpfulness(self) -> None:
        """Have the judge compare every arm's answers to benign prompts with SFT's, unless that is stored."""
        session = self._session
        judge = session.settings.judge_choices["judge"].judge
        if judge.kind.compares and not session.run.progress(pairwise.NAME):
            session.progress.say("Comparing answers to benign prompts with those of SFT")
            with session.budget.phase(EVALUATION):
                session.budget.check_budget()
                scope = session.settings.scope
                task = PairwiseTask.of(scope.arms, scope.seeds, session.inputs.evaluation_prompts)
                verdicts = task.verdicts(partial(answers_of, session.run), session.judges["judge"])
                session.run.commit(pairwise.NAME, 1, write={paths.PAIRWISE: to_lines(one.dump() for one in verdicts)})

    def _ruler(self, engine: Engine) -> Ruler:
        choice = self._session.settings.judge_choices["judge"]
        return Ruler(engine, self._session.dialogue, elsewhere=not choice.judge.kind.compares)

    def _done(self, arm: Arm, step: int | None) -> bool:
        return bool(self._session.run.progress(evaluation_work(arm.name, step)))

    def _ask(self, arm: Arm, step: int | None, arm_models: LoadedArm, ruler: Ruler | None) -> None:
        session = self._session
        session.budget.check_budget()
        judges = session.judges if step is None else {"judge": session.judges["judge"]}
        evaluation = Evaluation(
            PromptsTask(self._items, len(self._items), ruler),  # one unit
            session.run,
            lambda name: evaluation_work(name, step),
            Files(
                lambda seed, name, file: paths.answers(seed, name, file, step),
                ANSWER_FILES,
                lambda answer: PROMPT_KINDS[answer.kind].file,
            ),
        )
        ask(evaluation, arm_models, session.settings.evaluation, judges, session.progress)
        answers = [one for of_seed in evaluation.stored(arm.name, list(arm_models.models)) for one in of_seed or ()]
        values = means(answers)
        if ATTACK in values:
            session.progress.standing = f"{_in_words(ATTACK, values[ATTACK])} ({arm.name})"
        figures = ", ".join(_in_words(name, value) for name, value in values.items() if name in MAIN_METRICS)
        session.progress.say(f"{evaluation_work(arm.name, step)}: {figures or 'unscored'}")


def _in_words(metric: str, value: float) -> str:
    about = METRICS[metric]
    return f"{about.label.lower()} " + (f"{100 * value:.1f} %" if about.scale == "rate" else f"{value:.2f}")
