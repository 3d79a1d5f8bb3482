"""Starts and resumes runs: inputs, models, judges, and the checks of preflight.

`begin` makes a new run, `resume` opens a stopped run, `examine` only makes the checks.
"""

import gc
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cai_base import embedded, paths
from cai_base.arms import ARMS, INSTRUCT
from cai_base.dialogue import Dialogue
from cai_base.engines import Engine, Usage
from cai_base.errors import UserError
from cai_base.evaluation import metrics
from cai_base.evaluation.judges import Judge
from cai_base.evaluation.judges.load import check_judges, keep_replies, load_judges
from cai_base.inputs import Inputs, gather, ignored
from cai_base.inputs.constitution import Constitution, Principle, load_constitution
from cai_base.method.interpreter import Interpreter
from cai_base.method.phase import Phase
from cai_base.models import check_instruct, load_engine
from cai_base.progress import Progress
from cai_base.reading import quote
from cai_base.records import Answer
from cai_base.run.context_fit import fit
from cai_base.run.findings import ENGINE, INTERPRETER, record_of, stored_findings
from cai_base.run.folder_guide import folder_guide
from cai_base.run.identity import FILES, check_files, record_of_files
from cai_base.run.inference import interpreter_of
from cai_base.run.preflight.checks import every_check, make_checks
from cai_base.run.preflight.models import ask_instruct
from cai_base.run.preflight.outcome import Check, refuse
from cai_base.run.repeat import Repeated
from cai_base.run.session_facts import session_facts
from cai_base.run.spending import cost, forecast
from cai_base.run.spending.budget import Budget
from cai_base.run.spending.limits import check_limits
from cai_base.run.spending.prices import Prices
from cai_base.settings.schema import LOSSES, SELF, Dpo, RunSettings
from cai_base.settings.validation import stored_settings
from cai_base.store import Run, refuse_existing, to_json, write_atomic
from cai_base.text import counted

FOREIGN = 0.1
"""There is a warning about a principle of which more than this share of the words is unknown in the embedded model's
world and in its packaged constitution. It is 0.10 to 0.29 for the packaged English principles."""
NAMED, TELLING = 4, 3
"""The prompts or principles that a warning names, and the words that it gives of each principle."""

ORDER = 5
"""There is a warning if beta is greater or smaller than the loss's default by more than this factor."""
DPO_ARMS = frozenset(name for name, arm in ARMS.items() if arm.section == "dpo")
"""The arms that are trained on preference pairs."""

Phases = Callable[[RunSettings, Inputs], Sequence[Phase]]
"""The phases of a run with these settings and inputs."""


@dataclass(frozen=True, slots=True)
class Examination:
    """The outcome of the checks before a run, and what they loaded.

    Attributes:
        settings: with lengths that fit the model's context.
        judges: by the flag that names each.
        pilot: answers of the base model.
    """

    settings: RunSettings
    inputs: Inputs
    engine: Engine
    interpreter: Interpreter
    judges: Mapping[str, Judge]
    warnings: list[str]
    checks: list[Check]
    pilot: list[Answer]


class Session:
    """One process's work on a run: the run, its settings and inputs, and the loaded engine and judges.

    Attributes:
        judges: by the flag that names each.
        budget: what the run has spent so far, including earlier sessions.
    """

    def __init__(
        self,
        settings: RunSettings,
        inputs: Inputs,
        engine: Engine,
        interpreter: Interpreter,
        judges: Mapping[str, Judge],
        run: Run,
        progress: Progress,
    ) -> None:
        self.settings, self.inputs, self.judges, self.run, self.progress = settings, inputs, judges, run, progress
        self.dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)
        self._engine: Engine | None = engine
        self._interpreter: Interpreter | None = interpreter
        for name, one in _engines(engine, interpreter, settings.other_interpreter).items():
            run.record_on_commit(name, partial(record_of, one))
        meters = {flag: judge.meter for flag, judge in judges.items() if judge.meter is not None}
        if settings.other_interpreter:
            meters[INTERPRETER] = interpreter.engine.meter
        self.budget = Budget(
            Prices.of_models(settings.models, settings.price),
            settings.max_cost,
            run,
            {"method": engine.meter, **meters},
        )
        run.record_session(session_facts(engine.device))
        guide = run.directory / paths.README
        if not guide.exists():  # not hashed in the manifest: a person may edit it
            write_atomic(guide, folder_guide(settings.model, settings.scope, settings.judge).encode())

    @property
    def engine(self) -> Engine:
        """The engine with the base model."""
        assert self._engine is not None, "the engine was released"
        return self._engine

    @property
    def interpreter(self) -> Interpreter:
        """The model that critiques, revises and compares."""
        assert self._interpreter is not None, "the interpreter was released"
        return self._interpreter

    def release_engine(self) -> None:
        """Release the engines, to free their memory. Their findings remain stored in the manifest."""
        for name, one in _engines(self.engine, self.interpreter, self.settings.other_interpreter).items():
            self.run.record_on_commit(name, partial(dict, record_of(one)))
        self._engine = self._interpreter = None


def _engines(engine: Engine, interpreter: Interpreter, other: bool) -> dict[str, Engine]:
    """The engines of a run by the names of their findings: the run's own, and a separate interpreter's if `other`."""
    return {ENGINE: engine} | ({INTERPRETER: interpreter.engine} if other else {})


def examine(
    settings: RunSettings, out: Path, progress: Progress, phases: Phases, repeated: Repeated | None = None
) -> Examination:
    """Check everything that can be checked before the run begins. Nothing is trained or stored.

    Args:
        repeated: the run that this one repeats, if it repeats one.

    Raises:
        UserError: an input is wrong, the model cannot be loaded, or `out` exists.
    """
    refuse_existing(out)
    metrics.check_primary(settings.evaluation.primary)
    if repeated is None:
        _check_interpreter(settings)
    inputs = gather(settings) if repeated is None else repeated.inputs
    check_limits(settings.base_model, settings.seeds)
    Prices.of_models(settings.models, settings.price).check_limit(settings.max_cost)
    check_judges(settings.judge_choices, progress)
    settings = settings.model_copy(update={"threads": settings.threads or len(os.sched_getaffinity(0))})
    instruct = None
    if INSTRUCT in settings.evaluated_arms:
        check_instruct(settings.instruct_model, progress)
        progress.say(f"Loading {settings.instruct or 'the instruct sibling'}")
        instruct = ask_instruct(
            settings.instruct_model, settings.evaluation, inputs.evaluation_prompts, settings.start_seed, progress
        )
        gc.collect()  # two models may not fit into memory
    progress.say(f"Loading {settings.model}")
    engine = load_engine(settings.base_model, progress, None if repeated is None else repeated.engine)
    interpreter = interpreter_of(settings.interpreter_model, engine, progress)
    size = cost.run_size(settings.seeds, settings.revision, settings.evaluate_every, inputs, engine.tokenizer)
    revision, evaluation, warnings = fit(
        settings.revision,
        settings.evaluation,
        settings.prompted,
        [ARMS[name] for name in settings.evaluated_arms],
        inputs,
        engine,
        size,
        phases(settings, inputs),
        interpreter.engine if settings.other_interpreter else None,
    )
    settings = settings.model_copy(update={"revision": revision, "evaluation": evaluation})
    if repeated is None:  # stored inputs do not say which entries of the files were left out
        warnings += ignored((settings.prompts, settings.prompts_column), (settings.evaluation.prompts, None))
    warnings += foreign_text(inputs) if embedded.is_embedded(settings.model) else []
    warnings += _untuned_beta(settings.dpo) if DPO_ARMS.intersection(settings.evaluated_arms) else []
    warnings += other_requests(inputs)
    if settings.protocol == "original":
        warnings.insert(
            0, "protocol original: the method's prompts are also evaluation prompts, so no result here is held out"
        )
    for warning in warnings if repeated is None else ():  # a repetition says only what is new
        progress.say(f"warning: {warning}")
    judges = load_judges(settings.judge_choices, inputs.rubrics, None, progress)
    pilot: list[Answer] = []
    checks = every_check(settings, inputs, engine, interpreter, judges, instruct, out, phases(settings, inputs), pilot)
    checked = make_checks(checks, progress)
    return Examination(settings, inputs, engine, interpreter, judges, warnings, checked, pilot)


def begin(
    settings: RunSettings, out: Path, progress: Progress, phases: Phases, repeated: Repeated | None = None
) -> Session:
    """Check everything that can be checked before the run begins, and make the run's directory.

    Args:
        repeated: the run that this one repeats, if it repeats one.

    Raises:
        UserError: as for `examine`, or a check failed that `--accept` does not name.
    """
    examined = examine(settings, out, progress, phases, repeated)
    warnings = [*examined.warnings, *refuse(examined.checks, settings.accept)]
    if repeated is not None:
        warnings = repeated.same_warnings(warnings, progress)
    engines = _engines(examined.engine, examined.interpreter, examined.settings.other_interpreter)
    run = Run.create(
        out,
        examined.settings.model_dump(mode="json", by_alias=True),
        {
            paths.INPUTS: examined.inputs.to_bytes(),
            paths.WARNINGS: to_json(warnings),
            paths.PREFLIGHT: to_json([check.dump() for check in examined.checks]),
        },
        {name: record_of(engine) for name, engine in engines.items()}
        | {FILES: record_of_files(examined.settings.models, examined.settings.evaluated_arms)},
    )
    keep_replies(examined.judges, run.directory)
    parts = (examined.settings, examined.inputs, examined.engine, examined.interpreter, examined.judges)
    session = Session(*parts, run, progress)
    forecast.first(
        examined.settings,
        examined.inputs,
        examined.engine,
        phases,
        examined.pilot,
        run,
        session.budget.seconds,
        progress,
    )
    run.commit()  # stores preflight's tokens, even if no unit is ever stored
    return session


def resume(directory: Path, progress: Progress, max_cost: float | None = None) -> Session:
    """Open a run that was stopped.

    Args:
        max_cost: a new cost limit in dollars; None for the run's own.

    Raises:
        UserError: the directory is not a run, or its configuration, a stored file or the base model was changed.
    """
    run = Run.open(directory)
    settings = stored_settings(run)
    if max_cost is not None:
        settings = settings.model_copy(update={"max_cost": max_cost})
        Prices.of_models(settings.models, settings.price).check_limit(settings.max_cost)
    inputs = Inputs.read(directory / paths.INPUTS)
    check_judges(settings.judge_choices, progress)
    check_files(run, settings.models, settings.evaluated_arms)
    progress.say(f"Loading {settings.model}")
    engine = load_engine(settings.base_model, progress, stored_findings(run))
    judges = load_judges(settings.judge_choices, inputs.rubrics, directory, progress)
    interpreter = interpreter_of(settings.interpreter_model, engine, progress, stored_findings(run, INTERPRETER))
    session = Session(settings, inputs, engine, interpreter, judges, run, progress)
    forecast.follow(run, engine, session.budget.seconds, progress)
    lost = session.budget.lost
    if lost != Usage():
        progress.say(
            f"Work that was not stored when this run stopped is repeated and paid for again: at most {lost.prefilled} "
            f"tokens read, {lost.sampled} sampled, {lost.trained} trained on"
        )
    return session


def _check_interpreter(settings: RunSettings) -> None:
    """Check that the interpreter has something to do.

    Raises:
        UserError: the settings name one, and no arm needs critiques, revisions or comparisons.
    """
    compares = any(ARMS[name].source == "comparisons" for name in settings.evaluated_arms)
    if settings.interpreter != SELF and not settings.revises and not compares:
        raise UserError(
            f"--interpreter {settings.interpreter}: would do nothing, since no arm of this run needs critiques, "
            "revisions or comparisons; leave it out, or add an arm that does, as in --arms sft,cai"
        )


def _untuned_beta(dpo: Dpo) -> list[str]:
    """A warning if beta differs from the default of its loss by an order of magnitude."""
    own = LOSSES[dpo.loss].beta
    if own is None or own / ORDER < dpo.beta < own * ORDER:
        return []
    return [
        f"--dpo.beta {dpo.beta:g} is far from {own:g}, the default for the loss {dpo.loss}, so the margins per token "
        "will be of another order; check the margins, or leave --dpo.beta out"
    ]


def other_requests(inputs: Inputs) -> list[str]:
    """A warning if the worked examples use critique requests that are not in the constitution."""
    requests = {" ".join(principle.critique_request.split()) for principle in inputs.constitution.principles}
    other = sum(" ".join(one.critique_request.split()) not in requests for one in inputs.critique_examples)
    if not other:
        return []
    return [
        f"{other} of the {len(inputs.critique_examples)} worked critiques use a request that is not in the "
        "constitution: a model may learn from them what the constitution does not say; give --critique-examples that "
        "match it"
    ]


def foreign_text(inputs: Inputs) -> list[str]:
    """Warnings about prompts and principles with words that the embedded model does not know, such as real English."""
    warnings = []
    unknown = [prompt.text for prompt in inputs.prompts if not embedded.knows(prompt.text)]
    if unknown:
        more = f", and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        warnings.append(
            f"{len(unknown)} of the method's {counted(len(inputs.prompts), 'prompt')} cannot be understood by the "
            "embedded model, whose world has no such things, and their revisions mean nothing: "
            f"{', '.join(map(quote, unknown[:NAMED]))}{more}"
        )
    return warnings + _foreign_principles(inputs.constitution)


def _foreign_principles(constitution: Constitution) -> list[str]:
    """A warning that names the principles with unknown words, and those of their words that fewest others have."""
    packaged = load_constitution(embedded.data_file("constitution.toml"))
    own = {word for principle in packaged.principles for word in embedded.unknown_words(_requests(principle))}
    foreign: dict[str, list[str]] = {}
    for principle in constitution.principles:
        words = [word for word in embedded.unknown_words(_requests(principle)) if word not in own]
        if len(words) > FOREIGN * len(embedded.words_of(_requests(principle))):
            foreign[principle.name] = list(dict.fromkeys(words))
    if not foreign:
        return []
    uses = Counter(word for words in foreign.values() for word in words)
    telling = {
        name: sorted(words, key=lambda word: (uses[word], -len(word)))[:TELLING] for name, words in foreign.items()
    }
    named = "; ".join(f"{name} ({', '.join(words)})" for name, words in list(telling.items())[:NAMED])
    more = f"; and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
    return [
        f"{len(foreign)} of the constitution's {len(constitution.principles)} principles have words that are unknown "
        f"in the embedded model's world, which treats such principles as principles about harm: {named}{more}. Write "
        "them in words of src/cai_base/data/world/constitution.toml (without src/ where the package is installed)"
    ]


def _requests(principle: Principle) -> str:
    return f"{principle.critique_request} {principle.revision_request}"
