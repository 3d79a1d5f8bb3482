"""The model card of an exported arm, filled from the results of its run."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cai_base.arms import BASE, SFT, Arm
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.integrations.export.origin import aid_sentences, others_sentence, tags, training_of, training_sentences
from cai_base.records import Figure, Results
from cai_base.report.labels import ORGANISM, failure_sentences, label
from cai_base.report.numbers import NONE, heading, interval, number
from cai_base.report.page import escaped
from cai_base.settings.schema import Evaluation, RunSettings
from cai_base.text import counted


@dataclass(frozen=True, slots=True)
class CardFacts:
    """The facts on a card that are not in the results.

    Attributes:
        form: `adapter`, `merged` or `gguf`.
        base: the base model's name for readers.
        licence: the base model's licence, if known.
        notes: notes about this export, a sentence each.
        versions: the versions with which the run was made.
        settings: the run's.
        worked_critiques: the number of worked critiques of the run.
    """

    arm: Arm
    seed: int
    form: str
    base: str
    licence: str | None
    notes: Sequence[str]
    versions: Mapping[str, str]
    settings: RunSettings
    worked_critiques: int


def model_card(results: Results, facts: CardFacts) -> str:
    """The card as Markdown, with the hub's metadata at the top."""
    arm = facts.arm
    return "\n".join(
        [
            *_fields(results, facts),
            f"# {arm.label} on {escaped(results.model)}, seed {facts.seed}",
            "",
            f"{arm.about[0].upper()}{arm.about[1:]}. From a run of cai-base on a base model. "
            f"{others_sentence(results, arm)}",
            *(["", ORGANISM] if results.model_organism else []),
            *(f"\n**{escaped(sentence)}**" for sentence in failure_sentences(results)),
            "",
            "## Use it",
            *_usage(facts),
            "",
            *(f"- {note}." for note in facts.notes),
            "",
            "## Figures",
            *_figures(results, arm, facts.seed),
            "",
            "## Training",
            *(f"- {sentence}" for sentence in training_sentences(results, facts.settings, arm)),
            *_aids(aid_sentences(results, facts.settings, arm, facts.worked_critiques)),
            "",
            "## Protocol",
            f"- Protocol {results.protocol}; judge {escaped(str(results.judge))}; "
            f"{counted(len(results.seeds), 'seed')}.",
            *([f"- Made with {', '.join(f'{a} {b}' for a, b in facts.versions.items())}."] if facts.versions else []),
            "",
            "## Limits",
            *(f"- {escaped(warning)}" for warning in results.warnings),
            "- Intervals are over seeds and prompts of this run. Other attacks, languages and longer conversations "
            f"were not tested{': the model was trained on single questions only' if training_of(arm) else ''}.",
            "- It may comply with harmful requests and refuse harmless ones at the rates above.",
            f"- The base model's licence ({facts.licence or 'not known here: read its card'}) governs these weights.",
            "",
        ]
    )


def _aids(sentences: Sequence[str]) -> list[str]:
    return ["", "## Aids besides the principles", *(f"- {one}" for one in sentences)] if sentences else []


def _fields(results: Results, facts: CardFacts) -> list[str]:
    library = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}[facts.form]
    return [
        "---",
        *([] if facts.licence is None else [f"license: {_field(facts.licence)}"]),
        *([] if results.model_organism or "/" not in facts.base else [f"base_model: {_field(facts.base)}"]),
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        f"tags: [{', '.join([*tags(facts.arm), 'cai-base'])}]",
        "---",
    ]


def _field(value: str) -> str:
    """A value in the card's YAML: bare where it is plain, else quoted."""
    return value if re.fullmatch(r"[A-Za-z][\w./-]*", value) else json.dumps(value)


def _usage(facts: CardFacts) -> list[str]:
    asking = [
        'chat = [{"role": "user", "content": "Hello!"}]',
        "tokens = tokenizer.apply_chat_template(",
        '    chat, add_generation_prompt=True, return_tensors="pt", return_dict=True',
        ")",
        "answer = model.generate(**tokens, tokenizer=tokenizer)[0, tokens.input_ids.shape[1]:]",
        'text = tokenizer.decode(answer, skip_special_tokens=True).partition("\\nUser:")[0].strip()',
    ]
    stops = (
        "The arm ends an answer by beginning the next turn. `generation_config.json` has these stop strings; "
        'transformers needs the tokenizer for them. For vLLM, pass them in each request: `stop=["\\nUser:"]`.'
    )
    if facts.form == "gguf":
        return _usage_of_gguf(facts.settings.evaluation)
    first = (
        [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig",
            "",
            "# FOLDER stands for this folder",
            f'base = AutoModelForCausalLM.from_pretrained({json.dumps(facts.base)}, dtype="float32")',
            'model, tokenizer = PeftModel.from_pretrained(base, "FOLDER"), AutoTokenizer.from_pretrained("FOLDER")',
            'model.generation_config = GenerationConfig.from_pretrained("FOLDER")',
        ]
        if facts.form == "adapter"
        else [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained("FOLDER")  # FOLDER stands for this folder',
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        ]
    )
    return [stops, "", "```python", *first, *asking, "```"]


def _usage_of_gguf(evaluation: Evaluation) -> list[str]:
    """The commands that serve and ask the file; it holds no stop strings, so the request has them."""
    request = {
        "messages": [{"role": "user", "content": "Hello!"}],
        "stop": ["\nUser:"],
        "temperature": evaluation.temperature,
        "max_tokens": evaluation.response_tokens,
    }
    return [
        "The arm ends an answer by beginning the next turn. A GGUF file has the chat template but no stop strings and "
        "no sampling settings: give them in each request, with the run's values as below. Without the stop string an "
        "answer goes on with turns of its own.",
        "",
        "```sh",
        "llama-server -m model.gguf --jinja",
        f"curl http://localhost:8080/v1/chat/completions -d '{json.dumps(request)}'",
        "```",
    ]


def _figures(results: Results, arm: Arm, seed: int) -> list[str]:
    """The metrics of the arm, of SFT-only and of the base model, with intervals, and those of this seed."""
    names = [name for name in dict.fromkeys((arm.name, SFT, BASE)) if name in results.arms]
    place = results.seeds.index(seed)
    lines = [
        f"| | {' | '.join(label(name) for name in names)} | {label(arm.name)}, this seed |",
        f"| --- |{' --- |' * (len(names) + 1)}",
    ]
    for metric in results.arms[arm.name]:
        measure = METRICS[metric]
        cells = [_cell(metric, results.arms[name].get(metric)) for name in names]
        own = results.arms[arm.name][metric].per_seed[place]
        lines.append(f"| {heading(measure)} | {' | '.join(cells)} | {NONE if own is None else number(measure, own)} |")
    return [*lines, "", "Brackets are 95 % intervals; results.json of the run says which prompts each metric is over."]


def _cell(metric: str, figure: Figure | None) -> str:
    if figure is None or figure.mean is None:
        return NONE
    measure = METRICS[metric]
    return f"{number(measure, figure.mean)} {interval(measure, figure.ci95)}".strip()
