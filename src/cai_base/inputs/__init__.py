"""What a run is given besides its settings: constitution, prompts, human-written examples. A run stores all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import islice
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from cai_base import arms
from cai_base.errors import UserError
from cai_base.inputs.constitution import Constitution, CritiqueExample, load_constitution, load_critique_examples
from cai_base.inputs.kinds import ORIGINAL
from cai_base.inputs.overlap import overlap
from cai_base.inputs.prompts import Example, Prompt, examples_by_line, prompts_by_line, read_prompts
from cai_base.inputs.rubrics import Rubric, rubrics_for
from cai_base.reading import build_from_json, read_bytes, shown, unknown
from cai_base.settings.schema import RunSettings

PLACEBO = Path(arms.PLACEBO)
"""What `--constitution` takes for the packaged one whose principles are about spelling and layout only."""


class Inputs(BaseModel):
    """Everything a run reads, so that it can be resumed and understood without the files it came from.

    Attributes:
        constitution: the principles that critique and revision follow.
        prompts: the method's prompts, which are answered and revised.
        evaluation_prompts: the prompts of the final test, each with its kind; none is among `prompts`.
        few_shot: answered questions that stand before every question to a base model.
        examples: the human-written answers of SFT.
        critique_examples: worked critiques and revisions that stand before every request for one.
        refusal_openers: beginnings of refusals, for the share of originals that are sampled after one.
        rubrics: by which a language model judges.
        placebo: the constitution of the control of that name, if the run has it.
    """

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

    @classmethod
    def read(cls, path: Path) -> Self:
        """The inputs that a run stored.

        Raises:
            UserError: they are missing, or of another form.
        """
        data = read_bytes(path, "a run's inputs")
        return build_from_json(cls, data, str(path), remedy="restore it, or begin a new run")


@dataclass(frozen=True, slots=True)
class Sources:
    """The files that inputs are read from; where there is none, the packaged one.

    Attributes:
        pack: the packaged inputs, a folder under `data/`.
        constitution: TOML, JSON or the paper's file; `placebo` is the packaged placebo.
        prompts: the method's.
        prompts_column: the column that holds them, where the file does not say.
        evaluation_prompts: with their kinds.
        critique_examples: TOML, JSON or the paper's file.
    """

    pack: str
    constitution: Path | None = None
    prompts: Path | None = None
    prompts_column: str | None = None
    evaluation_prompts: Path | None = None
    critique_examples: Path | None = None


def gather(settings: RunSettings) -> Inputs:
    """The inputs that a run's settings name, read and checked.

    Raises:
        UserError: as `read`.
    """
    sources = Sources(
        settings.data,
        constitution=settings.constitution,
        prompts=settings.prompts,
        prompts_column=settings.prompts_column,
        evaluation_prompts=settings.evaluation.prompts,
        critique_examples=settings.critique_examples,
    )
    return read(
        sources,
        first=settings.revision.prompts,
        protocol=settings.protocol,
        rubrics=settings.rubric if settings.asks_rubrics else None,
        placebo=any(arms.ARMS[control].constitution == arms.PLACEBO for control in settings.controls),
    )


def ignored(settings: RunSettings) -> list[str]:
    """What the user's files of prompts hold that no run reads, such as further columns: one sentence each."""
    files = ((settings.prompts, settings.prompts_column), (settings.evaluation.prompts, None))
    return [line for file, column in files if file is not None for line in read_prompts(file, column).ignored]


def packaged(pack: str, *, first: int = 0) -> Inputs:
    """The inputs that come with this package: `english`, or those of the embedded model (`cai_base.embedded.DATA`).

    Args:
        pack: their name.
        first: take only so many of the method's prompts; 0 takes all.

    Raises:
        UserError: there are none of this name.
    """
    return read(Sources(pack), first=first)


def read(
    sources: Sources,
    *,
    first: int = 0,
    protocol: Literal["heldout", "original"] = "heldout",
    rubrics: Sequence[str] | None = None,
    placebo: bool = False,
) -> Inputs:
    """Read and check every input.

    Args:
        sources: where from.
        first: take only so many of the method's prompts; 0 takes all.
        protocol: with `original` the method's prompts are the evaluation prompts, as in the original experiment.
        rubrics: files or packaged names, in place of the packaged rubrics of their tasks; None reads no rubric.
        placebo: whether the packaged placebo constitution is read too.

    Raises:
        UserError: a file is wrong, or a text to train on or to show as an example is also an evaluation prompt.
    """
    pack = _pack(sources.pack)
    tests = _evaluation_prompts(sources.evaluation_prompts or _file(pack, "test.jsonl"))
    examples, few_shot = (examples_by_line(_file(pack, name)) for name in ("examples.jsonl", "few_shot.jsonl"))
    if protocol == "original":
        for flag, value in (("--prompts", sources.prompts), ("--prompts-column", sources.prompts_column)):
            if value is not None:
                raise UserError(f"{flag}: --protocol original trains on its evaluation prompts; leave {flag} out")
        prompts = tuple(p for p in tests.prompts.values() if p.kind in ORIGINAL)[: first or None]
        if not prompts:
            kinds = ", ".join(ORIGINAL)
            raise UserError(f"--evaluation.prompts: none is of a kind that --protocol original trains on ({kinds})")
    else:
        if sources.prompts_column is not None and sources.prompts is None:
            raise UserError("--prompts-column: names a column of --prompts, which is not given; leave it out")
        source = sources.prompts or _file(pack, "train.jsonl")
        by_line = dict(islice(prompts_by_line(source, sources.prompts_column).items(), first or None))
        prompts = tuple(by_line.values())
        for what, file, texts in (
            ("the method's prompts", source, {line: prompt.text for line, prompt in by_line.items()}),
            ("the SFT examples", _file(pack, "examples.jsonl"), {n: one.prompt for n, one in examples.items()}),
            ("the few-shot turns", _file(pack, "few_shot.jsonl"), {n: one.prompt for n, one in few_shot.items()}),
        ):
            _refuse_overlap(what, file, texts, tests)
    constitution = _file(pack, "placebo.toml") if sources.constitution == PLACEBO else sources.constitution
    critique_examples = sources.critique_examples
    if critique_examples is None and (pack / "critique_examples.toml").is_file():  # not every pack has them
        critique_examples = _file(pack, "critique_examples.toml")
    return Inputs(
        constitution=load_constitution(constitution or _file(pack, "constitution.toml")),
        prompts=prompts,
        evaluation_prompts=tuple(tests.prompts.values()),
        few_shot=tuple(few_shot.values()),
        examples=tuple(examples.values()),
        critique_examples=() if critique_examples is None else load_critique_examples(critique_examples),
        refusal_openers=tuple((pack / "refusal_openers.txt").read_text(encoding="utf-8").splitlines()),
        rubrics=() if rubrics is None else tuple(rubrics_for(rubrics).values()),
        placebo=load_constitution(_file(pack, "placebo.toml")) if placebo else None,
    )


@dataclass(frozen=True, slots=True)
class _Tests:
    """The evaluation prompts by their lines, and their file."""

    file: Path
    prompts: Mapping[int, Prompt]


def _evaluation_prompts(file: Path) -> _Tests:
    prompts = prompts_by_line(file)
    for line, prompt in prompts.items():
        if prompt.kind is None:
            raise UserError(
                f"{file}:{line}: the prompt has no kind; an evaluation prompt needs one, such as benign (.csv and "
                ".jsonl have a field for it, .txt has none)"
            )
    return _Tests(file, prompts)


def _refuse_overlap(what: str, source: Path, texts: Mapping[int, str], tests: _Tests) -> None:
    """Raises UserError if one of these texts, by line of its file, is also an evaluation prompt."""
    shared = overlap(texts, {line: prompt.text for line, prompt in tests.prompts.items()})
    if shared:
        line, other = shared[0]
        are, them = (
            ("is also an evaluation prompt", "it") if len(shared) == 1 else ("are also evaluation prompts", "them")
        )
        raise UserError(
            f"{source}:{line}: {shown(texts[line])} is also the evaluation prompt at {tests.file}:{other}; "
            f"{len(shared)} of {what} {are}: a held-out test needs {them} taken out of the evaluation prompts, or of "
            f"{what}"
        )


def _pack(name: str) -> Traversable:
    """The folder of packaged inputs.

    Raises:
        UserError: there is none of this name.
    """
    data = resources.files("cai_base") / "data"
    packs = sorted(folder.name for folder in data.iterdir() if (folder / "constitution.toml").is_file())
    if name not in packs:
        raise UserError(f"packaged inputs: {unknown('pack', name, packs)}")
    return data / name


def _file(pack: Traversable, name: str) -> Path:
    """A packaged file's path; the package is always installed as files."""
    path = pack / name
    assert isinstance(path, Path)
    return path
