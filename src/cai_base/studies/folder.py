"""A study's folder: its plan, its runs, their logs, and its results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cai_base.errors import UserError
from cai_base.reading import quote, read_record
from cai_base.records import StudyCell, StudyContrast, StudyPlan
from cai_base.settings.schema import RunSettings
from cai_base.settings.validation import Source, check_table, stored_settings, validated
from cai_base.store import MANIFEST, Run, check_folder_to_write, make_folder, to_json, write_atomic
from cai_base.store.files import differences, unfinished
from cai_base.studies.checks import check_plan
from cai_base.studies.design import Design
from cai_base.studies.plan import PlannedRun

PLAN, RESULTS, RUNS = "plan.json", "study.json", "runs"
FITTED = (("revision", "response-tokens"), ("revision", "critique-tokens"), ("evaluation", "response-tokens"))
"""The settings that a run makes smaller where the model's context has no room for more."""
TEXTS = ("question", "about")
"""The texts of a plan, by the names of their fields."""
NICE = 10
"""The niceness of a study's processes, because a study may run for hours beside other work."""
REFUSED, STOPPED = "cai-base: refused: ", "cai-base: stopped: "
"""Prefixes of the last line of a worker's log, which says why it ended early."""


def run_folder(study: Path, name: str) -> Path:
    """The folder of one run."""
    return study / RUNS / name


def watch(study: Path, name: str) -> Run | None:
    """One run, opened without its lock, because its process may be working on it; None if it has not begun."""
    directory = run_folder(study, name)
    return Run.watch(directory) if (directory / MANIFEST).exists() else None


def log_file(study: Path, name: str) -> Path:
    """The output of a run's process."""
    return study / RUNS / f"{name}.log"


class StoredPlan:
    """The stored plan of a study."""

    def __init__(self, record: StudyPlan, file: Path) -> None:
        self.record, self._file = record, file

    @property
    def runs(self) -> list[str]:
        """The names of the runs, in order."""
        return list(self.record.runs)

    def settings(self, name: str) -> RunSettings:
        """The settings of one run.

        Raises:
            UserError: they are not valid in this version.
        """
        table = self.record.runs[name]
        check_table(self._file, table)
        return validated(table, Source(None, self._file, table))


def check_planned(plan: StoredPlan, name: str, run: Run) -> None:
    """Check that the run in a run's folder has the settings that the plan gives to this run.

    A run fits the lengths of answers and critiques to its model's context, so they may be smaller than planned.

    Raises:
        UserError: it is another run, such as that of another level, put or copied here.
    """
    planned = plan.settings(name).model_dump(mode="json", by_alias=True)
    own = stored_settings(run).model_dump(mode="json", by_alias=True)  # with defaults: see `open_folder`
    for section, field in FITTED:
        if own[section][field] < planned[section][field]:
            planned[section][field] = own[section][field]
    for field, expected, has in differences(planned, own):
        raise UserError(
            f"{run.directory}: {field} is {has} in this run and {expected} in the study's {PLAN}, so it is not the run "
            f"{quote(name)}; put that run back, or remove the folder and give the study's command again"
        )


def read_plan(study: Path) -> StoredPlan:
    """The plan of a study.

    Raises:
        UserError: the folder has no plan, or one that names what there is not.
    """
    remedy = "give the folder of a study, or start one in a new folder"
    record = read_record(study / PLAN, StudyPlan, "the plan of a study", remedy)
    check_plan(study / PLAN, record)
    return StoredPlan(record, study / PLAN)


def plan_record(design: Design, runs: tuple[PlannedRun, ...]) -> StudyPlan:
    """The plan of a study in its stored form."""
    names = {place: run.name for run in runs for place in run.cells}
    return StudyPlan(
        schema=1,
        study=design.name,
        question=design.question,
        about=design.about,
        factors={factor: tuple(levels) for factor, levels in design.factors.items()},
        primary=runs[0].settings.evaluation.primary,
        cells=tuple(
            StudyCell(levels=dict(cell.levels), arm=cell.arm, run=names[place])
            for place, cell in enumerate(design.cells)
        ),
        contrasts=tuple(
            StudyContrast(name=one.name, first=one.first, second=one.second, scale=one.scale)
            for one in design.comparisons
        ),
        runs={run.name: run.settings.model_dump(mode="json", by_alias=True) for run in runs},
    )


def open_folder(study: Path, record: StudyPlan) -> bool:
    """Start a study in this folder, or continue the one in it. Returns whether it continues one.

    A study may have gained comparisons, and have other texts: its runs do not depend on them. The plan is then
    replaced, and says which comparisons were added after the runs had begun.

    Raises:
        UserError: the folder has other files, or a study with another plan.
    """
    check_folder_to_write(study)
    path = study / PLAN
    if path.exists():
        stored = read_plan(study)
        # With their defaults: a version of before may not have had a setting.
        runs = {name: stored.settings(name).model_dump(mode="json", by_alias=True) for name in stored.runs}
        different = _difference(_fixed({**stored.record.dump(), "runs": runs}), _fixed(record.dump()))
        if different is not None:
            raise UserError(
                f"--out {study}: has a study with another {different}; give the flags with which it was started, or a "
                "new folder"
            )
        contrasts = _continued(study, stored.record.contrasts, record.contrasts)
        texts = {name: getattr(record, name) for name in TEXTS}
        renewed = stored.record.model_copy(update={**texts, "contrasts": contrasts})
        if renewed != stored.record:
            write_atomic(path, to_json(renewed.dump()))
        return True
    if study.exists() and {*study.iterdir()} - {unfinished(path)}:
        raise UserError(f"--out {study}: exists and is not the folder of a study; give a new folder")
    make_folder(study)
    write_atomic(path, to_json(record.dump()))
    return False


def _fixed(plan: dict[str, Any]) -> dict[str, Any]:
    """What a study is continued by: all but its texts and its comparisons."""
    return {name: value for name, value in plan.items() if name not in (*TEXTS, "contrasts")}


def _continued(study: Path, stored: Sequence[StudyContrast], new: Sequence[StudyContrast]) -> tuple[StudyContrast, ...]:
    """The new comparisons; those that the plan did not have are marked, if a run has begun.

    Raises:
        UserError: one is gone. Without it the correction for the others would be smaller than was planned.
    """
    before = {_cells(one): one.later for one in stored}
    after = {_cells(one) for one in new}
    for one in stored:
        if _cells(one) not in after:
            raise UserError(
                f"--out {study}: the study no longer compares {quote(one.name)}, which counts in the correction for "
                "the others; keep it, or give a new folder"
            )
    begun = (study / RUNS).exists()
    return tuple(one.model_copy(update={"later": True}) if before.get(_cells(one), begun) else one for one in new)


def _cells(contrast: StudyContrast) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """What a comparison is of; its name may change."""
    return contrast.first, contrast.second, contrast.scale


def _difference(stored: Any, new: Any, name: str = "") -> str | None:
    """The dotted name of the first value that differs."""
    if not isinstance(stored, dict) or not isinstance(new, dict):
        return None if stored == new else name
    for key in {**stored, **new}:
        different = _difference(stored.get(key), new.get(key), f"{name}.{key}" if name else key)
        if different is not None:
            return different
    return None
