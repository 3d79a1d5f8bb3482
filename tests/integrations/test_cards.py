"""The cards of exports say what trained each arm, and no more."""

import json
from pathlib import Path

import pytest

from cai_base.arms import ARMS
from cai_base.cli import main
from cai_base.integrations.export.origin import aid_sentences, others_sentence, pairs_origin, tags, training_sentences
from cai_base.records import Results
from cai_base.settings.schema import RunSettings
from cai_base.settings.validation import stored_settings
from cai_base.store import Run


@pytest.fixture
def settings(finished: Path) -> RunSettings:
    return stored_settings(Run.watch(finished))


@pytest.fixture
def results(finished: Path) -> Results:
    return Results.model_validate(json.loads((finished / "results.json").read_bytes()))


def test_a_card_of_sft_has_no_stage_that_sft_did_not_have(finished: Path, tmp_path: Path) -> None:
    assert main(["export", str(finished), "--arm", "sft", "--out", str(tmp_path / "sft")]) == 0
    card = (tmp_path / "sft" / "README.md").read_text(encoding="utf-8")
    assert "- SFT on a few written answers (2 steps of 1 example, peak learning rate 0.0003, cosine schedule)." in card
    assert "tags: [cai-base]" in card
    for untrue in ("DPO", "revision chains", "criticised", "Constitutional AI from"):
        assert untrue not in card.partition("## Limits")[0], untrue


@pytest.mark.parametrize(
    ("arm", "tagged", "says"),
    [
        ("base", [], "None: it is the base model"),
        ("resample", [], "cosine schedule). LoRA of rank 2, alpha 16."),
        (
            "cai",
            ["constitutional-ai", "dpo"],
            "Training on them: DPO, with the loss sigmoid (2 steps of 2 pairs, peak learning rate",
        ),
        ("shuffled", ["constitutional-ai", "dpo"], "else they are swapped."),
    ],
)
def test_the_training_follows_the_arm(
    results: Results, settings: RunSettings, arm: str, tagged: list[str], says: str
) -> None:
    assert tags(ARMS[arm]) == tagged
    assert says in " ".join(training_sentences(results, settings, ARMS[arm]))


def test_another_interpreter_is_named_where_it_took_part(results: Results, settings: RunSettings) -> None:
    other = results.model_copy(update={"interpreter": "Chatty-7B"})
    assert others_sentence(results, ARMS["cai"]) == "No other model took part in training."
    assert others_sentence(other, ARMS["cai"]).startswith("Another model, Chatty-7B, took part")
    assert "another model, Chatty-7B, criticised" in pairs_origin(other, settings, ARMS["cai"])
    assert others_sentence(other, ARMS["sft"]) == "No other model took part in training."


def test_the_data_card_of_shuffled_says_what_the_coin_did(finished: Path, tmp_path: Path) -> None:
    arguments = ["--arm", "shuffled", "--preferences", "--out", str(tmp_path / "pairs")]
    assert main(["export", str(finished), *arguments]) == 0
    card = (tmp_path / "pairs" / "README.md").read_text(encoding="utf-8")
    assert "a coin then decided for each pair" in card
    assert "`chosen` is the last revision, `rejected` the original" not in card


def test_cards_name_the_aids_besides_the_principles(finished: Path, tmp_path: Path) -> None:
    for name, flags in (("adapter", []), ("merged", ["--merged"]), ("gguf", ["--gguf"]), ("data", ["--preferences"])):
        assert main(["export", str(finished), *flags, "--out", str(tmp_path / name)]) == 0
        card = (tmp_path / name / "README.md").read_text(encoding="utf-8")
        assert "peak learning rate 7e-05, cosine schedule, beta 0.1, nll-weight 1)" in card, name
        assert (
            "each original began with the opening of a refusal with a chance of 25.0 %, whatever the prompt" in card
        ), name
        assert "Worked examples: none before a critique or revision request." in card, name
        assert "mean NLL per token with the weight 1." in card, name
    gguf = (tmp_path / "gguf" / "README.md").read_text(encoding="utf-8")
    assert "generation_config.json" not in gguf, "the folder of a GGUF file has none"
    assert '"stop": ["\\nUser:"], "temperature": 0.7, "max_tokens": 24}' in gguf
    assert "- Many `rejected` texts begin with a refusal because of the refusal prefill" in card


def test_aids_that_were_not_used_are_named_as_such(results: Results, settings: RunSettings) -> None:
    without = settings.model_copy(update={"revision": settings.revision.model_copy(update={"refusal_prefill": 0.0})})
    sentences = aid_sentences(results, without, ARMS["cai"], worked=0)
    assert sentences[0].startswith("Refusal prefill: no original")
    assert sentences[1].startswith("Worked examples: none")
    worked = aid_sentences(results, settings, ARMS["cai"], worked=3)[1]
    assert (
        worked
        == "Worked examples: 3 worked critiques, with their revisions, before every critique and revision request."
    )
    assert aid_sentences(results, settings, ARMS["sft"], worked=3) == []
