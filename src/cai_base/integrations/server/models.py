"""The models of a finished run, by the names used in requests."""

from collections.abc import Sequence
from pathlib import Path

from cai_base.integrations.server.forms import WrongRequest
from cai_base.progress import Progress
from cai_base.run.talk import Sampling, Speaker, default_arms, speakers_of_run
from cai_base.settings.validation import stored_settings
from cai_base.store import Run


class Models:
    """The models of the server, by the names used in requests, and the default sampling."""

    def __init__(self, speakers: Sequence[Speaker], sampling: Sampling) -> None:
        self.sampling = sampling
        self.by_name: dict[str, Speaker] = {}
        for one in speakers:
            self.by_name.setdefault(one.arm, one)
            self.by_name[f"{one.arm}:{one.seed}"] = one

    def named(self, name: str) -> Speaker:
        """The model of this name.

        Raises:
            WrongRequest: there is no such model.
        """
        if name not in self.by_name:
            have = ", ".join(self.by_name)
            raise WrongRequest(
                f"model: there is no model {name[:60]!r}; there are {have}", "model", 404, "model_not_found"
            )
        return self.by_name[name]


def run_models(directory: Path, arms: Sequence[str] | None, threads: int | None, progress: Progress) -> Models:
    """The models of a finished run; the default sampling is that of its evaluation.

    Raises:
        UserError: the run is not finished, or it has no such arm.
    """
    settings = stored_settings(Run.open(directory))
    if arms is None:
        arms = (*default_arms(settings.evaluated_arms, settings.base_model), *settings.controls)
    speakers = speakers_of_run(directory, progress, names=arms, threads=threads)
    evaluation = settings.evaluation
    return Models(speakers, Sampling(evaluation.temperature, evaluation.response_tokens, 0))
