"""What a run is given besides its settings: constitution, prompts, human-written examples. Kept in the run, whole."""

from collections.abc import Sequence as Seq
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cai_base.config import RunSettings
from cai_base.constitution import (
    Constitution,
    CritiqueExample,
    load_constitution,
    load_critique_examples,
)
from cai_base.errors import UserError
from cai_base.prompts import Example, Prompt, load_examples, load_prompts, overlap

ORIGINAL_KINDS = ("benign", "jailbreak", "borderline")
"""The kinds whose evaluation prompts the original experiment also trained on: 10 + 24 + 8 = 42 prompts."""


class Inputs(BaseModel):
    """Everything a run reads, so that it can be resumed and understood without the files it came from."""

    model_config = ConfigDict(frozen=True)

    constitution: Constitution
    prompts: tuple[Prompt, ...]
    evaluation_prompts: tuple[Prompt, ...]
    few_shot: tuple[Example, ...]
    examples: tuple[Example, ...]
    critique_examples: tuple[CritiqueExample, ...]
    refusal_openers: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """The inputs as JSON."""
        return self.model_dump_json(indent=2).encode()


def gather(settings: RunSettings) -> Inputs:
    """Read and check every input that the settings name; what they do not name comes from the packaged data.

    Raises:
        UserError: a file is wrong, or prompts of the method are also evaluation prompts.
    """
    pack = resources.files("cai_base") / "data" / settings.data
    asked = _evaluation_prompts(settings, pack)
    if settings.protocol == "original":
        if settings.prompts is not None:
            raise UserError("--prompts: --protocol original trains on its evaluation prompts; leave --prompts out")
        prompts = tuple(p for p in asked if p.kind in ORIGINAL_KINDS)[: settings.revision.prompts or None]
        if not prompts:
            kinds = ", ".join(ORIGINAL_KINDS)
            raise UserError(f"--evaluation.prompts: none is of a kind that --protocol original trains on ({kinds})")
    else:
        source = settings.prompts or _file(pack, "train.jsonl")
        prompts = load_prompts(source)[: settings.revision.prompts or None]
        _refuse_overlap(source, prompts, asked)
    worked = pack / "critique_examples.toml"
    return Inputs(
        constitution=load_constitution(settings.constitution or _file(pack, "constitution.toml")),
        prompts=prompts,
        evaluation_prompts=asked,
        few_shot=load_examples(_file(pack, "few_shot.jsonl")),
        examples=load_examples(_file(pack, "examples.jsonl")),
        critique_examples=load_critique_examples(settings.critique_examples or _file(pack, worked.name))
        if settings.critique_examples or worked.is_file()
        else (),
        refusal_openers=tuple((pack / "refusal_openers.txt").read_text(encoding="utf-8").splitlines()),
    )


def _evaluation_prompts(settings: RunSettings, pack: Traversable) -> tuple[Prompt, ...]:
    source = settings.evaluation.prompts or _file(pack, "test.jsonl")
    prompts = load_prompts(source)
    for prompt in prompts:
        if prompt.kind is None:
            raise UserError(
                f"{source}: prompt {prompt.id!r} has no kind; an evaluation prompt needs one, such as benign"
            )
    return prompts


def _refuse_overlap(source: Path, prompts: Seq[Prompt], asked: Seq[Prompt]) -> None:
    shared = overlap(prompts, asked)
    if shared:
        first, second = shared[0]
        raise UserError(
            f"{source}: {len(shared)} of the method's prompts are also evaluation prompts, the first is "
            f"{first.id!r} (evaluation prompt {second.id!r}); take them out of one of the two sets"
        )


def _file(pack: Traversable, name: str) -> Path:
    """A packaged file's path; the package is always installed as files."""
    path = pack / name
    assert isinstance(path, Path)
    return path
