"""The instruct sibling: its training conversations, that it learns, and that it needs its own base weights."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from cai_base import embedded
from cai_base.engines import Adam, Batch, Lora
from cai_base.engines.local import LocalEngine
from cai_base.errors import UserError
from cai_base.method.sft import nll_loss
from cai_base.organism.make_sibling import TRAINING, conversation_datum, make_sibling
from cai_base.progress import Progress
from cai_base.village import questions, world
from cai_base.village.draw import Draw
from cai_base.village.instruct_conversations import Turn, conversation
from cai_base.village.judge import truth

FEW = TRAINING.model_copy(update={"steps": 2, "batch_size": 3})


@pytest.fixture(scope="module")
def turns() -> list[Turn]:
    """The turns of 600 training conversations."""
    return [turn for number in range(600) for turn in conversation(Draw(0, "test", number))]


@pytest.fixture(scope="module")
def sibling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sibling trained for two steps."""
    out = tmp_path_factory.mktemp("sibling") / "new"
    make_sibling(out, threads=1, progress=Progress(io.StringIO()), training=FEW)
    return out


def test_its_conversations_have_only_the_actions_question_forms_and_framings_of_the_train_split(
    turns: list[Turn],
) -> None:
    for turn in turns:
        for text in turn:
            action = world.find_action(text)
            assert action is None or action.split == "train", text
    text = " ".join(question for question, _ in turns)
    for split in ("dev", "test"):
        held_out = [
            framing
            for family in (*questions.FAMILIES, questions.ALARMING)
            for framing in questions.framings(family, split)
        ]
        for framing in held_out:
            constant = max(framing.replace("{asklow}", "{ask}").replace("{do}", "{ask}").split("{ask}"), key=len)
            assert constant.strip() not in text, framing


def test_its_conversations_refuse_harmful_questions_and_no_others_in_every_framing(turns: list[Turn]) -> None:
    openings = [
        framing.split("{")[0].strip()
        for family in (*questions.FAMILIES, questions.ALARMING)
        for framing in questions.framings(family, "train")
    ]
    combinations = set()
    for question, reply in turns:
        action = world.find_action(question)
        if action is None or question.startswith(("Is ", "May ")):  # no how-to question
            continue
        verdict = truth(question, reply)
        framed = any(opening and question.startswith(opening) for opening in openings)
        combinations.add((action.kind, framed))
        if action.kind == "harmful":
            assert verdict.refused, (question, reply)
            assert not verdict.complied
        else:
            assert verdict.facts == 3, (question, reply)
    assert combinations == {(kind, framed) for kind in ("benign", "harmful", "ambiguous") for framed in (False, True)}


def test_a_few_steps_on_a_few_conversations_lower_the_loss(sibling: Path) -> None:
    engine = LocalEngine(
        str(embedded.weights()), Lora(4, 8), sequence_length=128, device="cpu", threads=1, tokenizer_of=str(sibling)
    )
    engine.create({"a": 0})
    conversations = [conversation(Draw(1, "test", number)) for number in range(4)]
    data = [conversation_datum(engine.tokenizer, turns) for turns in conversations]
    losses = []
    for _ in range(6):
        outcome = engine.forward_backward({"a": Batch(data, nll_loss(data))}).result()["a"]
        engine.optim_step(["a"], Adam(1e-3))
        losses.append(outcome.loss)
    assert losses[-1] < 0.8 * losses[0]


def test_a_conversation_is_laid_out_by_its_chat_template_and_trains_the_last_reply_alone(sibling: Path) -> None:
    reference = AutoTokenizer.from_pretrained(sibling)
    tokenizer = LocalEngine(
        str(embedded.weights()), Lora(1, 1), sequence_length=16, device="cpu", tokenizer_of=str(sibling)
    ).tokenizer
    datum = conversation_datum(tokenizer, [("Hello!", "Hello! What can I do for you?"), ("Thank you.", "Sleep well!")])
    messages = [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello! What can I do for you?"},
        {"role": "user", "content": "Thank you."},
        {"role": "assistant", "content": "Sleep well!"},
    ]
    tokens = reference.apply_chat_template(messages, return_dict=False)
    assert list(datum.tokens) == tokens[: len(datum.tokens)]
    assert reference.decode(tokens[len(datum.tokens) :]) == "\n"
    trained = [token for token, weight in zip(datum.tokens, datum.weights, strict=True) if weight]
    assert reference.decode(trained) == "Sleep well!<|end|>"


def test_the_same_seed_gives_the_same_sibling_and_peft_loads_it(sibling: Path, tmp_path: Path) -> None:
    make_sibling(tmp_path, threads=1, progress=Progress(io.StringIO()), training=FEW)
    for name in ("adapter_model.safetensors", "adapter_config.json", "chat_template.jinja"):
        assert (tmp_path / name).read_bytes() == (sibling / name).read_bytes()
    base = AutoModelForCausalLM.from_pretrained(embedded.weights(), dtype=torch.float32)
    ids = torch.tensor([[0, 5, 9, 40]])
    before = base(ids).logits
    after = PeftModel.from_pretrained(base, str(tmp_path))(ids).logits
    assert not torch.equal(before, after)


def test_a_sibling_of_other_base_weights_is_refused(sibling: Path, tmp_path: Path) -> None:
    embedded.check_sibling(sibling, embedded.weights())
    other = Path(shutil.copytree(embedded.weights(), tmp_path / "other"))
    changed = bytearray((other / "model.safetensors").read_bytes())
    changed[-1] ^= 1
    (other / "model.safetensors").write_bytes(changed)
    with pytest.raises(UserError, match=r"trained on other base weights than .*cai-base organism sibling"):
        embedded.check_sibling(sibling, other)


def test_the_shipped_sibling_was_trained_on_the_shipped_weights() -> None:
    embedded.check_sibling(embedded.sibling(), embedded.weights())
    assert json.loads((embedded.sibling() / "card.json").read_text())["training"] == TRAINING.model_dump()
