"""The instruct sibling: what it is taught, that it learns, and that it goes with its own base weights alone."""

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
from cai_base.organism import make_sibling as organism_sibling
from cai_base.organism.make_sibling import TRAINING, trained_sequence
from cai_base.progress import Progress
from cai_base.village import instructions, questions, world
from cai_base.village.draw import Draw
from cai_base.village.judge import judge

FEW = TRAINING.model_copy(update={"steps": 2, "batch_size": 3})


@pytest.fixture(scope="module")
def taught() -> list[instructions.Turn]:
    return [turn for number in range(600) for turn in instructions.conversation(Draw(0, "test", number))]


@pytest.fixture(scope="module")
def sibling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sibling that was trained for two steps."""
    out = tmp_path_factory.mktemp("sibling") / "made"
    organism_sibling.build(out, threads=1, progress=Progress(io.StringIO()), training=FEW)
    return out


def test_it_is_taught_the_train_splits_actions_forms_and_framings_alone(taught: list[instructions.Turn]) -> None:
    for asked, reply in taught:
        for text in (asked, reply):
            action = world.find_action(text)
            assert action is None or action.split == "train", text
    said = " ".join(asked for asked, _ in taught)
    for split in ("dev", "test"):
        held_out = [one for family in (*questions.FAMILIES, "alarming") for one in questions.framings(family, split)]
        for framing in held_out:
            constant = max(framing.replace("{asklow}", "{ask}").replace("{do}", "{ask}").split("{ask}"), key=len)
            assert constant.strip() not in said, framing


def test_it_is_taught_to_refuse_the_harmful_and_nothing_else_in_any_framing(taught: list[instructions.Turn]) -> None:
    framings = [
        framing.split("{")[0].strip()
        for family in (*questions.FAMILIES, "alarming")
        for framing in questions.framings(family, "train")
    ]
    seen = set()
    for asked, reply in taught:
        action = world.find_action(asked)
        if action is None or asked.startswith(("Is ", "May ")):  # no how-to question
            continue
        truth = judge(asked, reply)
        framed = any(start and asked.startswith(start) for start in framings)
        seen.add((action.kind, framed))
        if action.kind == "harmful":
            assert truth.refused, (asked, reply)
            assert not truth.complied
        else:
            assert truth.facts == 3, (asked, reply)
    assert seen == {(kind, framed) for kind in ("benign", "harmful", "ambiguous") for framed in (False, True)}


def test_a_few_steps_on_a_few_conversations_lower_the_loss(sibling: Path) -> None:
    engine = LocalEngine(
        str(embedded.weights()), Lora(4, 8), sequence_length=128, device="cpu", threads=1, tokenizer_of=str(sibling)
    )
    engine.create({"a": 0})
    drawn = [instructions.conversation(Draw(1, "test", number)) for number in range(4)]
    sequences = [trained_sequence(engine.tokenizer, turns) for turns in drawn]
    losses = []
    for _ in range(6):
        outcome = engine.forward_backward({"a": Batch(sequences, nll_loss(sequences))}).result()["a"]
        engine.optim_step(["a"], Adam(1e-3))
        losses.append(outcome.loss)
    assert losses[-1] < 0.8 * losses[0]


def test_a_trained_conversation_is_its_chat_template_and_only_its_last_reply_counts(sibling: Path) -> None:
    reference = AutoTokenizer.from_pretrained(sibling)
    tokenizer = LocalEngine(
        str(embedded.weights()), Lora(1, 1), sequence_length=16, device="cpu", tokenizer_of=str(sibling)
    ).tokenizer
    made = trained_sequence(tokenizer, [("Hello!", "Hello! What can I do for you?"), ("Thank you.", "Sleep well!")])
    messages = [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello! What can I do for you?"},
        {"role": "user", "content": "Thank you."},
        {"role": "assistant", "content": "Sleep well!"},
    ]
    whole = reference.apply_chat_template(messages, return_dict=False)
    assert list(made.tokens) == whole[: len(made.tokens)]
    assert reference.decode(whole[len(made.tokens) :]) == "\n"
    counted = [token for token, weight in zip(made.tokens, made.weights, strict=True) if weight]
    assert reference.decode(counted) == "Sleep well!<|end|>"


def test_the_same_seed_makes_the_same_sibling_and_peft_loads_it(sibling: Path, tmp_path: Path) -> None:
    organism_sibling.build(tmp_path, threads=1, progress=Progress(io.StringIO()), training=FEW)
    for name in ("adapter_model.safetensors", "adapter_config.json", "chat_template.jinja"):
        assert (tmp_path / name).read_bytes() == (sibling / name).read_bytes()
    base = AutoModelForCausalLM.from_pretrained(embedded.weights(), dtype=torch.float32)
    ids = torch.tensor([[0, 5, 9, 40]])
    before = base(ids).logits
    after = PeftModel.from_pretrained(base, str(tmp_path))(ids).logits
    assert not torch.equal(before, after)


def test_it_is_refused_on_other_weights(sibling: Path, tmp_path: Path) -> None:
    embedded.check_sibling(sibling, embedded.weights())
    other = Path(shutil.copytree(embedded.weights(), tmp_path / "other"))
    spoilt = bytearray((other / "model.safetensors").read_bytes())
    spoilt[-1] ^= 1
    (other / "model.safetensors").write_bytes(spoilt)
    with pytest.raises(UserError, match=r"trained on other base weights than .*cai-base organism sibling"):
        embedded.check_sibling(sibling, other)


def test_the_shipped_sibling_goes_with_the_shipped_weights() -> None:
    embedded.check_sibling(embedded.sibling(), embedded.weights())
    assert json.loads((embedded.sibling() / "card.json").read_text())["training"] == TRAINING.model_dump()
