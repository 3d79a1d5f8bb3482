"""The target of an evaluation: the arms of a finished run, or one model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from pathlib import Path

from cai_base import arms
from cai_base.dialogue import Chat, Dialogue, Layout, LayoutName, chat_tokens
from cai_base.embedded import is_embedded
from cai_base.engines import Engine, EngineError
from cai_base.engines.errors import NoChatTemplateError
from cai_base.engines.files import ADAPTER_CONFIG, MODEL_CONFIG
from cai_base.errors import UserError
from cai_base.evaluation.judges.replies import check_replies
from cai_base.evaluation.tasks import LoadedArm
from cai_base.evaluation.tasks.suite_files import STYLE as STYLES
from cai_base.inputs import Inputs, gather
from cai_base.inputs.rubrics import rubrics_for
from cai_base.models import base_of, load_any
from cai_base.paths import INPUTS, STYLE, SUITES
from cai_base.progress import Progress
from cai_base.records import AskedTarget
from cai_base.run.finished_run import available_arms, check_arms, load_arms
from cai_base.run.identity import check_files, check_suite, files_digest, run_weights, suites_of
from cai_base.run.results.shared import model_name
from cai_base.run.stored import check_finished, suite_folders
from cai_base.settings.command_line import check_folder, flag_names, load_settings, override_settings
from cai_base.settings.engines import ENGINES
from cai_base.settings.judges import NO_JUDGE
from cai_base.settings.schema import RunSettings
from cai_base.settings.validation import stored_settings
from cai_base.store import MANIFEST, JsonObject, Run, refuse_misspelt

JUDGE_FLAGS = {"judge", "judge-url", "judge-tokenizer", "second-judge", "second-judge-url", "second-judge-tokenizer"}
JUDGING_FLAGS = {*JUDGE_FLAGS, "rubric", "votes", "judging"}
SAMPLING_FLAGS = {"evaluation", "threads", "tinker-url"}
MODEL_FLAGS = {
    *("engine", "tokenizer", "tinker-timeout", "seeds", "start-seed", "data", "config", "instruct-thinking", "dtype")
}
"""Flags of `run` that `evaluate` accepts: for a run, only those of the judge and of sampling."""

ANSWERING_FLAGS = ("engine", "tokenizer", "instruct-thinking", "dtype")
"""Flags of `run` that decide what a model answers, beside those of sampling."""

BASE_LAYOUT = "mend the template, or prompt the model as a base model: --layout dialogue"

OWN_FLAGS = (
    *("--suite", "--limit", "--layout", "--base", "--arms", "--out", "--json"),
    *("--questions", "--samples", "--accept-changed"),
)
BASE_IN_TEMPLATE = (
    "prompted with its chat template, whose turns do not end with an end-of-text token of this model. A base model "
    "with its instruct sibling's template looks like this: --layout dialogue prompts it as a base model"
)


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `cai-base evaluate`.

    Attributes:
        target: the directory of a run, `organism`, the folder or hub id of a model, or the folder of a PEFT adapter.
        suite: a suite's name, a file, or both as NAME:FILE; or `style`.
        limit: the number of prompts to use; None for all.
        layout: the layout for a model outside a run; `auto` is its chat template if it has one.
        base: the base model of a PEFT adapter, if the adapter's configuration names none or a wrong one.
        arms: arms of a run; None for all.
        out: the directory of the evaluation.
        questions, samples: for `style`, the number of questions per style, and of answers per question.
        flags: the flags of `run` among the arguments.
    """

    target: str
    suite: str
    limit: int | None = None
    layout: LayoutName = "auto"
    base: str | None = None
    arms: tuple[str, ...] | None = None
    out: Path | None = None
    questions: int | None = None
    samples: int | None = None
    flags: Sequence[str] = ()

    @property
    def own(self) -> dict[str, object]:
        """The flags given that `run` does not have, each with its value."""
        layout = None if self.layout == "auto" else self.layout
        values = {
            "limit": self.limit,
            "layout": layout,
            "base": self.base,
            "out": self.out,
            "questions": self.questions,
            "samples": self.samples,
        }
        return {flag: value for flag, value in values.items() if value is not None}

    @property
    def run_flags(self) -> set[str]:
        """The names of the flags of `run` that were given."""
        return flag_names(list(self.flags), "evaluate", OWN_FLAGS)

    @property
    def needless(self) -> set[str]:
        """`judge` if it was given as none, which is right for a suite that has no judge."""
        words = " ".join(self.flags).replace("=", " ").split()
        return {"judge"} if ("--judge", NO_JUDGE) in pairwise(words) else set()


@dataclass(frozen=True, slots=True)
class Target:
    """The arms or the model to evaluate.

    Attributes:
        load: loads the named arms one after another.
        names: the arms to evaluate, in order.
        about: identifies the target in the configuration of the evaluation.
        folder: the parent folder of its evaluations.
        weights: what identifies the weights that answer, for the configuration of the evaluation.
        asked_with: what else decides a model's answers, for the same; empty for a run, whose configuration has it.
        run: the run of the arms; None for a model.
        hub: the hub id of the model, or of the base model of its adapter; None for a folder or a file.
    """

    settings: RunSettings
    inputs: Inputs
    load: Callable[[Sequence[str]], Iterator[LoadedArm]]
    names: list[str]
    about: AskedTarget
    folder: Path
    weights: JsonObject
    asked_with: JsonObject = field(default_factory=dict)
    run: Run | None = None
    hub: str | None = None


def is_run(target: str) -> bool:
    """Whether this is the directory of a run."""
    return (Path(target) / MANIFEST).exists()


def check_target(target: str) -> None:
    """Check the target's path, before a suite is downloaded or a judge is loaded.

    Raises:
        UserError: it is neither a run nor a model.
    """
    folder = Path(target)
    files = (MANIFEST, MODEL_CONFIG, ADAPTER_CONFIG)
    if is_embedded(target) or any((folder / name).is_file() for name in files):
        return
    if folder.suffix.lower() == ".gguf" and folder.is_file():
        return
    if folder.exists():
        raise UserError(f"{target}: has neither a run ({MANIFEST}) nor a model ({MODEL_CONFIG} or {ADAPTER_CONFIG})")
    refuse_misspelt(folder)
    if target.startswith((".", "/", "~")):
        raise UserError(f"{target}: there is no such folder; give the folder of a run or of a model")
    if "/" not in target:
        raise UserError(f"{target}: there is no such folder; a hub id has the form owner/name")


def run_target(request: Request, allowed: set[str], progress: Progress) -> Target:
    """The arms of a finished run.

    Args:
        allowed: the flags of `run` that have an effect here.

    Raises:
        UserError: the run is not finished, it has no such arm, or a flag does not apply.
    """
    directory = Path(request.target)
    flags = _check_flags(request, allowed, "the run's own settings apply")
    for flag in ("base", "layout"):
        if flag in request.own:
            raise UserError(f"--{flag} {request.own[flag]}: applies to a model only; a run's arms use the run's layout")
    run = Run.watch(directory)
    if "suite" in run.config:
        raise UserError(f"{directory}: is an evaluation, not a run; give the run or the model that was evaluated")
    check_finished(run)
    own = stored_settings(run)
    config: JsonObject = dict(run.config)
    if "judge" in flags:  # another judge has other defaults
        config = {key: value for key, value in config.items() if key not in {*JUDGE_FLAGS, "rubric", "votes"}}
        if ENGINES[str(config["engine"])].served:  # the precision was the judge's that is replaced
            config.pop("dtype", None)
    settings = override_settings(config, list(request.flags))
    threads = settings.threads if "threads" in flags else None
    available = available_arms(settings.evaluated_arms, settings.base_model)
    check_arms(request.arms or (), available, f"--arms: {directory}")
    suite_folders(directory)  # the run's page will show them
    again = (STYLE,) if request.suite == STYLES else ()
    run.verify(computed=again)  # after the arguments are checked, because the hashes of all files take long
    check_replies(directory)
    names = [name for name in available if name in (request.arms or settings.evaluated_arms)]
    check_files(run, own.models, names, judges="judge" not in flags)
    for suite in suites_of(directory):
        check_suite(run, suite)
    inputs = Inputs.read(directory / INPUTS)
    if flags & {"judge", "rubric", "second-judge"}:
        rubrics = tuple(rubrics_for(settings.rubric).values()) if settings.asks_rubrics else ()
        inputs = inputs.model_copy(update={"rubrics": rubrics})
    return Target(
        settings,
        inputs,
        lambda names: load_arms(directory, progress, names, threads),
        names,
        AskedTarget(of="run", model=model_name(settings.model)),
        directory / SUITES,
        run_weights(run),
        run=run,
    )


def model_target(request: Request, suite: str, progress: Progress, *, judged: bool) -> Target:
    """One model outside a run.

    Args:
        suite: the suite's name, for the evaluation's folder.
        judged: whether its answers are judged.

    Raises:
        UserError: there is no such model, or a flag does not apply.
    """
    if request.arms is not None:
        raise UserError(f"--arms: {request.target} is not a run and has no arms; leave it out")
    _check_flags(request, {*JUDGING_FLAGS, *SAMPLING_FLAGS, *MODEL_FLAGS}, "it has no effect here")
    adapter = Path(request.target) if (Path(request.target) / ADAPTER_CONFIG).is_file() else None
    named = None if adapter is None or request.base else base_of(adapter)
    if adapter is None and request.base is not None:
        raise UserError(f"--base {request.base}: {request.target} is not a PEFT adapter (it has no {ADAPTER_CONFIG})")
    model = request.base or named or request.target
    flag = f"{adapter}/{ADAPTER_CONFIG}: base_model_name_or_path" if named else "--base" if adapter else "MODEL"
    check_folder(flag, model)
    defaults: JsonObject = {"seeds": 1} | ({} if judged else {"judge": NO_JUDGE})
    settings = load_settings([*request.flags, "--model", model], defaults).settings
    inputs = gather(settings)

    def load(names: Sequence[str]) -> Iterator[LoadedArm]:
        engine, name_in_engine = load_any(settings.sampled_model, adapter, flag, progress)
        layout = _layout(request.layout, engine, inputs)
        notes = engine.notes
        if request.layout == "auto" and isinstance(layout, Chat) and not _ends_turns(engine):
            notes += (BASE_IN_TEMPLATE,)
        if isinstance(layout, Chat):
            engine.tokenizer.end_turns()
        for note in notes:
            progress.say(f"warning: {note}")
        yield LoadedArm(
            arms.MODEL.name, engine, layout, dict.fromkeys(settings.seed_numbers, name_in_engine), notes=tuple(notes)
        )

    name = Path(request.target).name
    label = name if Path(request.target).exists() else request.target
    about = AskedTarget(of="model", model=label, layout=request.layout, seeds=tuple(settings.seed_numbers))
    if adapter is not None:
        about = AskedTarget(**about.dump(), base=model_name(model))
    folder = Path("evaluations") / f"{date.today().isoformat()}-{name}-{suite}"
    served = ENGINES[settings.engine].served
    weights = {"model": files_digest(model, served=served)}
    if adapter is not None:
        weights["adapter"] = files_digest(str(adapter))
    table = settings.model_dump(mode="json", by_alias=True)
    asked_with = {flag: table[flag] for flag in ANSWERING_FLAGS}
    asked_with["few-shot"] = [example.model_dump(mode="json") for example in inputs.few_shot]
    hub = None if served or Path(model).exists() else model
    return Target(settings, inputs, load, [arms.MODEL.name], about, folder, weights, asked_with, hub=hub)


def _check_flags(request: Request, allowed: set[str], reason: str) -> set[str]:
    """The names of the flags of `run` that were given; raises UserError for a flag that is not `allowed`."""
    for flag in sorted(request.run_flags - allowed):
        raise UserError(f"--{flag}: is not a flag of cai-base evaluate for {request.target}: {reason}; leave it out")
    return request.run_flags


def _ends_turns(engine: Engine) -> bool:
    """Whether the chat template ends the assistant's turns with an end-of-text token of this model.

    A base model that ships its instruct sibling's template does not end its texts with that template's token.
    """
    tokens = chat_tokens(engine.tokenizer, [("Hello!", "Hello.")], "Goodbye!")
    return not engine.tokenizer.eos.isdisjoint(tokens[1:])  # some models also begin a text with this token


def _layout(name: LayoutName, engine: Engine, inputs: Inputs) -> Layout:
    """The requested layout; by default the chat template if there is one, else the few-shot dialogue.

    Raises:
        UserError: the chat template cannot be used, or leaves out the question.
    """
    if name == "dialogue":
        return Dialogue(inputs.few_shot, ())
    try:
        one, other = (chat_tokens(engine.tokenizer, (), text) for text in ("Hello!", "Hello! again"))
    except NoChatTemplateError:
        if name == "chat":
            raise
        return Dialogue(inputs.few_shot, ())
    except EngineError as error:
        raise UserError(error.message_for(error.argument, BASE_LAYOUT)) from error
    if one == other:
        raise UserError(f"--layout {name}: the model's chat template leaves out what the user says; {BASE_LAYOUT}")
    return Chat()
