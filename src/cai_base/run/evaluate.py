"""One suite, asked of the arms of a finished run or of any model: `cai-base evaluate`.

An evaluation has a directory of its own, which holds every answer with its verdict, every reply of a judge and
`results.json`. It is stored in units like a run: what was stopped goes on where it was, and an arm that is done is not
asked again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from cai_base.dialogue import Chat, Dialogue, Layout, LayoutName, chat_tokens
from cai_base.embedded import EMBEDDED
from cai_base.engines import Engine
from cai_base.errors import Stopped, UserError
from cai_base.evaluation.judges import Judge
from cai_base.evaluation.judges.load import check_judges, load_judges
from cai_base.evaluation.tasks import comparisons as hhh
from cai_base.evaluation.tasks import suite_files, suites
from cai_base.evaluation.tasks.answers import answer
from cai_base.inputs import Inputs, gather
from cai_base.inputs.rubrics import rubrics_for
from cai_base.models import base_of, load_any
from cai_base.progress import Progress
from cai_base.run import suite_results
from cai_base.run.finished_run import Arm, of_run
from cai_base.run.suite_results import ARM, MODEL_ARM
from cai_base.settings.command_line import check_folder, flag_names, load_settings, override_settings
from cai_base.settings.schema import RunSettings
from cai_base.store import MANIFEST, Record, Run, to_json, to_lines

UNIT = 64
"""Prompts whose answers are stored, or asked for again, together."""
TOO_LONG = "the prompt is too long for the model's context"

JUDGING = {"judge", "judge-url", "judge-tokenizer", "second-judge", "second-judge-url", "second-judge-tokenizer"}
JUDGED_BY = {*JUDGING, "rubric", "votes", "judging"}
ASKED_BY = {"evaluation", "threads", "tinker-url"}
MODEL_FLAGS = {"engine", "tokenizer", "tinker-timeout", "seeds", "start-seed", "data", "config"}
"""Flags of `run` that `evaluate` takes: of a run only who judges, and how answers are drawn."""

OWN_FLAGS = ("--suite", "--limit", "--layout", "--base", "--arms", "--out", "--json")


@dataclass(frozen=True, slots=True)
class Request:
    """What `cai-base evaluate` was given.

    Attributes:
        target: a run's directory, `organism`, a model's folder or hub id, or a PEFT adapter's folder.
        suite: a suite's name, a file, or both as NAME:FILE.
        limit: ask so many of its prompts.
        layout: how a model that is no run's arm is asked; `auto` takes its chat template if it has one.
        base: the base model of a PEFT adapter, where its own configuration names none, or another.
        arms: of a run; all by default.
        out: the evaluation's directory.
        flags: flags of `run`, as they were given.
    """

    target: str
    suite: str
    limit: int | None
    layout: LayoutName
    base: str | None
    arms: tuple[str, ...] | None
    out: Path | None
    flags: list[str]


@dataclass(frozen=True, slots=True)
class _Target:
    """Who is asked: settings, inputs, and the arms by name, which are loaded as they are taken."""

    settings: RunSettings
    inputs: Inputs
    arms: Callable[[Sequence[str]], Iterator[Arm]]
    names: list[str]
    about: Record
    place: Path


def evaluate(request: Request, progress: Progress) -> Path:
    """Ask, judge, and write what came out.

    Returns:
        The evaluation's directory.

    Raises:
        UserError: the suite, the model or a flag is wrong.
        Stopped: it was stopped; the same command goes on.
    """
    if request.limit is not None and request.limit < 1:
        raise UserError(f"--limit {request.limit}: must be at least 1")
    _check_target(request.target)
    progress.say(f"Reading the suite {request.suite}")
    name, files = suite_files.find(request.suite)
    asked = _read(name, files)
    if isinstance(asked, hhh.Comparisons):
        for flag in sorted(flag_names(request.flags, "evaluate", OWN_FLAGS) & JUDGED_BY):
            raise UserError(f"--{flag}: {hhh.NAME} compares log-probabilities and asks no judge; leave it out")
    target = _of_run(request, asked, progress) if _is_run(request.target) else _of_model(request, asked, progress)
    config = _config(request, asked, target)
    run = _directory(target.place, config, explicit=request.out is not None)
    with run.locked():
        try:
            if isinstance(asked, hhh.Comparisons):
                _compare(run, asked, request.limit, target, progress)
            else:
                _ask(run, asked, request.limit, target, progress)
        except Stopped as error:
            raise Stopped(f"{error}; the same command goes on") from error
        except KeyboardInterrupt:
            raise Stopped(f"stopped; what is done is kept in {run.directory}, and the same command goes on") from None
    return run.directory


def _read(name: str | None, files: list[Path]) -> suites.Suite | hhh.Comparisons:
    if name == hhh.NAME or (name is None and hhh.recognised(files[0])):
        return hhh.read(files[0])
    return suites.read(name, files)


def _is_run(target: str) -> bool:
    return (Path(target) / MANIFEST).is_file()


def _check_target(target: str) -> None:
    """See that something lies there before a suite is fetched or a judge asked for.

    Raises:
        UserError: a path has neither a run nor a model, or is beside runs and no run itself.
    """
    folder = Path(target)
    known = (MANIFEST, "config.json", "adapter_config.json")
    if target == EMBEDDED or any((folder / name).is_file() for name in known):
        return
    if folder.exists():
        raise UserError(f"{target}: has neither a run ({MANIFEST}) nor a model (config.json or adapter_config.json)")
    if beside := sorted(found.parent.name for found in folder.parent.glob(f"*/{MANIFEST}")):
        raise UserError(f"{target}: there is no such run; {folder.parent} has {', '.join(beside)}")
    if target.startswith((".", "/", "~")) or "/" not in target:
        raise UserError(f"{target}: there is no such folder; a hub id has the form owner/name")


def _of_run(request: Request, asked: suites.Suite | hhh.Comparisons, progress: Progress) -> _Target:
    directory = Path(request.target)
    given = _only(request, {*JUDGED_BY, *ASKED_BY}, "the run keeps its own settings")
    for flag, value in (("base", request.base), ("layout", None if request.layout == "auto" else request.layout)):
        if value is not None:
            raise UserError(f"--{flag} {value}: is for a model; the arms of a run are asked as they were there")
    run = Run.open(directory)
    if "suite" in run.config:
        raise UserError(f"{directory}: is an evaluation, not a run; give the run or the model that was evaluated")
    config: Record = dict(run.config)
    if "judge" in given:  # a judge brings its own way of being asked
        config = {key: value for key, value in config.items() if key not in {*JUDGING, "rubric", "votes"}}
    settings = override_settings(config, request.flags)
    threads = settings.threads if "threads" in given else None
    there = settings.evaluated_arms
    for arm in request.arms or ():
        if arm not in there:
            raise UserError(f"--arms {arm}: {directory} has no such arm; it has {', '.join(there)}")
    inputs = Inputs.read(directory / "inputs.json")
    rubrics = tuple(rubrics_for(settings.rubric).values()) if settings.asks_rubrics else ()
    if given & {"judge", "rubric", "second-judge"}:
        inputs = inputs.model_copy(update={"rubrics": rubrics})
    return _Target(
        settings,
        inputs,
        lambda names: of_run(directory, progress, names, threads),
        [arm for arm in there if request.arms is None or arm in request.arms],
        {"of": "run", "model": settings.model if settings.model == EMBEDDED else Path(settings.model).name},
        request.out or directory / "suites" / _slug(asked),
    )


def _of_model(request: Request, asked: suites.Suite | hhh.Comparisons, progress: Progress) -> _Target:
    if request.arms is not None:
        raise UserError(f"--arms: {request.target} is no run, and has no arms; leave it out")
    _only(request, {*JUDGED_BY, *ASKED_BY, *MODEL_FLAGS}, "it decides nothing here")
    adapter = Path(request.target) if (Path(request.target) / "adapter_config.json").is_file() else None
    named = None if adapter is None or request.base else base_of(adapter)
    if adapter is None and request.base is not None:
        raise UserError(f"--base {request.base}: {request.target} is no PEFT adapter (it has no adapter_config.json)")
    model = request.base or named or request.target
    defaults: Record = {"seeds": 1}
    if isinstance(asked, hhh.Comparisons):
        defaults["judge"] = "none"
    flag = f"{adapter}/adapter_config.json: base_model_name_or_path" if named else "--base" if adapter else "MODEL"
    check_folder(flag, model)
    settings, _, _ = load_settings([*request.flags, "--model", model], defaults)
    inputs = gather(settings)

    def arms(names: Sequence[str]) -> Iterator[Arm]:
        engine, loaded = load_any(settings, adapter, flag, progress)
        layout = _layout(request.layout, engine, inputs)
        yield Arm(MODEL_ARM, engine, layout, dict.fromkeys(settings.seed_numbers, loaded))

    shown = Path(request.target).name if Path(request.target).exists() else request.target
    place = Path("evaluations") / f"{date.today().isoformat()}-{Path(request.target).name}-{_slug(asked)}"
    about: Record = {"of": "model", "model": shown, "layout": request.layout, "seeds": list(settings.seed_numbers)}
    if adapter is not None:
        about["base"] = model if model == EMBEDDED else Path(model).name
    return _Target(settings, inputs, arms, [MODEL_ARM], about, request.out or place)


def _only(request: Request, allowed: set[str], why: str) -> set[str]:
    """The names of the flags of `run` that were given; raises UserError for one that is not among the `allowed`."""
    given = flag_names(request.flags, "evaluate", OWN_FLAGS)
    for flag in sorted(given - allowed):
        raise UserError(f"--{flag}: is no flag of cai-base evaluate for {request.target}: {why}; leave it out")
    return given


def _layout(wanted: LayoutName, engine: Engine, inputs: Inputs) -> Layout:
    """The chat template where there is one, unless another layout is wanted; else the few-shot dialogue."""
    if wanted == "dialogue":
        return Dialogue(inputs.few_shot, ())
    try:
        chat_tokens(engine.tokenizer, (), "Hello!")
    except UserError:
        if wanted == "chat":
            raise
        return Dialogue(inputs.few_shot, ())
    return Chat()


def _slug(asked: suites.Suite | hhh.Comparisons) -> str:
    name = asked.name if isinstance(asked, suites.Suite) else hhh.NAME
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)


def _config(request: Request, asked: suites.Suite | hhh.Comparisons, target: _Target) -> Record:
    """What makes two evaluations the same one."""
    settings = target.settings
    dumped = settings.model_dump(mode="json", by_alias=True)
    config: Record = {
        **target.about,
        "suite": {"name": _slug(asked), "files": list(asked.files), "sha256": asked.sha256},
        "limit": request.limit,
    }
    if isinstance(asked, suites.Suite):
        config |= {name: dumped[name] for name in sorted({*JUDGED_BY, "evaluation"} - {"rubric"})}
        config["rubrics"] = {rubric.task: rubric.digest for rubric in target.inputs.rubrics}
    return config


def _directory(place: Path, config: Record, *, explicit: bool) -> Run:
    """The evaluation's directory: the one that has this configuration already, or a new one beside it.

    Raises:
        UserError: `--out` names one that is something else.
    """
    number, candidate = 1, place
    while candidate.exists():
        if (candidate / MANIFEST).is_file():
            found = Run.open(candidate)
            if found.config == config:
                return found
        if explicit:
            raise UserError(f"--out {candidate}: holds something else than this evaluation; give another directory")
        number += 1
        candidate = place.with_name(f"{place.name}-{number}")
    return Run.create(candidate, config, {})


def _ask(run: Run, suite: suites.Suite, limit: int | None, target: _Target, progress: Progress) -> None:
    """Put the suite's prompts to every arm that has not answered all of them."""
    asked = suites.some(suite.asked, limit)
    units = range(0, len(asked), UNIT)
    missing = [name for name in target.names if run.progress(f"{ARM}{name}") < len(units)]
    if missing:
        check_judges(target.settings, progress)
    judges = load_judges(target.settings, target.inputs, run.directory, progress) if missing else {}
    for arm in target.arms(missing) if missing else ():
        _keep_arm(run, arm)
        done, models = run.progress(f"{ARM}{arm.name}"), len(arm.models)
        total = len(asked) * models
        with progress.bar(f"answers of {arm.name}", total, min(done * UNIT, len(asked)) * models) as bar:
            for unit in range(done, len(units)):
                part = asked[units[unit] : units[unit] + UNIT]
                records = _answers(arm, target.settings, judges, part)
                lines = {f"{arm.name}/seed-{seed}.jsonl": to_lines(found) for seed, found in records.items()}
                run.commit(f"{ARM}{arm.name}", unit + 1, append=lines)
                bar.advance(len(part) * models)
    content = suite_results.collect(run, target.settings, target.inputs, suite, asked, len(units))
    run.commit("results", 1, write={"results.json": to_json(content)})


def _keep_arm(run: Run, arm: Arm) -> None:
    """Store how an arm is asked, and see that a later process asks the same model."""
    name = f"{ARM}{arm.name}"
    about = {
        "layout": "chat template" if isinstance(arm.layout, Chat) else "few-shot dialogue",
        "seeds": list(arm.models),
        "context": arm.engine.context_length,
        "weights": arm.engine.findings().get("model"),
        "one_model": len(set(arm.models.values())) == 1,
    }
    stored = run.recorded(name)
    if stored is not None and stored["weights"] != about["weights"]:
        raise UserError(
            f"{run.directory}: the weights of {arm.name} are not those that this evaluation began with; put those "
            "back, or give another --out"
        )
    run.record_on_commit(name, lambda: about)


def _answers(
    arm: Arm, settings: RunSettings, judges: Mapping[str, Judge], part: Sequence[suites.Asked]
) -> dict[int, list[Record]]:
    """Each model's answers to some prompts, in their order, with verdicts. A prompt that does not fit has none."""
    room = arm.engine.context_length - settings.evaluation.response_tokens
    fitting = [
        one.prompt for one in part if len(arm.layout.question_tokens(arm.engine.tokenizer, one.prompt.text)) <= room
    ]
    by_task = answer(arm.engine, arm.layout, settings.evaluation, judges["judge"], fitting, arm.models)
    out: dict[int, list[Record]] = {}
    for seed in arm.models:
        found = {record["id"]: record for records in by_task[seed].values() for record in records}
        out[seed] = [{**(found.get(one.prompt.id) or _unasked(one)), "family": one.category} for one in part]
    if "second-judge" in judges:
        every = [record for records in out.values() for record in records]
        prompts = {one.prompt.id: one.prompt for one in part}
        again = judges["second-judge"].judge([(prompts[record["id"]], record["response"]) for record in every])
        for record, judgement in zip(every, again, strict=True):
            record["second"] = judgement.record()
    return out


def _unasked(one: suites.Asked) -> Record:
    kept: dict[str, Any] = {"id": one.prompt.id, "kind": one.prompt.kind, "prompt": one.prompt.text}
    return {**kept, "response": "", "tokens": None, "truncated": False, "verdict": None, "unscored": TOO_LONG}


def _compare(run: Run, found: hhh.Comparisons, limit: int | None, target: _Target, progress: Progress) -> None:
    """Have every arm value both answers of every comparison."""
    items = suites.some(found.items, limit)
    units = range(0, len(items), hhh.UNIT)
    missing = [name for name in target.names if run.progress(f"{ARM}{name}") < len(units)]
    for arm in target.arms(missing) if missing else ():
        _keep_arm(run, arm)
        done = run.progress(f"{ARM}{arm.name}")
        with progress.bar(f"comparisons of {arm.name}", len(items), min(done * hhh.UNIT, len(items))) as bar:
            for unit in range(done, len(units)):
                part = items[units[unit] : units[unit] + hhh.UNIT]
                records = hhh.score(arm.engine, arm.layout, arm.models, part)
                lines = {f"{arm.name}/seed-{seed}.jsonl": to_lines(one) for seed, one in records.items()}
                run.commit(f"{ARM}{arm.name}", unit + 1, append=lines)
                bar.advance(len(part))
    content = suite_results.collect_comparisons(run, target.settings, found, len(items), len(units))
    run.commit("results", 1, write={"results.json": to_json(content)})
