"""What a run is given besides its settings: constitution, prompts, human-written examples. Kept in the run, whole."""

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cai_base.errors import UserError
from cai_base.inputs.constitution import Constitution, CritiqueExample, load_constitution, load_critique_examples
from cai_base.inputs.prompts import ORIGINAL, Example, Prompt, examples_by_line, overlap, prompts_by_line
from cai_base.inputs.rubrics import Rubric, rubrics_for
from cai_base.reading import shown
from cai_base.settings.schema import RunSettings

PLACEBO = Path("placebo")
"""What `--constitution` takes for the packaged one whose principles are about spelling and marks alone."""


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
    rubrics: tuple[Rubric, ...] = ()
    placebo: Constitution | None = None

    def to_bytes(self) -> bytes:
        """The inputs as JSON."""
        return self.model_dump_json(indent=2).encode()


def gather(settings: RunSettings) -> Inputs:
    """Read and check every input that the settings name; what they do not name comes from the packaged data.

    Raises:
        UserError: a file is wrong, or what is trained on or shown as an example is also an evaluation prompt.
    """
    pack = resources.files("cai_base") / "data" / settings.data
    asked_in = settings.evaluation.prompts or _file(pack, "test.jsonl")
    asked_by_line = _evaluation_prompts(asked_in)
    asked = tuple(asked_by_line.values())
    examples, few_shot = (examples_by_line(_file(pack, name)) for name in ("examples.jsonl", "few_shot.jsonl"))
    if settings.protocol == "original":
        if settings.prompts is not None:
            raise UserError("--prompts: --protocol original trains on its evaluation prompts; leave --prompts out")
        prompts = tuple(p for p in asked if p.kind in ORIGINAL)[: settings.revision.prompts or None]
        if not prompts:
            kinds = ", ".join(ORIGINAL)
            raise UserError(f"--evaluation.prompts: none is of a kind that --protocol original trains on ({kinds})")
    else:
        source = settings.prompts or _file(pack, "train.jsonl")
        by_line = dict(islice(prompts_by_line(source).items(), settings.revision.prompts or None))
        prompts = tuple(by_line.values())
        for what, file, texts in (
            ("the method's prompts", source, {line: prompt.text for line, prompt in by_line.items()}),
            ("the SFT examples", _file(pack, "examples.jsonl"), {n: one.prompt for n, one in examples.items()}),
            ("the few-shot turns", _file(pack, "few_shot.jsonl"), {n: one.prompt for n, one in few_shot.items()}),
        ):
            _refuse_overlap(what, file, texts, asked_in, {line: prompt.text for line, prompt in asked_by_line.items()})
    placebo = _file(pack, "placebo.toml")
    constitution = placebo if settings.constitution == PLACEBO else settings.constitution
    worked = pack / "critique_examples.toml"
    return Inputs(
        constitution=load_constitution(constitution or _file(pack, "constitution.toml")),
        prompts=prompts,
        evaluation_prompts=asked,
        few_shot=tuple(few_shot.values()),
        examples=tuple(examples.values()),
        critique_examples=load_critique_examples(settings.critique_examples or _file(pack, worked.name))
        if settings.critique_examples or worked.is_file()
        else (),
        refusal_openers=tuple((pack / "refusal_openers.txt").read_text(encoding="utf-8").splitlines()),
        rubrics=tuple(rubrics_for(settings.rubric).values()) if settings.asks_rubrics else (),
        placebo=load_constitution(placebo) if "placebo" in settings.controls else None,
    )


def _evaluation_prompts(source: Path) -> dict[int, Prompt]:
    prompts = prompts_by_line(source)
    for line, prompt in prompts.items():
        if prompt.kind is None:
            raise UserError(
                f"{source}:{line}: the prompt has no kind; an evaluation prompt needs one, such as benign (.csv and "
                ".jsonl have a field for it, .txt has none)"
            )
    return prompts


def _refuse_overlap(
    what: str, source: Path, texts: Mapping[int, str], asked_in: Path, asked: Mapping[int, str]
) -> None:
    """Raise UserError where one of these texts, by line of its file, is also asked in the evaluation."""
    shared = overlap(texts, asked)
    if shared:
        line, other = shared[0]
        are, them = (
            ("is also an evaluation prompt", "it") if len(shared) == 1 else ("are also evaluation prompts", "them")
        )
        raise UserError(
            f"{source}:{line}: {shown(texts[line])} is also the evaluation prompt at {asked_in}:{other}; {len(shared)} "
            f"of {what} {are}: a held-out test needs {them} taken out of the evaluation prompts, or of {what}"
        )


def _file(pack: Traversable, name: str) -> Path:
    """A packaged file's path; the package is always installed as files."""
    path = pack / name
    assert isinstance(path, Path)
    return path
