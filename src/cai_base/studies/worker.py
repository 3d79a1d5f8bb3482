"""Executes one run of a study in a separate process: `python -m cai_base.studies.worker STUDY RUN`.

The study's folder has the plan. First the stages that other runs have finished are copied; then the run is finished.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

from cai_base import experiment
from cai_base.errors import Stopped, UserError, exhausted
from cai_base.inputs import Inputs
from cai_base.paths import INPUTS
from cai_base.progress import Progress
from cai_base.settings.validation import stored_settings
from cai_base.store import MANIFEST, Run
from cai_base.studies import folder
from cai_base.studies.shared_stages import Stages, copy_stages, stages

COPIED = "copied stages"
"""The key under which a run records the stages that it copied, each with the run that made it."""


def work(study: Path, name: str, progress: Progress) -> None:
    """Finish one run.

    Raises:
        UserError: a setting is wrong, a check of preflight failed, or the folder has another run.
        Stopped: the run can be continued.
    """
    plan = folder.read_plan(study)
    directory = folder.run_folder(study, name)
    if (directory / MANIFEST).exists():
        folder.check_planned(plan, name, Run.watch(directory))
        current = experiment.resume(directory, progress)
    else:
        current = experiment.begin(plan.settings(name), directory, progress)
    run = current.run
    if not run.progress("results"):
        mine = _stages(run)
        sources = run.recorded(COPIED) or {}
        run.record_on_commit(COPIED, lambda: sources)
        for donor in plan.runs:
            other = folder.watch(study, donor) if donor != name else None
            if other is not None:
                copied = copy_stages(run, mine, other, _stages(other))
                if copied:
                    progress.say(f"{name}: {', '.join(copied)} as in {donor}")
                    sources |= dict.fromkeys(copied, donor)
        current.finish()


def _stages(run: Run) -> Stages:
    return stages(stored_settings(run), Inputs.read(run.directory / INPUTS))


def main() -> int:
    """Execute one run. Returns the exit code with which the study's command would end."""
    study, name = sys.argv[1:]
    os.nice(max(0, folder.NICE - os.getpriority(os.PRIO_PROCESS, 0)))
    try:
        work(Path(study), name, Progress())
    except (UserError, Stopped) as error:
        print(f"{folder.REFUSED if isinstance(error, UserError) else folder.STOPPED}{error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return Stopped.exit_code
    except BaseException as error:
        reason = exhausted(error)
        if reason is None:
            raise
        with suppress(OSError):  # the log may lie on the disk that is full
            print(f"{folder.STOPPED}{reason}", file=sys.stderr, flush=True)
        os._exit(Stopped.exit_code)  # the interpreter's last flush of the log would fail too, with another code
    return 0


if __name__ == "__main__":
    sys.exit(main())
