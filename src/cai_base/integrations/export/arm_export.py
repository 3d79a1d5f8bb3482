"""`cai-base export`: writes an arm in a format for other programs, with tokenizer, template, settings and card."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai_base import embedded, paths
from cai_base.arms import ARMS, Arm
from cai_base.dialogue import Dialogue
from cai_base.errors import UserError
from cai_base.inputs import Inputs
from cai_base.integrations.export.card import CardFacts, model_card
from cai_base.integrations.export.preferences import write_preferences
from cai_base.models import model_files
from cai_base.progress import Progress
from cai_base.reading import read_record
from cai_base.records import Results
from cai_base.run.finished_run import check_arms
from cai_base.run.session_facts import last_session
from cai_base.run.stored import answers_of, check_finished, stored_adapter
from cai_base.settings.choices import ModelChoice
from cai_base.settings.engines import engine_kind
from cai_base.settings.schema import Evaluation
from cai_base.settings.validation import stored_settings
from cai_base.store import Run, refuse_existing, scratch
from cai_base.text import counted

BASE_FOLDER = "base-model"
"""The folder for a copy of the embedded base model beside its adapter, because it is on no hub."""

TRIED_PROMPTS = 20
"""The number of the run's prompts for which the template's tokens are compared with the run's."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """The arguments of `cai-base export`.

    Attributes:
        seed: None for the run's first seed.
        form: `adapter`, `merged`, `gguf` or `preferences`.
        dtype: the dtype of merged weights.
    """

    run: Path
    arm: str
    seed: int | None
    form: str
    dtype: str
    out: Path


def export(request: ExportRequest, progress: Progress) -> list[str]:
    """Write the export. Returns notes for its user, a sentence each.

    Raises:
        UserError: the run is not finished or has no such arm or seed, or the arm cannot be written in this format.
    """
    refuse_existing(request.out)
    run = Run.watch(request.run)
    settings = stored_settings(run)
    check_finished(run)
    arm = _arm(request, settings.scope.arms, settings.instruct)
    seed = _seed(request, settings.seed_numbers)
    progress.say(f"Checking the files of {request.run}")
    run.verify()  # last, because the hashes of all files take long
    results = read_record(run.directory / paths.RESULTS, Results, "the results of a run", "restore it")
    inputs = Inputs.read(run.directory / paths.INPUTS)
    dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    with scratch(request.out.parent, "cai-base") as folder:
        new = folder / "export"
        new.mkdir()
        if request.form == "preferences":
            count = write_preferences(run, settings, results, arm, dialogue, new)
            notes = [f"{counted(count, 'preference pair')} of {counted(len(settings.seed_numbers), 'seed')}"]
        else:
            source = _Source(
                run, settings.base_model, settings.evaluation, results, inputs, dialogue, arm, seed, request.dtype
            )
            exported = _write(source, request.form, new, request.out, progress)
            card = CardFacts(
                arm,
                seed,
                request.form,
                exported.base,
                exported.licence,
                exported.notes,
                versions=last_session(run).versions,
                settings=settings,
                worked_critiques=len(dialogue.critique_examples),
            )
            (new / "README.md").write_text(model_card(results, card), encoding="utf-8")
            notes = exported.notes
        try:
            new.rename(request.out)
        except OSError:
            refuse_existing(request.out)  # another process has written it meanwhile
            raise
    return notes


@dataclass(frozen=True, slots=True)
class _Source:
    """The source of an export."""

    run: Run
    base: ModelChoice
    evaluation: Evaluation
    results: Results
    inputs: Inputs
    dialogue: Dialogue
    arm: Arm
    seed: int
    dtype: str

    @property
    def adapter(self) -> Path | None:
        """The folder of the arm's adapter; None for the base model."""
        trained = ARMS[self.arm.adapters_of or self.arm.name]
        if trained.folder is None:
            return None
        folder = stored_adapter(self.run, self.seed, trained.folder)
        if folder is None:
            raise UserError(f"--seed {self.seed}: failed in {trained.folder}, so it has no adapter; give another seed")
        return folder


def _arm(request: ExportRequest, evaluated: Sequence[str], instruct: str | None) -> Arm:
    check_arms([request.arm], evaluated, f"--arm: {request.run}")
    arm = ARMS[request.arm]
    if arm.inference is not None:
        raise UserError(
            f"--arm {request.arm}: has the adapters of {arm.adapters_of} and differs only in its prompts, which an "
            f"export does not contain; export {arm.adapters_of}"
        )
    if arm.group == "other":
        raise UserError(f"--arm {arm.name}: was not trained by this run; use the original ({instruct or 'cai-base'})")
    if arm.group == "start" and request.form == "adapter":
        raise UserError(f"--arm {arm.name}: is the base model, and has no adapter; give --merged or --gguf")
    return arm


def _seed(request: ExportRequest, seeds: Sequence[int]) -> int:
    seed = seeds[0] if request.seed is None else request.seed
    if seed not in seeds:
        have = ", ".join(map(str, seeds))
        raise UserError(f"--seed {seed}: {request.run} has no such seed; it has {have}")
    return seed


@dataclass(frozen=True, slots=True)
class _Exported:
    """What was written.

    Attributes:
        base: the base model's name as a reader of the export finds it.
        licence: the base model's licence, if known.
        notes: what its user should know, a sentence each.
    """

    base: str
    licence: str | None
    notes: list[str]


def _write(source: _Source, form: str, new: Path, out: Path, progress: Progress) -> _Exported:
    model_name, served = source.base.model, engine_kind(source.base.engine).served
    adapter = source.adapter
    if served and form != "adapter":
        raise UserError(
            f"--{form}: the weights of {model_name} are on a service; export the adapter, and merge it with PEFT "
            "on a machine that has the base model"
        )
    from cai_base.engines.weight_files import save_model
    from cai_base.integrations.export import weights

    files = None if served else model_files(model_name)
    notes: list[str] = []
    base = _base_name(model_name)
    if files is not None:
        tokenizer, sentences = _write_layout(source, files, new)
        notes += sentences
    if form == "adapter":
        assert adapter is not None
        if embedded.is_embedded(model_name):
            shutil.copytree(embedded.weights(model_name), new / BASE_FOLDER)
            base = str((out / BASE_FOLDER).resolve())
            notes.append(
                "The base model is in the folder `base-model` here. adapter_config.json has its path at the time of "
                "the export: if you move it, load the base model yourself and pass it to PEFT"
            )
        weights.copy_adapter(adapter, new, base)
        base_in_words = f"FOLDER/{BASE_FOLDER}" if embedded.is_embedded(model_name) else base
    else:
        assert files is not None
        progress.say(f"Loading {model_name}")
        model = weights.load_base(files, source.dtype)
        if adapter is not None:
            weights.merge(model, adapter)
        kind = str(model.dtype).removeprefix("torch.")
        notes.append(f"The merged weights are in {kind}" + ("" if kind == "float32" else ", which rounds the sum"))
        base_in_words = base
        if form == "gguf":
            from cai_base.integrations.export.gguf_file import write_gguf

            name = f"{source.results.model}-{source.arm.name}-seed-{source.seed}"
            notes.append(write_gguf(model, tokenizer, new / "model.gguf", name, _texts(source)))
            for path in [path for path in new.iterdir() if path.name != "model.gguf"]:
                path.unlink()
        else:
            generation = (new / "generation_config.json").read_bytes()
            save_model(model, new)
            (new / "generation_config.json").write_bytes(generation)
    return _Exported(base_in_words, _licence(model_name, files), notes)


def _write_layout(source: _Source, files: str, new: Path) -> tuple[Any, list[str]]:
    """Write tokenizer, chat template and generation settings. Returns the tokenizer, and notes for its user."""
    from transformers import AutoTokenizer

    from cai_base.engines.tokenizer import HubTokenizer
    from cai_base.integrations.export.layout import chat_template, check_template, generation_settings

    tokenizer: Any = AutoTokenizer.from_pretrained(files, trust_remote_code=False)
    wrapped = HubTokenizer(tokenizer)
    tokenizer.chat_template = chat_template(source.dialogue, [wrapped.decode_special(token) for token in wrapped.bos])
    prompts = [prompt.text for prompt in source.inputs.evaluation_prompts[:TRIED_PROMPTS]]
    check_template(tokenizer, wrapped, source.dialogue, prompts)
    tokenizer.save_pretrained(new)
    drawing = generation_settings(source.evaluation, _ends(files, wrapped.eos), wrapped.bos)
    (new / "generation_config.json").write_text(json.dumps(drawing, indent=2) + "\n")
    return tokenizer, [
        "The chat template is the few-shot layout in which the arm was trained and evaluated. A system message, for "
        "which a base model has no slot, is put before the first question",
    ]


def _ends(files: str, own: frozenset[int]) -> list[int]:
    """The end-of-text tokens: the tokenizer's, and those of the base model's generation settings."""
    from transformers import GenerationConfig

    try:
        stored = GenerationConfig.from_pretrained(files).eos_token_id
    except OSError:  # the base model has no generation settings
        stored = None
    ends = stored if isinstance(stored, list) else [] if stored is None else [stored]
    return sorted({*own, *map(int, ends)})


def _texts(source: _Source) -> Sequence[str]:
    """Texts of the run: the prompts and the arm's answers, in their layouts."""
    prompts = [*source.inputs.evaluation_prompts, *source.inputs.prompts]
    texts = [source.dialogue.question(prompt.text) for prompt in prompts]
    answers = answers_of(source.run, source.seed, source.arm.name)
    return [*texts, *(f" {answer.response}\n\nUser:" for answer in answers)]


def _base_name(model: str) -> str:
    """The base model's name for PEFT and for readers: a hub id, or the path of a local folder."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.exists() and not embedded.is_embedded(model) else model


def _licence(model: str, files: str | None) -> str | None:
    """The licence from the base model's card, if its folder has one."""
    if embedded.is_embedded(model):
        return "apache-2.0"
    card = None if files is None else Path(files) / "README.md"
    if card is None or not card.is_file():
        return None
    _, _, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
    for line in rest.partition("\n---")[0].splitlines():
        if line.startswith("license:"):
            return line.partition(":")[2].strip() or None
    return None
