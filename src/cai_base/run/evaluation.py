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
from cai_base.run.start import Opened
from cai_base.store import to_lines


class RunEvaluation:
    """Asks the arms of one run, each at most once per step."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def judge(self, items: Sequence[tuple[Prompt, str]]) -> Sequence[Judgement]:
        """The judge's verdicts on responses to prompts."""
        return self._opened.judges["judge"].judge([Response.to(prompt, text) for prompt, text in items])

    def answer(self, arm: Arm, step: int | None, models: Mapping[int, Adapter | None]) -> None:
        """Store the answers of an arm, all seeds together, unless they are stored.

        Args:
            step: of an evaluation during training; None at its end.
            models: each seed's adapter, or None for the base model.
        """
        opened = self._opened
        if models and not opened.run.progress(_work(arm, step)):
            loaded = LoadedArm(arm.name, opened.engine, opened.dialogue, models, arm.draw)
            with opened.budget.phase("evaluation"):
                self._answer(arm, step, loaded, base=opened.engine)

    def instruct(self) -> None:
        """Store the answers of the instruct model in its own chat layout. No seed trains it: they are its draws."""
        opened, arm = self._opened, arms.arm("instruct")
        if opened.run.progress(_work(arm, None)):
            return
        opened.progress.say(f"Loading {opened.settings.instruct or 'the instruct sibling'}")
        opened.release_engine()  # its work is done, and two models may not fit
        gc.collect()
        with opened.budget.phase("evaluation"):
            engine, adapter = load_instruct(opened.settings, opened.progress)
            opened.budget.follow(arm.name, engine.meter)
            loaded = LoadedArm(arm.name, engine, Chat(), dict.fromkeys(opened.settings.seed_numbers, adapter), arm.draw)
            # Beside another model the base is no longer there to say how likely it finds the answers.
            self._answer(arm, None, loaded, base=engine if adapter is not None else None)

    def _answer(self, arm: Arm, step: int | None, loaded: LoadedArm, *, base: Engine | None) -> None:
        """Draw the answers of an arm, and store them with their verdicts, and at the end their fluency under `base`."""
        opened, prompts, work = self._opened, self._opened.inputs.evaluation_prompts, _work(arm, step)
        opened.budget.check_budget()
        opened.progress.say(f"{work}: {len(loaded.models) * len(prompts)} answers")
        settings, judge = opened.settings.evaluation, opened.judges["judge"]
        by_seed = answer(loaded.engine, loaded.layout, settings, judge, prompts, loaded.models, loaded.draw)
        answers = [one for of_seed in by_seed.values() for one in of_seed]
        if step is None and "second-judge" in opened.judges:
            answers = judge_again(opened.judges["second-judge"], prompts, answers)
        if step is None and base is not None:
            answers = self._with_fluency(base, answers)
        files = {
            paths.answers(seed, arm.name, file, step): to_lines(one.dump() for one in of_file)
            for n, seed in enumerate(by_seed)
            for file, of_file in by_file(answers[n * len(prompts) : (n + 1) * len(prompts)]).items()
        }
        opened.run.commit(work, 1, write=files)

    def _with_fluency(self, base: Engine, answers: Sequence[Answer]) -> list[Answer]:
        """The answers with how likely the base model finds each."""
        texts = [(one.prompt, one.response) for one in answers]
        likelihoods = fluency.measure(base, self._opened.dialogue, texts)
        return [
            one.model_copy(update={"logprob": likelihood.answer, "opening_logprob": likelihood.opening})
            for one, likelihood in zip(answers, likelihoods, strict=True)
        ]


def _work(arm: Arm, step: int | None) -> str:
    return f"evaluation of {arm.name}" + (f" at step {step}" if step else "")
