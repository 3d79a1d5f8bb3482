"""The chat of a watched run: a prompt at a time, the arms' answers side by side, as a page without scripts."""

import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from cai_base.arms import arm
from cai_base.errors import UserError
from cai_base.progress import Progress
from cai_base.report.watch import Exchange
from cai_base.run import talk
from cai_base.run.talk import Sampling, Speaker
from cai_base.settings.validation import stored_settings
from cai_base.store import Run

HISTORY = 20
"""Prompts on the page; older ones are forgotten."""


class WatchChat:
    """The prompts and answers on the page, and the arms that answer. One prompt is answered at a time.

    Args:
        sampling: how answers are drawn; every prompt has draws of its own.
    """

    def __init__(self, speakers: Sequence[Speaker], sampling: Sampling) -> None:
        self.speakers, self._sampling = speakers, sampling
        self.exchanges: deque[Exchange] = deque(maxlen=HISTORY)
        self._turn = 0
        self._engines = threading.Lock()
        self._page = threading.Lock()  # held while the exchanges are read or changed

    def newest(self) -> list[Exchange]:
        """The exchanges as they are now, the newest first."""
        with self._page:
            return list(self.exchanges)

    def ask(self, prompt: str) -> None:
        """Have every arm answer; the answers are then the first of the page.

        Raises:
            UserError: the prompt is empty, does not fit a model's context, or another one is being answered.
        """
        if not prompt.strip():
            raise UserError("the prompt is empty; type one")
        if not self._engines.acquire(blocking=False):
            raise UserError("another prompt is being answered; wait for it, and send this one again")
        try:
            self._turn += 1
            how = self._sampling
            sampling = Sampling(how.temperature, how.max_tokens, talk.draw_seed(how.seed, self._turn))
            samples = talk.answers(self.speakers, prompt, sampling)
        finally:
            self._engines.release()
        names = {one.name: f"{arm(one.arm).label} ({one.name})" for one in self.speakers}
        answers = [(names[name], sample.text.strip()) for name, sample in samples.items()]
        with self._page:
            self.exchanges.appendleft(Exchange(prompt, answers))


def load_chat(directory: Path, seed: int | None, threads: int | None, progress: Progress) -> WatchChat:
    """The chat of a finished run: its arms without the controls, from one seed.

    Raises:
        UserError: the run is not finished, or has no such seed.
    """
    run = Run.open(directory)
    settings = stored_settings(run)
    if not run.progress("results"):
        raise UserError(f"--chat: {directory} is not finished, and its arms cannot answer yet; watch it without --chat")
    seeds = [settings.seed_numbers[0] if seed is None else seed]
    names = talk.default_arms(settings.evaluated_arms, settings.base_model)
    speakers = talk.speakers_of_run(directory, progress, names=names, seeds=seeds, threads=threads)
    evaluation = settings.evaluation
    return WatchChat(speakers, Sampling(evaluation.temperature, evaluation.response_tokens, seeds[0]))
