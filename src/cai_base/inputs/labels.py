"""Answers that people have labelled, to measure a judge by: XSTest's published completions, or a file of their form."""

import csv
import hashlib
import io
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cai_base.errors import UserError
from cai_base.inputs.kinds import DIRECT, SENSITIVE
from cai_base.inputs.prompts import Prompt
from cai_base.reading import build, listed, quote, read_text

COLUMNS = ("prompt", "completion", "final_label")
ANNOTATIONS = ("annotation_1", "annotation_2")
TYPE, CONTRAST = "type", "contrast_"
"""The column of XSTest's types of prompt, and how the types of its 200 harmful prompts begin."""
FULL_COMPLIANCE, FULL_REFUSAL, PARTIAL_REFUSAL = "full_compliance", "full_refusal", "partial_refusal"
LABELS = (FULL_COMPLIANCE, FULL_REFUSAL, PARTIAL_REFUSAL)
"""The labels of XSTest (Röttger et al. 2024, arXiv 2308.01263). In the published files each has its number before it,
`2_full_refusal`."""


class LabelledAnswer(BaseModel):
    """An answer with people's verdict.

    Attributes:
        prompt: harmful (of the kind `direct`) where its type is one of XSTest's contrasts, else benign but sensitive.
        refused: whether it declines and gives nothing of what was asked for, by the final label.
        complied: whether it gives what was asked for; None for a partial refusal, which does and does not.
        annotations: `refused` by each annotator, as far as they are in the file.
    """

    model_config = ConfigDict(frozen=True)

    prompt: Prompt
    completion: str
    refused: bool
    complied: bool | None
    annotations: tuple[bool, ...] = ()


class Labels(BaseModel):
    """A file of labelled answers.

    Attributes:
        name: of the file, without its folder.
        digest: SHA-256 of its text.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    digest: str
    answers: tuple[LabelledAnswer, ...]


def read_labels(path: Path) -> Labels:
    """A file of labelled answers, to be stored with a run.

    Raises:
        UserError: as `load_labels`.
    """
    answers = load_labels(path)
    return Labels(name=path.name, digest=hashlib.sha256(path.read_bytes()).hexdigest(), answers=answers)


def load_labels(path: Path) -> tuple[LabelledAnswer, ...]:
    """The labelled answers of a CSV file with `prompt`, `completion` and `final_label`, in any order and case.

    `annotation_1`, `annotation_2` and `type` are read where they are there; further columns are ignored.

    Raises:
        UserError: with file and line, for a missing column, an empty cell or an unknown label.
    """
    description = f"labelled answers: CSV with the columns {', '.join(COLUMNS)}"
    rows = csv.DictReader(io.StringIO(read_text(path, description)), strict=True)
    answers = []
    try:
        names = {name.strip().lower(): name for name in rows.fieldnames or ()}
        missing = [column for column in COLUMNS if column not in names]
        if missing:
            raise UserError(f"{path}:1: has no column {listed(missing)}; it should be {description}")
        for row in rows:
            where = f"{path}:{rows.line_num}"
            cells = {
                column: (row[names[column]] or "").strip()
                for column in (*COLUMNS, *ANNOTATIONS, TYPE)
                if column in names
            }
            empty = [column for column in COLUMNS if not cells[column]]
            if empty:
                raise UserError(f"{where}: {empty[0]} is empty; every labelled answer needs {listed(COLUMNS)}")
            kind = DIRECT if cells.get(TYPE, "").lower().startswith(CONTRAST) else SENSITIVE
            label = _label(cells["final_label"], where)
            answers.append(
                LabelledAnswer(
                    prompt=build(Prompt, {"id": str(rows.line_num), "kind": kind, "text": cells["prompt"]}, where),
                    completion=cells["completion"],
                    refused=label == FULL_REFUSAL,
                    complied=None if label == PARTIAL_REFUSAL else label == FULL_COMPLIANCE,
                    annotations=tuple(
                        _label(cells[column], where) == FULL_REFUSAL for column in ANNOTATIONS if cells.get(column)
                    ),
                )
            )
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num}: is not valid CSV ({error}); it should be {description}") from None
    if not {True, False} <= {answer.refused for answer in answers}:
        raise UserError(f"{path}: all answers have the same label; a judge is measured on refusals and on others")
    return tuple(answers)


def _label(label: str, where: str) -> str:
    name = label.lower().lstrip("0123456789_ ")
    if name not in LABELS:
        raise UserError(f"{where}: {quote(label)} is no label; use {listed(list(LABELS))}")
    return name
