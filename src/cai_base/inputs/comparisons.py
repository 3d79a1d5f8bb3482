"""Comparison requests, and solved comparisons that stand before a comparison (Bai et al. 2022, section 4.1).

The files published with the paper, `RLMadisonInstructions.json` and `RLMadisonFewShotPrompts.json`, are read as they
are (github.com/anthropics/ConstitutionalHarmlessnessPaper, folder `prompts`).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cai_base.errors import UserError
from cai_base.inputs.constitution import Constitution
from cai_base.inputs.tables import jsonl_records
from cai_base.reading import Entry, Text, build, described, parse_json, quote, read_text

_REQUESTS_FILE = "comparison requests: .txt with one a line, or the paper's RLMadisonInstructions.json, a list of texts"
_EXAMPLES_FILE = (
    'solved comparisons: .jsonl, one a line: {"prompt": "...", "better": "...", "worse": "..."}, or the paper\'s '
    "RLMadisonFewShotPrompts.json"
)


class ComparisonRequest(Entry):
    """What is asked about two responses, and the name of the principle that asks it."""

    name: Text
    text: Text


class SolvedComparison(Entry):
    """A prompt with two responses, of which one is better."""

    prompt: Text
    better: Text
    worse: Text


def requests_of(constitution: Constitution, source: str) -> tuple[ComparisonRequest, ...]:
    """The comparison request of every principle.

    Args:
        source: the constitution's file, for messages.

    Raises:
        UserError: a principle has none.
    """
    requests = []
    for place, principle in enumerate(constitution.principles, start=1):
        if principle.comparison_request is None:
            raise UserError(
                f"{source}: principle {place} ({quote(principle.name)}) has no comparison_request, which the arms with "
                "feedback ask under; write one, or give --feedback.requests FILE"
            )
        requests.append(ComparisonRequest(name=principle.name, text=principle.comparison_request))
    return tuple(requests)


def load_comparison_requests(path: Path) -> tuple[ComparisonRequest, ...]:
    """The comparison requests in a text file, one a line, or in the paper's JSON list; a request is named by its place.

    Raises:
        UserError: it is anything else; the message names the file and the place.
    """
    text = read_text(path, _REQUESTS_FILE)
    match path.suffix.lower():
        case ".txt":
            lines: Sequence[object] = [line for line in text.splitlines() if line.strip() and line[0] != "#"]
        case ".json":
            data = parse_json(path, text)
            if not isinstance(data, list):
                raise UserError(f"{path}: the file is {described(data)}; it must be a list of texts, each a request")
            lines = data
        case suffix:
            raise UserError(f"{path}: cannot tell the form from the ending {quote(suffix)}; give {_REQUESTS_FILE}")
    if not lines:
        raise UserError(f"{path}: there is no request in it; write at least one")
    requests = []
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, str) or not _without_options(line):
            raise UserError(f"{path}: request {number} is {described(line)}; it must be text that asks which is better")
        requests.append(ComparisonRequest(name=f"request-{number}", text=_without_options(line)))
    return tuple(requests)


def _without_options(text: str) -> str:
    """A request of the paper's file without the `Options:` at its end: the layout here has the options before it."""
    return re.sub(r"\s*Options:\s*$", "", text).strip()


class _PublishedComparison(Entry):
    """One entry of RLMadisonFewShotPrompts.json."""

    prompt: Text
    corrects: Annotated[list[Text], Field(min_length=1)]
    incorrects: Annotated[list[Text], Field(min_length=1)]


def load_solved_comparisons(path: Path) -> tuple[SolvedComparison, ...]:
    """The solved comparisons in a JSONL file of this project's form, or in the paper's JSON list.

    Of an entry of the paper's list the first correct and the first incorrect response are taken, and its prompt without
    `Human:` before and `Assistant:` behind it.

    Raises:
        UserError: it is anything else; the message names the file and the place.
    """
    text = read_text(path, _EXAMPLES_FILE)
    match path.suffix.lower():
        case ".jsonl":
            records = jsonl_records(path, text)
            examples = [build(SolvedComparison, record, f"{path}:{line}") for line, record in records]
        case ".json":
            data = parse_json(path, text)
            if not isinstance(data, list):
                raise UserError(f"{path}: the file is {described(data)}; it must be a list of comparisons")
            examples = [_published(item, f"{path}: comparison {number}") for number, item in enumerate(data, start=1)]
        case suffix:
            raise UserError(f"{path}: cannot tell the form from the ending {quote(suffix)}; give {_EXAMPLES_FILE}")
    if not examples:
        raise UserError(f"{path}: there is no comparison in it; write at least one")
    return tuple(examples)


def _published(item: object, where: str) -> SolvedComparison:
    entry = build(_PublishedComparison, item, where)
    turns = re.split(r"\n\n(Human|Assistant):", f"\n\n{entry.prompt.strip()}")
    roles, texts = turns[1::2], [text.strip() for text in turns[2::2]]
    if turns[0].strip() or roles != ["Human", "Assistant"] or texts[1]:
        raise UserError(
            f"{where}: the field 'prompt' must be one question between Human: and Assistant:, each after an empty line"
        )
    return build(
        SolvedComparison, {"prompt": texts[0], "better": entry.corrects[0], "worse": entry.incorrects[0]}, where
    )
