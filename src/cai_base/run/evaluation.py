"""The evaluation of a run's arms: their answers to the evaluation prompts, stored with verdicts and fluency."""

import gc
from collections.abc import Mapping, Sequence

from cai_base import arms, paths
from cai_base.arms import Arm
from cai_base.dialogue import Chat
from cai_base.engines import Adapter, Engine
from cai_base.evaluation import fluency
from cai_base.evaluation.judges import Response
from cai_base.evaluation.tasks import LoadedArm
from cai_base.evaluation.tasks.prompts import answer, by_file, judge_again
from cai_base.inputs.prompts import Prompt
from cai_base.models import load_instruct
from cai_base.records import Answer, Judgement
from cai_base.run.start import Session
from cai_base.store import to_lines


class RunEvaluation:
    """Samples, judges and stores the answers of a run's arms, at most once for each arm and step."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def judge(self, items: Sequence[tuple[Prompt, str]]) -> Sequence[Judgement]:
        """The judge's verdicts on responses to prompts."""
        return self._session.judges["judge"].judge([Response.to(prompt, text) for prompt, text in items])

    def answer(self, arm: Arm, step: int | None, models: Mapping[int, Adapter | None]) -> None:
        """Sample and store the answers of an arm, all seeds together, unless they are already stored.

        Args:
            step: the training step of an interim evaluation; None at the end of training.
            models: each seed's adapter, or None for the base model.
        """
        session = self._session
        if models and not session.run.progress(_work(arm, step)):
            loaded = LoadedArm(arm.name, session.engine, session.dialogue, models, arm.draw)
            with session.budget.phase("evaluation"):
                self._answer(arm, step, loaded, base=session.engine)

    def instruct(self) -> None:
        """Sample and store the instruct model's answers in its own chat layout. Its seeds differ in sampling only."""
        session, arm = self._session, arms.arm(arms.INSTRUCT)
        if session.run.progress(_work(arm, None)):
            return
        session.progress.say(f"Loading {session.settings.instruct or 'the instruct sibling'}")
        session.release_engine()  # it is no longer needed, and two models may not fit into memory
        gc.collect()
        with session.budget.phase("evaluation"):
            engine, adapter = load_instruct(session.settings, session.progress)
            session.budget.follow(arm.name, engine.meter)
            loaded = LoadedArm(
                arm.name, engine, Chat(), dict.fromkeys(session.settings.seed_numbers, adapter), arm.draw
            )
            # A separate instruct model replaces the base model in memory, so fluency is not measured.
            self._answer(arm, None, loaded, base=engine if adapter is not None else None)

    def _answer(self, arm: Arm, step: int | None, loaded: LoadedArm, *, base: Engine | None) -> None:
        """Sample and store an arm's answers with their verdicts and, after training, their fluency under `base`."""
        session, prompts, work = self._session, self._session.inputs.evaluation_prompts, _work(arm, step)
        session.budget.check_budget()
        session.progress.say(f"{work}: {len(loaded.models) * len(prompts)} answers")
        settings, judge = session.settings.evaluation, session.judges["judge"]
        by_seed = answer(loaded.engine, loaded.layout, settings, judge, prompts, loaded.models, loaded.draw)
        answers = [one for of_seed in by_seed.values() for one in of_seed]
        if step is None and "second-judge" in session.judges:
            answers = judge_again(session.judges["second-judge"], prompts, answers)
        if step is None and base is not None:
            answers = self._with_fluency(base, answers)
        files = {
            paths.answers(seed, arm.name, file, step): to_lines(one.dump() for one in of_file)
            for n, seed in enumerate(by_seed)
            for file, of_file in by_file(answers[n * len(prompts) : (n + 1) * len(prompts)]).items()
        }
        session.run.commit(work, 1, write=files)

    def _with_fluency(self, base: Engine, answers: Sequence[Answer]) -> list[Answer]:
        """The answers with their mean log-probabilities under the base model."""
        texts = [(one.prompt, one.response) for one in answers]
        likelihoods = fluency.measure(base, self._session.dialogue, texts)
        return [
            one.model_copy(update={"logprob": likelihood.answer, "opening_logprob": likelihood.opening})
            for one, likelihood in zip(answers, likelihoods, strict=True)
        ]


def _work(arm: Arm, step: int | None) -> str:
    return f"evaluation of {arm.name}" + (f" at step {step}" if step else "")
