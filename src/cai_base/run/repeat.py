"""A run that is repeated from its folder alone: `cai-base run --from RUN`.

The folder has the settings as they were used, with the lengths that fit the model, and every input whole. The layout in
which the engine ran the model is restored, as in a resumed run, so that the new run computes what the old one did.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cai_base import paths
from cai_base.engines import Findings
from cai_base.inputs import Inputs
from cai_base.progress import Progress
from cai_base.run.findings import stored_findings
from cai_base.store import Run


@dataclass(frozen=True, slots=True)
class Repeated:
    """What a run that is repeated hands on beside its settings.

    Attributes:
        inputs: as it stored them.
        warnings: with which it began.
        engine: how its engine ran the model; None if it stored nothing about that.
    """

    inputs: Inputs
    warnings: tuple[str, ...]
    engine: Findings | None

    def same_warnings(self, new: Sequence[str], progress: Progress) -> list[str]:
        """The warnings of the run that is repeated, which stand in its results. Others of today are only said."""
        for warning in new:
            if warning not in self.warnings:
                progress.say(f"warning, not of the run that is repeated: {warning}")
        return list(self.warnings)


def read_repeated(directory: Path) -> Repeated:
    """What the run in a directory hands on to one that repeats it.

    Raises:
        UserError: it is no run, or a stored file was changed.
    """
    run = Run.open(directory)
    inputs = Inputs.read(directory / paths.INPUTS)
    warnings = tuple(json.loads((directory / paths.WARNINGS).read_bytes()))
    return Repeated(inputs, warnings, stored_findings(run))
