"""The inputs of a run besides its settings: constitution, prompts, human-written examples. A run stores all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from cai_base import arms
from cai_base.arms import Arm
from cai_base.errors import UserError
from cai_base.inputs.comparisons import (
    ComparisonRequest,
    SolvedComparison,
    load_comparison_requests,
    load_solved_comparisons,
    requests_of,
)
from cai_base.inputs.constitution import (
    Constitution,
    CritiqueExample,
    load_constitution,
    load_critique_examples,
    with_principles,
)
from cai_base.inputs.kinds import ORIGINAL, evenly
from cai_base.inputs.labels import Labels, read_labels
from cai_base.inputs.overlap import overlap
from cai_base.inputs.prompts import Example, Prompt, examples_by_line, prompts_by_line, read_prompts
from cai_base.inputs.rubrics import Rubric, rubrics_for
from cai_base.inputs.unseen import FLAG as UNSEEN
from cai_base.inputs.unseen import draw_unseen
from cai_base.reading import build_from_json, quote, read_bytes, unknown
from cai_base.settings.schema import RunSettings

PLACEBO = Path(arms.PLACEBO)
"""The value of `--constitution` for the packaged constitution whose principles are only about spelling and layout."""
_BY_NAME = {PLACEBO: "placebo.toml", Path(arms.NO_PRINCIPLE): "no_principle.toml"}
"""The packaged constitutions that `--constitution` takes by a name, and their files in either language."""

WIDE = Path("wide")
"""What `--evaluation.prompts` takes for the packaged set of more prompts, for narrow intervals."""


class Inputs(BaseModel):
    """All texts that a run reads. A run stores them, so that it can be resumed and understood without the source files.

    The method needs those up to `refusal_openers`. The others are for controls, feedback and judge models, and are not
    part of the public API.

    Attributes:
        constitution: the principles that critique and revision follow.
        prompts: the method's prompts, which are answered and revised.
        evaluation_prompts: the prompts of the final test, each with its kind; none is among `prompts`.
        few_shot: questions with answers that precede every question to a base model.
        examples: the human-written answers of SFT; of more than six each seed draws six.
        critique_examples: worked critiques and revisions that precede every request for one.
        refusal_openers: beginnings of refusals, with which a share of the originals is prefilled.
        rubrics: the rubrics of a judge model; empty for other judges.
        placebo: the constitution of the control `placebo`; None if the run has no such control.
        placebo_examples: worked critiques about spelling and layout, for the requests of that control.
        no_principle: the constitution of the control `examples-only`, if the run has it.
        refusals: prompts with refusals, for the control of that name.
        comparison_requests: what is asked about two responses, if an arm is trained on feedback.
        solved_comparisons: comparisons with their answers, which stand before every comparison.
        unseen_families: the families of jailbreaks that were taken out of `prompts`.
        labels: answers that people labelled, on which the judge is measured; None if there are none.
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
    placebo_examples: tuple[CritiqueExample, ...] = ()
    no_principle: Constitution | None = None
    refusals: tuple[Example, ...] = ()
    comparison_requests: tuple[ComparisonRequest, ...] = ()
    solved_comparisons: tuple[SolvedComparison, ...] = ()
    unseen_families: tuple[str, ...] = ()
    labels: Labels | None = None

    def requests_for(self, arm: Arm) -> tuple[Constitution, tuple[CritiqueExample, ...] | None]:
        """The constitution of an arm's own revision chains, and the worked examples before its requests, None for the
        run's.

        Raises:
            UserError: these inputs do not have it.
        """
        constitution, examples = {
            arms.PLACEBO: (self.placebo, self.placebo_examples),
            arms.NO_PRINCIPLE: (self.no_principle, None),
        }.get(arm.constitution or "", (None, None))
        if constitution is None:
            raise UserError(
                f"the inputs have no constitution for the arm {arm.name!r}; gather them from the settings that name it"
            )
        return constitution, examples

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
        return build_from_json(cls, data, str(path), remedy="restore it, or start a new run")


@dataclass(frozen=True, slots=True)
class Sources:
    """The files that the inputs are read from; None takes the packaged file.

    Attributes:
        pack: the name of the packaged inputs, a folder under `data/`.
        constitution: TOML, JSON or the paper's file; `placebo` and `no-principle` are packaged.
        prompts: the file of the method's prompts.
        prompts_column: the column of `prompts` that holds them, if it has none of the usual names.
        evaluation_prompts: the file of the evaluation prompts with their kinds.
        critique_examples: TOML, JSON or the paper's file.
        examples: the written answers of SFT.
        comparison_requests: text or the paper's file; those of the constitution by default.
        solved_comparisons: JSONL or the paper's file.
        labels: of answers, on which the judge is measured; none by default.
    """

    pack: str
    constitution: Path | None = None
    prompts: Path | None = None
    prompts_column: str | None = None
    evaluation_prompts: Path | None = None
    critique_examples: Path | None = None
    examples: Path | None = None
    comparison_requests: Path | None = None
    solved_comparisons: Path | None = None
    labels: Path | None = None


def gather(settings: RunSettings) -> Inputs:
    """Read and check the inputs that a run's settings name.

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
        examples=settings.sft.examples,
        comparison_requests=settings.feedback.requests,
        solved_comparisons=settings.feedback.examples,
        labels=settings.judge_labels,
    )
    return read(
        sources,
        first=settings.revision.prompts,
        protocol=settings.protocol,
        rubrics=settings.rubric if settings.asks_rubrics else None,
        arms_of_run=settings.evaluated_arms,
        unseen=settings.evaluation.unseen_families,
        principles=settings.principles,
    )


def ignored(*files: tuple[Path | None, str | None]) -> list[str]:
    """What the user's files of prompts hold that no run reads, such as further columns: one sentence each.

    Args:
        files: each file, where there is one that is not a packaged one by its name, and the column of its prompts.
    """
    own = [(file, column) for file, column in files if file != WIDE]
    return [line for file, column in own if file is not None for line in read_prompts(file, column).ignored]


def packaged(pack: str, *, first: int = 0) -> Inputs:
    """The packaged inputs of this name: `english`, or `world` for the embedded model.

    Args:
        pack: the name.
        first: the number of the method's prompts to take, evenly over their kinds; 0 takes all.

    Raises:
        UserError: there are no packaged inputs of this name, or `first` is negative.
    """
    if first < 0:
        raise UserError(f"first {first}: must be at least 0, which takes all prompts")
    return read(Sources(pack), first=first)


def read(
    sources: Sources,
    *,
    first: int = 0,
    protocol: Literal["heldout", "original"] = "heldout",
    rubrics: Sequence[str] | None = None,
    arms_of_run: Sequence[str] = (),
    unseen: int = 0,
    principles: Sequence[str] = (),
) -> Inputs:
    """Read and check every input.

    Args:
        sources: the files.
        first: the number of the method's prompts to take, evenly over their kinds; 0 takes all.
        protocol: with `original` the method's prompts are the evaluation prompts, as in the original experiment.
        rubrics: files or packaged names, in place of the packaged rubrics of their tasks; None reads no rubric.
        arms_of_run: the names of the run's arms, some of which need inputs of their own.
        unseen: the number of jailbreak families that are left out of the method's prompts.
        principles: of the constitution that are used, or left out; see `with_principles`.

    Raises:
        UserError: a file is wrong, an arm needs what a file does not have, or a text to train on or to show as an
            example is also an evaluation prompt.
    """
    pack = _pack(sources.pack)
    tests = _evaluation_prompts(_evaluation_file(sources, pack))
    needing = [arms.arm(name) for name in arms_of_run]
    constitutions = {one.constitution for one in needing}
    examples_file = sources.examples or _file(pack, "examples.jsonl")
    examples, few_shot = examples_by_line(examples_file), examples_by_line(_file(pack, "few_shot.jsonl"))
    if not examples:
        raise UserError(f"--sft.examples {examples_file}: there is no example in it; write at least one")
    refusals = examples_by_line(_file(pack, "refusals.jsonl")) if any(one.replaces for one in needing) else {}
    unseen_families: tuple[str, ...] = ()
    if protocol == "original":
        own = (("--prompts", sources.prompts), ("--prompts-column", sources.prompts_column), (UNSEEN, unseen or None))
        for flag, value in own:
            if value is not None:
                raise UserError(f"{flag}: --protocol original trains on its evaluation prompts; leave {flag} out")
        original = [prompt for prompt in tests.prompts.values() if prompt.kind in ORIGINAL]
        prompts = tuple(evenly(original, first, lambda prompt: prompt.kind))
        if not prompts:
            kinds = ", ".join(ORIGINAL)
            raise UserError(f"--evaluation.prompts: none is of a kind that --protocol original trains on ({kinds})")
    else:
        if sources.prompts_column is not None and sources.prompts is None:
            raise UserError("--prompts-column: names a column of --prompts, which is not given; leave it out")
        source = sources.prompts or _file(pack, "train.jsonl")
        every = prompts_by_line(source, sources.prompts_column)
        if unseen:
            unseen_families = draw_unseen(tuple(tests.prompts.values()), tuple(every.values()), unseen)
            every = {line: prompt for line, prompt in every.items() if prompt.family not in unseen_families}
        by_line = dict(evenly(list(every.items()), first, lambda item: item[1].kind))
        prompts = tuple(by_line.values())
        for what, file, texts in (
            ("the method's prompts", source, {line: prompt.text for line, prompt in by_line.items()}),
            ("the SFT examples", examples_file, {n: one.prompt for n, one in examples.items()}),
            ("the few-shot turns", _file(pack, "few_shot.jsonl"), {n: one.prompt for n, one in few_shot.items()}),
            ("the refusals", _file(pack, "refusals.jsonl"), {n: one.prompt for n, one in refusals.items()}),
        ):
            _refuse_overlap(what, file, texts, tests)
    constitution_file = sources.constitution or _file(pack, "constitution.toml")
    if constitution_file in _BY_NAME:
        constitution_file = _file(pack, _BY_NAME[constitution_file])
    constitution = with_principles(load_constitution(constitution_file), principles)
    placebo_examples = load_critique_examples(_file(pack, "placebo_examples.toml"))
    if sources.critique_examples is not None:
        critique_examples = load_critique_examples(sources.critique_examples)
    elif not (pack / "critique_examples.toml").is_file():  # only some packs have them
        critique_examples = ()
    elif sources.constitution == PLACEBO:
        critique_examples = placebo_examples
    else:
        critique_examples = load_critique_examples(_file(pack, "critique_examples.toml"))
    feedback = any(one.source == "comparisons" for one in needing)
    requests: tuple[ComparisonRequest, ...] = ()
    if feedback and sources.comparison_requests is not None:
        requests = load_comparison_requests(sources.comparison_requests)
    elif feedback:
        requests = requests_of(constitution, str(constitution_file))
    solved = sources.solved_comparisons or _file(pack, "comparison_examples.jsonl")
    return Inputs(
        constitution=constitution,
        prompts=prompts,
        evaluation_prompts=tuple(tests.prompts.values()),
        few_shot=tuple(few_shot.values()),
        examples=tuple(examples.values()),
        critique_examples=critique_examples,
        refusal_openers=tuple((pack / "refusal_openers.txt").read_text(encoding="utf-8").splitlines()),
        rubrics=() if rubrics is None else tuple(rubrics_for(rubrics).values()),
        placebo=load_constitution(_file(pack, "placebo.toml")) if arms.PLACEBO in constitutions else None,
        # Requests stand behind worked examples in this control where those of the constitution do, and nowhere else.
        placebo_examples=placebo_examples if critique_examples else (),
        no_principle=load_constitution(_file(pack, "no_principle.toml"))
        if arms.NO_PRINCIPLE in constitutions
        else None,
        refusals=tuple(refusals.values()),
        comparison_requests=requests,
        solved_comparisons=load_solved_comparisons(solved) if feedback else (),
        unseen_families=unseen_families,
        labels=None if sources.labels is None else read_labels(sources.labels),
    )


@dataclass(frozen=True, slots=True)
class _Tests:
    """The evaluation prompts by line, and their file."""

    file: Path
    prompts: Mapping[int, Prompt]


def _evaluation_file(sources: Sources, pack: Traversable) -> Path:
    if sources.evaluation_prompts != WIDE:
        return sources.evaluation_prompts or _file(pack, "test.jsonl")
    file = _file(pack, "test_wide.jsonl")
    if not file.is_file():
        raise UserError(
            f"--evaluation.prompts {WIDE}: the packaged inputs {sources.pack!r} have no such set; give a file"
        )
    return file


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
            f"{source}:{line}: {quote(texts[line])} is also the evaluation prompt at {tests.file}:{other}; "
            f"{len(shared)} of {what} {are}: a held-out test needs {them} taken out of the evaluation prompts, or of "
            f"{what}"
        )


def _pack(name: str) -> Traversable:
    """The folder of the packaged inputs.

    Raises:
        UserError: there are none of this name.
    """
    data = resources.files("cai_base") / "data"
    packs = sorted(folder.name for folder in data.iterdir() if (folder / "constitution.toml").is_file())
    if name not in packs:
        raise UserError(f"packaged inputs: {unknown('pack', name, packs)}")
    return data / name


def _file(pack: Traversable, name: str) -> Path:
    """The path of a packaged file; the package is always installed as files."""
    path = pack / name
    assert isinstance(path, Path)
    return path
