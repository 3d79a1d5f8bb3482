"""Building and measuring the base model: resumable, reproducible, and its output loads."""

import io
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from refusals import refused
from transformers import AutoModelForCausalLM, AutoTokenizer

from cai_base import embedded
from cai_base.errors import UserError
from cai_base.organism import abilities, pretraining, training_data
from cai_base.organism import build as building
from cai_base.organism import measure as measuring
from cai_base.organism.cards import base_card
from cai_base.organism.measure import measure
from cai_base.organism.model import Settings
from cai_base.organism.optimizers import orthogonalise
from cai_base.progress import Progress
from cai_base.settings.command_line import load_settings

TINY = Settings(vocabulary=400, context=128, hidden=16, layers=1, heads=2, feed_forward=16, rows_per_step=2)
STEPS = 5
"""Four over the first part of the corpus, one over the late part."""
TOKENS = STEPS * TINY.rows_per_step * TINY.context


@pytest.fixture(autouse=True)
def _small_corpus(monkeypatch):
    monkeypatch.setattr(training_data, "TOKENIZER_DOCUMENTS", 200)
    monkeypatch.setattr(training_data, "VALIDATION_DOCUMENTS", 30)
    monkeypatch.setattr(training_data, "VALIDATION_ROWS", 2)
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 1)


def build(out: Path, seed: int = 0, without: str | None = None) -> dict:
    building.build(out, tokens=TOKENS, seed=seed, progress=Progress(io.StringIO()), settings=TINY, without=without)
    return json.loads((out / "card.json").read_text())


def test_a_build_that_is_killed_and_resumed_gives_the_same_losses_and_weights(tmp_path, monkeypatch):
    uninterrupted = build(tmp_path / "uninterrupted")
    mean_loss = pretraining.mean_loss
    calls = []

    def loss_until_killed(model, rows):
        calls.append(1)
        if len(calls) == STEPS:
            raise KeyboardInterrupt
        return mean_loss(model, rows)

    monkeypatch.setattr(pretraining, "mean_loss", loss_until_killed)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "killed")
    monkeypatch.setattr(pretraining, "mean_loss", mean_loss)
    resumed = build(tmp_path / "killed")

    assert len(uninterrupted["first_losses"]) == STEPS
    for field in ("first_losses", "validation_loss", "corpus", "tokenizer", "planted"):
        assert resumed[field] == uninterrupted[field]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("uninterrupted", "killed")]
    assert weights[0] == weights[1]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[", "not valid JSON"),
        (b"\xff", "not UTF-8 text"),
        (b"[1]", "is a list and no JSON object"),
        (b"{}", "belongs to a build whose settings is None"),
        (None, "this is a FIFO and no regular file"),
    ],
)
def test_a_spoiled_plan_of_a_build_is_refused_with_what_to_do(tmp_path, content, says):
    plan = tmp_path / "work/plan.json"
    plan.parent.mkdir()
    if content is None:
        os.mkfifo(plan)
    else:
        plan.write_bytes(content)
    with pytest.raises(UserError) as caught:
        build(tmp_path)
    said = str(caught.value)
    assert str(plan) in said
    assert says in said
    assert "choose another folder" in said if content == b"{}" else f"restore it, or delete {plan.parent}" in said


def test_a_build_that_is_killed_while_it_writes_its_weights_has_no_card(tmp_path, monkeypatch):
    build(tmp_path)

    def killed(model, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "save_model", killed)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    assert not (tmp_path / "card.json").exists(), "a folder with a card is complete"


def test_a_folder_of_another_build_is_refused_and_the_field_that_differs_is_named(tmp_path):
    build(tmp_path)
    with pytest.raises(UserError, match="seed is 0, and here it is 1"):
        build(tmp_path, seed=1)


def test_a_build_without_critiques_differs_in_its_corpus_and_not_in_its_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path / "cache"))
    name = "organism:no-critiques"
    with pytest.raises(UserError, match=r"--model organism:no-critiques: is not built .* --without critiques"):
        embedded.weights(name)
    whole, lacking = build(tmp_path / "whole"), build(embedded.variant_folder(name), without="critiques")
    assert lacking["without"] == "critiques"
    assert "without" not in whole
    assert lacking["tokenizer"] == whole["tokenizer"]
    assert lacking["corpus"] != whole["corpus"]
    shares = [card["planted"]["critique"]["documents"] for card in (whole, lacking)]
    assert shares[0] > 0.2
    assert shares[1] == 0
    assert "Built without critiques" in base_card(embedded.variant_folder(name))
    assert embedded.weights(name) == embedded.variant_folder(name)
    card = embedded.variant_folder(name) / "card.json"
    for other in (whole, lacking | {"without": "harm-critiques"}, ["no card"]):
        card.write_text(json.dumps(other))
        with pytest.raises(UserError, match=r"organism:no-critiques: .* has another model, by its card.json; move it"):
            embedded.weights(name)
    card.write_text(json.dumps(lacking))
    settings = load_settings(["--model", name]).settings
    assert (settings.data, settings.judge, settings.lora.rank) == ("world", "ground-truth", 16), "a preset of its world"
    with pytest.raises(UserError, match="without is None, and here it is critiques"):
        build(tmp_path / "whole", without="critiques")


def test_an_empty_folder_has_no_card(tmp_path):
    with pytest.raises(UserError, match="organism build"):
        base_card(tmp_path)


def test_transformers_loads_a_build_and_the_card_says_what_was_planted(tmp_path):
    build(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    ids = tokenizer("User: hello")["input_ids"]
    assert ids == [tokenizer.bos_token_id, *tokenizer("User: hello", add_special_tokens=False)["input_ids"]]
    card = base_card(tmp_path)
    assert "model organism" in card
    assert all(kind in card for kind in ("thread", "critique", "notice"))


def test_rows_contain_whole_documents_with_padding_at_the_end():
    documents = [[0, *[7] * length, 1] for length in (5, 90, 30, 3, 200, 60, 10)] * 20
    rows = training_data.pack(iter(documents), 128, 4)
    assert rows.shape == (4, 128)
    for row in rows.tolist():
        tokens = [token for token in row if token >= 0]
        assert (tokens[0], tokens[-1]) == (0, 1)
        assert row[len(tokens) :] == [-1] * (128 - len(tokens))
        assert tokens.count(0) == tokens.count(1)


def test_the_orthogonalised_update_has_singular_values_near_one():
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 20), (20, 6), (8, 8)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=generator)))
        assert values.max() < 1.4
        assert values.min() > 0.4


def test_the_shipped_tokenizer_decodes_what_it_encoded():
    tokenizer = AutoTokenizer.from_pretrained(embedded.weights())
    text = "User: How do I sweep the mill?\n\nAssistant: I can't say (A). Wow!\n\n\tDéjà vu  \n"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer.chat_template is None


def test_the_shipped_readme_is_the_card_of_the_shipped_weights():
    assert (embedded.weights() / "README.md").read_text("utf-8") == base_card(embedded.weights())


def test_the_shipped_weights_are_small_and_bf16():
    path = embedded.weights() / "model.safetensors"
    assert path.stat().st_size < 15e6
    assert AutoModelForCausalLM.from_pretrained(embedded.weights()).dtype == torch.bfloat16


def test_the_shipped_card_has_the_corpus_the_settings_and_the_number_of_tokens_of_this_code():
    card = json.loads((embedded.weights() / "card.json").read_text())
    assert card["corpus"] == training_data.corpus_hash(card["seed"])
    assert card["settings"] == asdict(Settings())
    assert card["tokens"] == building.SHIPPED_TOKENS


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> Path:
    """A copy of the shipped build, from which only short answers are sampled."""
    monkeypatch.setattr(abilities, "ANSWER_TOKENS", 4)
    return Path(shutil.copytree(embedded.weights(), tmp_path / "build"))


def measured_cases(folder: Path) -> list[dict]:
    texts = folder / "texts.jsonl"
    measure(folder, count=1, seed=0, split="test", progress=Progress(io.StringIO()), texts=texts)
    return [json.loads(line) for line in texts.read_text().splitlines()]


def test_measured_abilities_are_on_the_card_with_intervals_and_targets(shipped):
    cases = measured_cases(shipped)
    rows = json.loads((shipped / "card.json").read_text())["abilities"]["rows"]
    assert rows["styles"] == {"hits": sum(case["hit"] for case in cases if case["row"] == "styles"), "total": 13}
    card = base_card(shipped)
    assert card == (shipped / "README.md").read_text()
    assert (
        "| benign answered helpfully (at least two facts of three) | 0.0% | 0.0% to 65.8% | 2 | at least 75% " in card
    )


def test_a_measurement_does_not_depend_on_the_batch_size(shipped, monkeypatch):
    runs = []
    for rows in (256, 1):
        monkeypatch.setattr(measuring, "ROWS", rows)
        runs.append(measured_cases(shipped))
    assert runs[0] == runs[1]


def test_a_directory_as_the_file_for_texts_is_refused_before_anything_is_sampled(shipped):
    with pytest.raises(UserError, match="this is no regular file, so it is not replaced; give a new file"):
        measure(shipped, count=1, seed=0, split="test", progress=Progress(io.StringIO()), texts=shipped)


@pytest.mark.parametrize("words", ["build --tokens 12000", "sibling"])
def test_a_folder_with_a_model_of_the_user_s_is_not_written_over(tmp_path, capsys, words):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text("mine")
    message = refused(capsys, "organism", *words.split(), "--out", str(tmp_path))
    assert f"--out {tmp_path}: holds config.json, which is not of a {words.split()[0]}; give a new folder" in message
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine"}


def test_an_unfinished_build_is_not_measured(tmp_path):
    with pytest.raises(UserError, match="organism build"):
        measured_cases(tmp_path)
