"""Repeats a run, given only its folder: `cai-base run --from RUN`.

The folder has the settings as used, with the lengths that fitted the model, and all inputs. The engine's layout is
restored from the findings, as in a resumed run, so that the new run computes the same as the old one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cai_base import paths
from cai_base.engines import Findings
from cai_base.inputs import Inputs
from cai_base.progress import Progress
from cai_base.run.findings import stored_findings
from cai_base.run.results.warnings import preflight_warnings
from cai_base.store import ACCEPT, Run


@dataclass(frozen=True, slots=True)
class Repeated:
    """What a repeated run takes from the earlier run, in addition to the settings.

    Attributes:
        inputs: the stored inputs.
        warnings: the warnings at its start.
        changed: a warning for each of its files that this run takes over and that was changed after it was stored.
        engine: the stored findings of its engine; None if there are none.
    """

    inputs: Inputs
    warnings: tuple[str, ...]
    changed: tuple[str, ...]
    engine: Findings | None

    def same_warnings(self, new: Sequence[str], progress: Progress) -> list[str]:
        """The earlier run's warnings, so that results are equal, and that it was changed. New ones are printed, not
        stored."""
        for warning in self.changed:
            progress.say(f"warning: {warning}")
        for warning in new:
            if warning not in self.warnings:
                progress.say(f"warning (new, the earlier run did not have it): {warning}")
        return [*self.warnings, *self.changed]


def read_repeated(directory: Path) -> Repeated:
    """Read what a repetition needs from the run in a directory.

    Raises:
        UserError: the directory is not a run, or a stored file was changed.
    """
    run = Run.open(directory)
    inputs = Inputs.read(directory / paths.INPUTS)
    changed = [
        f"{name} is that of the repeated run, where it was changed after it was stored, and accepted with {ACCEPT}: "
        "this run repeats what it was changed to"
        for name in (paths.INPUTS, paths.WARNINGS)
        if name in run.accepted
    ]
    return Repeated(inputs, tuple(preflight_warnings(directory)), tuple(changed), stored_findings(run))
