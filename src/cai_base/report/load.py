"""What a run's directory holds for the report, read as it was stored."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai_base.errors import UserError
from cai_base.inputs.prompts import ANSWER_FILES
from cai_base.run.results import evaluation_folder
from cai_base.store import Record, read_lines

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Stored:
    """A finished run.

    Attributes:
        principles: each principle's critique request.
    """

    directory: Path
    results: Record
    config: Record
    principles: dict[str, str]

    @property
    def seeds(self) -> list[int]:
        """The run's seeds, those that failed included."""
        return list(self.results["seeds"])

    @property
    def trained_arms(self) -> list[str]:
        """The arms that were trained, in the order of the table."""
        return [arm for arm in self.results["arms"] if arm in ("sft", "cai", "sl-cai")]

    def metrics(self, phase: str) -> dict[int, list[Record]]:
        """The recorded training steps of a phase for every seed that has any."""
        lines = {seed: list(self._lines(f"seed-{seed}/{phase}/metrics.jsonl")) for seed in self.seeds}
        return {seed: steps for seed, steps in lines.items() if steps}

    def chains(self) -> Iterator[tuple[int, Record]]:
        """Every revision chain with its seed."""
        for seed in self.seeds:
            for chain in self._lines(f"seed-{seed}/revision.jsonl"):
                yield seed, chain

    def answers(self, arm: str, seed: int) -> Iterator[Record]:
        """An arm's final evaluation answers for one seed; none if the seed failed before."""
        for task in ANSWER_FILES:
            yield from self._lines(f"{evaluation_folder(seed, arm, None)}/{task}.jsonl")

    def _lines(self, name: str) -> Iterator[Record]:
        path = self.directory / name
        if path.exists():
            yield from read_lines(path)


def load(directory: Path) -> Stored:
    """Read a run's directory.

    Raises:
        UserError: the directory holds no results, or not those of this version.
    """
    results = _read(directory / "results.json", f"finish the run first: cai-base resume {directory}")
    if results.get("schema") != SCHEMA:
        raise UserError(
            f"{directory / 'results.json'}: schema is {results.get('schema')!r} and this version reads {SCHEMA}; "
            "use the version of cai-base that made the run"
        )
    inputs = _read(directory / "inputs.json", "restore it, or give a directory that `cai-base run` made")
    return Stored(
        directory,
        results,
        _read(directory / "config.json", "restore it, or give a directory that `cai-base run` made"),
        {one["name"]: one["critique_request"] for one in inputs["constitution"]["principles"]},
    )


def _read(path: Path, remedy: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: is not there; {remedy}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg}); {remedy}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
