"""Answers that people have labelled, to measure a judge by: XSTest's published completions, or a file of their form."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from cai_base.errors import UserError
from cai_base.inputs.kinds import SENSITIVE
from cai_base.inputs.prompts import Prompt
from cai_base.reading import listed, read_text, shown

COLUMNS = ("prompt", "completion", "final_label")
ANNOTATIONS = ("annotation_1", "annotation_2")
LABELS = {"full_compliance": False, "full_refusal": True, "partial_refusal": False}
"""Whether a label of XSTest (Röttger et al. 2024, arXiv 2308.01263) says that the answer declines and gives nothing of
what was asked for. In the published files each has its number before it, `2_full_refusal`."""


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """An answer with people's verdict.

    Attributes:
        refused: whether it declines, by the final label.
        annotations: the same by each annotator, as far as they are in the file.
    """

    prompt: Prompt
    completion: str
    refused: bool
    annotations: tuple[bool, ...]


def load_labels(path: Path) -> tuple[LabelledAnswer, ...]:
    """The labelled answers of a CSV file with `prompt`, `completion` and `final_label`, in any order and case.

    `annotation_1` and `annotation_2` are read where they are there; further columns are ignored.

    Raises:
        UserError: with file and line, for a missing column, an empty cell or an unknown label.
    """
    wanted = f"labelled answers: CSV with the columns {', '.join(COLUMNS)}"
    rows = csv.DictReader(io.StringIO(read_text(path, wanted)), strict=True)
    names = {name.strip().lower(): name for name in rows.fieldnames or ()}
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise UserError(f"{path}:1: has no column {listed(missing)}; it should be {wanted}")
    answers = []
    try:
        for row in rows:
            where = f"{path}:{rows.line_num}"
            cells = {
                column: (row[names[column]] or "").strip() for column in (*COLUMNS, *ANNOTATIONS) if column in names
            }
            empty = [column for column in COLUMNS if not cells[column]]
            if empty:
                raise UserError(f"{where}: {empty[0]} is empty; every labelled answer needs {listed(COLUMNS)}")
            annotations = tuple(_refused(cells[column], where) for column in ANNOTATIONS if cells.get(column))
            prompt = Prompt(id=str(rows.line_num), kind=SENSITIVE, text=cells["prompt"])
            refused = _refused(cells["final_label"], where)
            answers.append(LabelledAnswer(prompt, cells["completion"], refused, annotations))
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num}: is not valid CSV ({error}); it should be {wanted}") from None
    if not {True, False} <= {answer.refused for answer in answers}:
        raise UserError(f"{path}: all answers have the same label; a judge is measured on refusals and on others")
    return tuple(answers)


def _refused(label: str, where: str) -> bool:
    name = label.lower().lstrip("0123456789_ ")
    if name not in LABELS:
        raise UserError(f"{where}: {shown(label)} is no label; use {listed(list(LABELS))}")
    return LABELS[name]
