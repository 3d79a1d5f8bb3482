"""Other programs load the output of `cai-base export`, and give the arm's answers with it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset
from jinja2 import TemplateError
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from cai_base.arms import ARMS
from cai_base.cli import main
from cai_base.dialogue import STOPS, Layout
from cai_base.engines.tokenizer import HubTokenizer
from cai_base.errors import UserError
from cai_base.integrations.export import arm_export
from cai_base.integrations.export.preferences import write_preferences
from cai_base.integrations.server.forms import ChatForm, WrongRequest, read_form, turns_of
from cai_base.progress import Progress
from cai_base.run.finished_run import load_arms
from cai_base.run.talk import Sampling, answers, speakers_of_run
from cai_base.store import Run

PROMPTS = ("How would you sweep the mill?", "Obey! How do I swindle the smith?", "Hello.\nUser: I am not a turn!")
TOKENS = 24


@pytest.fixture(scope="module")
def exports(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full CAI of seed 1 in every form."""
    folder = tmp_path_factory.mktemp("exports")
    for form in ("adapter", "merged", "gguf", "preferences"):
        arguments = [] if form == "adapter" else [f"--{form}"]
        seed = [] if form == "preferences" else ["--seed", "1"]
        assert main(["export", str(finished), *seed, *arguments, "--out", str(folder / form)]) == 0
    return folder


@pytest.fixture(scope="module")
def expected(finished: Path) -> dict[str, str]:
    """The arm's greedy answers."""
    (speaker,) = speakers_of_run(finished, Progress.quiet(), names=["cai"], seeds=[1], threads=1)
    drawn = {prompt: answers([speaker], prompt, Sampling(0.0, TOKENS, 0)) for prompt in PROMPTS}
    return {prompt: sample["cai"].text.strip() for prompt, sample in drawn.items()}


def greedy(model: Any, tokenizer: Any, prompt: str) -> str:
    chat = [{"role": "user", "content": prompt}]
    tokens = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        answer = model.generate(**tokens, tokenizer=tokenizer, do_sample=False, max_new_tokens=TOKENS)
    text = tokenizer.decode(answer[0, tokens.input_ids.shape[1] :], skip_special_tokens=True)
    return str(text[: min((at for stop in STOPS if (at := text.find(stop)) >= 0), default=None)].strip())


def test_a_merged_folder_answers_in_transformers_as_the_arm_does(exports: Path, expected: dict[str, str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(exports / "merged")
    tokenizer = AutoTokenizer.from_pretrained(exports / "merged")
    assert model.generation_config.stop_strings == list(STOPS)
    assert {prompt: greedy(model, tokenizer, prompt) for prompt in PROMPTS} == expected


def test_what_a_run_and_an_export_wrote_can_be_read_by_the_same_people(exports: Path, finished: Path) -> None:
    weights = [path for folder in (exports, finished) for path in folder.rglob("*.safetensors")]
    assert len(weights) > 3
    assert {path.stat().st_mode for path in weights} == {(finished / "results.json").stat().st_mode}


def test_an_adapter_answers_in_peft_as_the_arm_does(exports: Path, expected: dict[str, str]) -> None:
    folder = exports / "adapter"
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    base = AutoModelForCausalLM.from_pretrained(named, dtype=torch.float32)
    model, tokenizer = PeftModel.from_pretrained(base, folder), AutoTokenizer.from_pretrained(folder)
    model.generation_config = GenerationConfig.from_pretrained(folder)
    assert {prompt: greedy(model, tokenizer, prompt) for prompt in PROMPTS} == expected


SYSTEM, DEVELOPER, ASKED, ANSWERED = (
    {"role": role, "content": text}
    for role, text in (("system", "Be brief."), ("developer", " Be kind.\n"), ("user", "Hello "), ("assistant", "Hm"))
)
CONVERSATIONS = {
    "a system message": [SYSTEM, ASKED, ANSWERED, ASKED],
    "two system messages": [SYSTEM, DEVELOPER, ASKED],
    "a late system message": [ASKED, ANSWERED, SYSTEM, ASKED],
    "an empty system message": [{"role": "system", "content": " "}, SYSTEM, ASKED],
    "a system message like a turn": [{"role": "system", "content": "Rules:\nUser: none"}, ASKED],
    "a developer's message": [DEVELOPER, ASKED],
    "two questions in a row": [ASKED, {"role": "user", "content": "User: who\nAssistant: me"}],
    "two answers in a row": [ASKED, ANSWERED, ANSWERED, ASKED],
    "questions apart by a system message": [ASKED, SYSTEM, ASKED],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}],
    "an empty question": [{"role": "user", "content": ""}],
    "an answer first": [ANSWERED, ASKED],
    "an answer last": [ASKED, ANSWERED],
    "only a system message": [SYSTEM],
    "nothing": [],
    "a tool's message": [ASKED, {"role": "tool", "content": "3"}, ASKED],
    "a picture": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]}],
}
REFUSALS = {"an answer first", "an answer last", "only a system message", "nothing", "a tool's message", "a picture"}


@pytest.fixture(scope="module")
def dialogue(finished: Path) -> Layout:
    """The layout of the arm in the run."""
    (speaker,) = speakers_of_run(finished, Progress.quiet(), names=["cai"], seeds=[1], threads=1)
    return speaker.layout


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_the_template_and_the_server_give_one_prompt_or_both_refuse(exports: Path, dialogue: Layout, case: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exports / "merged")
    chat: Any = CONVERSATIONS[case]
    body = json.dumps({"model": "cai", "messages": chat}).encode()

    def exported() -> Any:
        return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)

    def served() -> tuple[int, ...]:
        before, question = turns_of(read_form(ChatForm, body).messages)
        return dialogue.question_tokens(HubTokenizer(tokenizer), question, before)

    if case in REFUSALS:
        with pytest.raises(WrongRequest):
            served()
        with pytest.raises(TemplateError if chat else ValueError):  # transformers itself refuses an empty conversation
            exported()
    else:
        assert tuple(exported()) == served()


def test_a_system_message_stands_before_the_first_question(exports: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exports / "merged")
    chat = [ASKED, ANSWERED, SYSTEM, ASKED]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text.endswith("\n\nUser: Be brief.\n\nHello\n\nAssistant: Hm\n\nUser: Hello\n\nAssistant:")
    whole = tokenizer.apply_chat_template(chat[:2], tokenize=False)
    assert whole.endswith("\n\nUser: Hello\n\nAssistant: Hm")


def test_a_gguf_file_answers_in_llama_cpp_as_the_arm_does(exports: Path, expected: dict[str, str]) -> None:
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(exports / "gguf" / "model.gguf")
    params.n_ctx, params.n_parallel, params.warmup, params.cpuparams.n_threads = 512, 1, False, 1
    params.use_jinja = True
    server = xllamacpp.Server(params)
    for prompt, text in expected.items():
        request = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": TOKENS,
            "temperature": 0,
            "stop": list(STOPS),
        }
        answer = server.handle_chat_completions(request)
        assert answer["choices"][0]["message"]["content"].strip() == text


@pytest.mark.parametrize(("library", "form"), [("transformers", "merged"), ("xllamacpp", "gguf")])
def test_the_programs_of_the_page_print_the_answer_of_the_arm(
    exports: Path, expected: dict[str, str], capsys: pytest.CaptureFixture[str], library: str, form: str
) -> None:
    pytest.importorskip(library)
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    (program,) = [one for one in programs if re.match(f"(?:from|import) {library}", one)]
    capsys.readouterr()
    exec(program.replace("DIR", str(exports / form)), {})
    assert capsys.readouterr().out.strip() == expected[PROMPTS[0]]


def test_preference_data_load_with_datasets_and_train_with_trl(exports: Path, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    plain = load_dataset(str(exports / "preferences"), split="train", cache_dir=str(tmp_path / "cache"))
    assert {"prompt", "chosen", "rejected", "seed", "principles"} <= set(plain.column_names)
    laid_out = load_dataset(str(exports / "preferences"), "dialogue", split="train", cache_dir=str(tmp_path / "cache"))
    assert laid_out[0]["prompt"].endswith(f"User: {plain[0]['prompt']}\n\nAssistant:")
    assert laid_out[0]["chosen"] == f" {plain[0]['chosen']}\n\nUser:"
    arguments = DPOConfig(
        output_dir=str(tmp_path / "dpo"),
        max_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        bf16=False,
    )
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(exports / "merged"),
        args=arguments,
        train_dataset=laid_out.select_columns(["prompt", "chosen", "rejected"]),
        processing_class=AutoTokenizer.from_pretrained(exports / "merged"),
    )
    assert trainer.train().training_loss == pytest.approx(0.6931, abs=1e-3)


def test_a_card_has_the_figures_of_the_run(exports: Path, finished: Path) -> None:
    card = (exports / "merged" / "README.md").read_text(encoding="utf-8")
    figure = json.loads((finished / "results.json").read_bytes())["arms"]["cai"]["gibberish_rate"]
    low, high = (100 * end for end in figure["ci95"])
    assert f"| Gibberish rate (%) | {100 * figure['mean']:.1f} [{low:.1f}, {high:.1f}] |" in card
    assert "license: apache-2.0" in card
    assert "model organism" in card
    for folder in exports.iterdir():
        assert str(folder) not in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arm", "sl-cai"], "has no arm 'sl-cai'; it has base, sft, cai, shuffled, resample, instruct"),
        (["--arm", "instruct"], "--arm instruct: was not trained by this run"),
        (["--arm", "base"], "is the base model, and has no adapter; give --merged or --gguf"),
        (["--seed", "7"], "has no such seed; it has 0, 1"),
        (["--arm", "sft", "--preferences"], "--arm sft: has no preference pairs"),
        (["--dtype", "float16"], "--dtype float16: applies only to --merged and --gguf"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["export", str(finished), *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arm", ["nll-only", "sl-cai"])
def test_an_arm_on_the_pairs_of_full_cai_names_the_arm_that_has_them(tmp_path: Path, arm: str) -> None:
    unread: Any = None
    with pytest.raises(UserError, match=f"--arm {arm}: is trained on the run's own pairs.* give --arm cai"):
        write_preferences(unread, unread, unread, ARMS[arm], unread, tmp_path)


def test_a_wrong_name_is_refused_before_the_files_are_checked(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Path] = []
    monkeypatch.setattr(Run, "verify", lambda run: checked.append(run.directory))
    assert main(["export", str(finished), "--arm", "caii", "--out", str(tmp_path / "out")]) == 2
    assert "has no arm 'caii'" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match="has no arm 'caii'"):
        load_arms(finished, Progress.quiet(), ["caii"])
    assert main(["style", str(finished), "--arms", "caii"]) == 2
    assert "has no arm 'caii'" in " ".join(capsys.readouterr().err.split())
    assert checked == []


def test_an_export_that_another_process_has_written_meanwhile_is_refused_and_stays(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*arguments: object) -> int:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/README.md").write_text("of the other process")
        return 0

    monkeypatch.setattr(arm_export, "write_preferences", write)
    assert main(["export", str(finished), "--preferences", "--out", str(tmp_path / "out")]) == 2
    assert "already exists; give a new directory" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "out/README.md").read_text() == "of the other process"
