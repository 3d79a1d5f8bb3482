"""The evaluation of a run's arms: their answers to the evaluation prompts, stored with verdicts and fluency."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from cai_base import arms, paths
from cai_base.arms import Arm
from cai_base.dialogue import Chat, Layout
from cai_base.engines import Adapter, Engine
from cai_base.evaluation import fluency
from cai_base.evaluation.judges import Judge
from cai_base.evaluation.tasks.answers import answer
from cai_base.inputs.prompts import Prompt
from cai_base.models import load_instruct
from cai_base.records import Judgement, Verdict
from cai_base.run.start import Opened
from cai_base.store import Record, to_lines


class RunEvaluation:
    """Asks the arms of one run, each at most once per step."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def judge(self, items: Sequence[tuple[Prompt, str]]) -> list[Judgement]:
        """The judge's opinion of responses to prompts."""
        return [
            Judgement(
                verdict=None if one.verdict is None else Verdict(**asdict(one.verdict)),
                unscored=one.unscored,
            )
            for one in self._opened.judges["judge"].judge(items)
        ]

    def answer(self, arm: Arm, step: int | None, models: Mapping[int, Adapter | None]) -> None:
        """Store the answers of an arm, all seeds together, unless they are stored.

        Args:
            step: of an evaluation during training; None at its end.
            models: each seed's adapter, or None for the base model.
        """
        work = f"evaluation of {arm.name}" + (f" at step {step}" if step else "")
        if not self._opened.run.progress(work) and models:
            opened = self._opened
            with opened.budget.phase("evaluation"):
                self._answer(work, arm, step, opened.engine, opened.dialogue, models, base=opened.engine)

    def instruct(self) -> None:
        """Answers of the instruct model in its own chat layout. It is not trained here: its seeds are its draws."""
        opened, arm = self._opened, arms.arm("instruct")
        work = f"evaluation of {arm.name}"
        if opened.run.progress(work):
            return
        opened.progress.say(f"Loading {opened.settings.instruct or 'the instruct sibling'}")
        opened.release_engine()  # its work is done, and two models may not fit
        gc.collect()
        with opened.budget.phase("evaluation"):
            engine, adapter = load_instruct(opened.settings, opened.progress)
            opened.budget.follow(arm.name, engine.meter)
            models = dict.fromkeys(opened.settings.seed_numbers, adapter)
            # Beside another model the base is no longer there to say how likely it finds the answers.
            base = engine if adapter is not None else None
            self._answer(work, arm, None, engine, Chat(), models, base=base)

    def _answer(
        self,
        work: str,
        arm: Arm,
        step: int | None,
        engine: Engine,
        layout: Layout,
        models: Mapping[int, Adapter | None],
        *,
        base: Engine | None,
    ) -> None:
        """Draw the answers of an arm, and store them with their verdicts, and their fluency under `base`, as `work`."""
        opened, prompts = self._opened, self._opened.inputs.evaluation_prompts
        opened.budget.check_budget()
        opened.progress.say(f"{work}: {len(models) * len(prompts)} answers")
        settings = opened.settings.evaluation
        by_seed = answer(engine, layout, settings, opened.judges["judge"], prompts, models, arm.draw)
        answers = [record for tasks in by_seed.values() for lines in tasks.values() for record in lines]
        if step is None and base is not None:
            fluency.measure(base, opened.dialogue, answers)
        if step is None and "second-judge" in opened.judges:
            self._judge_again(opened.judges["second-judge"], answers)
        files = {
            paths.answers(seed, arm.name, task, step): to_lines(lines)
            for seed, tasks in by_seed.items()
            for task, lines in tasks.items()
        }
        opened.run.commit(work, 1, write=files)

    def _judge_again(self, judge: Judge, answers: list[Record]) -> None:
        """Put what the second judge says of the answers beside them."""
        prompts = {prompt.id: prompt for prompt in self._opened.inputs.evaluation_prompts}
        judgements = judge.judge([(prompts[one["id"]], one["response"]) for one in answers])
        for one, judgement in zip(answers, judgements, strict=True):
            one["second"] = judgement.record()
