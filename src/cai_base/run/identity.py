"""Which files a model's name stands for, as hashes, so that other weights under the same name are noticed.

A run and an evaluation store them when they begin. They are compared before stored answers count as done, without
loading a model.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from cai_base import embedded, paths
from cai_base.arms import INSTRUCT
from cai_base.cache import file_digest
from cai_base.engines.files import MODEL_CONFIG
from cai_base.errors import UserError
from cai_base.models import SIBLING, interpreter_engine
from cai_base.reading import RESTORE, build, check_model_files
from cai_base.run.findings import ENGINE, INTERPRETER
from cai_base.settings.choices import JudgeChoice, Models
from cai_base.settings.engines import engine_kind, engine_prefix
from cai_base.store import CONFIG, MANIFEST, JsonObject, Run
from cai_base.store.files import differences

MODEL_PARTS = (".safetensors", ".gguf", ".json", ".jinja", ".model", ".txt")
"""The endings of the files of a folder that decide what its model says: weights, config, tokenizer, chat template."""
FILES = "model files"
"""The manifest's name for the hashes of the models beside the base model, by flag."""
WEIGHTS = "weights"
"""The key of an evaluation's configuration with the hashes of the weights that answer."""

BEGAN = "settings and inputs"
"""The key below it with the hash of what a run began with."""

FLAGS = {INSTRUCT: "--instruct", INTERPRETER: "--interpreter"}
"""The flags of the models beside the base model; a judge's is its own name."""
REMEDY = "restore the old files, or start a new run"
UNBOUND = "a version that did not store the weights that answered made it; cai-base evaluate asks again"
"""What is said of a suite of an earlier version."""


class ModelFiles(BaseModel):
    """The files of a model beside the base model, as a run stores them.

    Attributes:
        files: see `files_digest`.
        commit: of a model of the hub.
    """

    files: str
    commit: str | None


def files_digest(name: str, *, served: bool = False) -> str:
    """A hash of the files that a model's name stands for; the name itself of a model on a service or on the hub.

    Args:
        name: folder, GGUF file, hub id, or the embedded model.
        served: whether it is the name of a model on a service.

    Raises:
        UserError: a file cannot be read.
    """
    if served:
        return name
    path = embedded.weights(name) if embedded.is_embedded(name) else Path(name)
    try:
        if path.is_file():
            return file_digest(path)
        if path.is_dir():
            check_model_files(path)
            return _folder_digest(path)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); make it readable") from None
    return name


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in MODEL_PARTS:
            digest.update(f"{path.name} {file_digest(path)}\n".encode())
    return digest.hexdigest()


def hub_commit(name: str) -> str | None:
    """The commit of a hub id's files in the hub's cache on this machine; None if there are none, or for a folder."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(name).exists():
        return None
    try:
        file = try_to_load_from_cache(name, MODEL_CONFIG)
    except HFValidationError:  # not the form of a hub id
        return None
    return Path(file).parent.name if isinstance(file, str) else None


def judge_files(choices: Mapping[str, JudgeChoice]) -> dict[str, str]:
    """The hash of every judge that is a model of this machine, by the flag that names it."""
    local = {flag: one.judge.name for flag, one in choices.items() if one.judge.kind.on_this_machine}
    return {flag: files_digest(name) for flag, name in local.items()}


def names_beside_base(models: Models, evaluated: Collection[str]) -> dict[str, str]:
    """The models of this machine beside the base model that a run with these arms asks, by `FLAGS` or a judge's flag.

    Of an adapter it is the adapter's folder: the weights of its base model are compared by the engine.
    """
    names = {flag: one.judge.name for flag, one in models.judges.items() if one.judge.kind.on_this_machine}
    if INSTRUCT in evaluated and not engine_kind(models.instruct.base.engine).served:
        names[INSTRUCT] = models.instruct.model or str(embedded.sibling())
    interpreter = models.interpreter
    if interpreter.other and not engine_kind(interpreter_engine(interpreter)).served:
        names[INTERPRETER] = (
            str(embedded.sibling()) if interpreter.name == SIBLING else engine_prefix(interpreter.name)[1]
        )
    return names


def record_of_files(models: Models, evaluated: Collection[str]) -> JsonObject:
    """What a run stores of `names_beside_base`, for `check_files`. They were loaded, so the hub's cache has them."""
    names = names_beside_base(models, evaluated)
    records = {key: ModelFiles(files=files_digest(name), commit=hub_commit(name)) for key, name in names.items()}
    return {key: record.model_dump(mode="json") for key, record in records.items()}


def check_files(run: Run, models: Models, evaluated: Collection[str], *, judges: bool = True) -> None:
    """Check that the models beside the base model are those with which a run began.

    A run of an earlier version did not store their hashes; nothing is compared then.

    Args:
        evaluated: the arms that are evaluated.
        judges: whether the run's own judges are asked.

    Raises:
        UserError: the files of one of them have changed.
    """
    stored = run.recorded(FILES) or {}
    for key, name in names_beside_base(models if judges else replace(models, judges={}), evaluated).items():
        if key not in stored:
            continue
        was = build(ModelFiles, stored[key], f"{run.directory / MANIFEST}: {FILES}: {key}", remedy=RESTORE)
        commit = hub_commit(name)
        moved = None not in (was.commit, commit) and was.commit != commit
        if moved or was.files != files_digest(name):
            flag = FLAGS.get(key, f"--{key}")
            raise UserError(f"{flag} {name}: its files are not those with which {run.directory} began; {REMEDY}")


def same_files(one: Run, other: Run, *, interpreter: bool) -> bool:
    """Whether two runs began with the same weights of the base model, and the same files of their judges and, if
    `interpreter`, of a separate interpreter.

    Of a model that only one of them stored nothing is known: it is of an earlier version, or has no such model.
    """
    bases = {(run.recorded(ENGINE) or {}).get("model") for run in (one, other)} - {None}
    first, second = one.recorded(FILES) or {}, other.recorded(FILES) or {}
    apart = {INSTRUCT} if interpreter else {INSTRUCT, INTERPRETER}
    return len(bases) < 2 and all(first[name] == second[name] for name in (first.keys() & second.keys()) - apart)


def run_weights(run: Run) -> JsonObject:
    """What answers in a run, as its manifest has it: the weights of the base model, the adapters by folder, and a hash
    of the settings and the inputs with which the run began."""
    engine = run.recorded(ENGINE) or {}
    by_folder: dict[str, list[str]] = {}
    for name in sorted(run.files):
        folder = paths.adapter_of(name)
        if folder is not None:
            by_folder.setdefault(folder, []).append(name)
    adapters = {
        folder: hashlib.sha256(repr(run.stored(names)).encode()).hexdigest() for folder, names in by_folder.items()
    }
    began = hashlib.sha256(repr(run.began((CONFIG, paths.INPUTS))).encode()).hexdigest()
    return {"model": engine.get("model"), "adapters": adapters, BEGAN: began}


def check_suite(run: Run, suite: Run) -> bool:
    """Check that the arms of this run answered a suite in its folder.

    Returns:
        Whether the suite says whose weights answered; one of an earlier version does not.

    Raises:
        UserError: the arms of another run answered.
    """
    if suite.config.get("of") == "model":  # its results name that model
        return True
    stored = suite.config.get(WEIGHTS)
    if stored is None:
        return False
    mine, stored = run_weights(run), stored if isinstance(stored, dict) else {}
    if BEGAN not in stored:  # of a version that did not store it
        mine.pop(BEGAN)
    for field, _, _ in differences({name: stored.get(name) for name in mine}, mine):
        if field == BEGAN:
            raise UserError(
                f"{suite.directory}: was asked by a run with other settings or inputs; move the folder away, and "
                "ask it again with cai-base evaluate"
            )
        raise UserError(
            f"{suite.directory}: was asked of other weights than those of this run ({field}); "
            "move the folder away, and ask it again with cai-base evaluate"
        )
    return True


def suites_of(run: Path) -> list[Run]:
    """The evaluations in a run's folder, unverified."""
    return [Run.watch(path.parent) for path in sorted(run.glob(f"{paths.SUITES}/*/{MANIFEST}"))]
