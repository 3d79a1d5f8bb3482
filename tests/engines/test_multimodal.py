"""A multimodal checkpoint: its language model is trained and sampled, its vision tower left alone."""

from pathlib import Path

import pytest
import torch
from batches import WORDS, stir
from checkpoints import LORA
from peft import PeftModel
from shapes import save
from transformers import AutoModelForCausalLM

from cai_base.engines import Datum, SampleRequest
from cai_base.engines.local import LocalEngine


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save("Gemma 3, multimodal", tmp_path / "model")
    return tmp_path / "model"


def test_lora_is_in_the_language_model_alone_and_peft_computes_the_same(checkpoint: Path, tmp_path: Path) -> None:
    ours = LocalEngine(str(checkpoint), LORA, sequence_length=48, device="cpu")
    ours.create({"a": 1})
    stir(ours, "a")
    assert ours._bank.places
    assert all("language_model" in place.name for place in ours._bank.places)
    ours.export({"a": tmp_path / "adapter"})
    ids = torch.randint(5, WORDS, (30,), generator=torch.Generator().manual_seed(0))
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(checkpoint), tmp_path / "adapter").eval()
    assert not [name for name, _ in theirs.named_parameters() if "vision" in name and "lora" in name]
    with torch.inference_mode():
        logprobs = theirs(ids[None]).logits[0, :-1].log_softmax(dim=-1)
        with theirs.disable_adapter():
            base = theirs(ids[None]).logits[0, :-1].log_softmax(dim=-1)
    wanted, plain = (every.gather(1, ids[1:, None]).sum().item() for every in (logprobs, base))
    datum = Datum(tuple(ids.tolist()), (0.0, *[1.0] * 29))
    sums = ours.compute_logprobs({"a": [datum, datum], None: [datum]})
    assert sums["a"] == pytest.approx([wanted, wanted], rel=1e-4)
    assert sums[None] == pytest.approx([plain], rel=1e-4)
    assert wanted != pytest.approx(plain, rel=1e-3)
    assert ours.packed, "its windows are masks like those of the text models"
    again = LocalEngine(str(checkpoint), LORA, sequence_length=48, device="cpu")
    again.load({"a": tmp_path / "adapter"}, optimizer=False)
    assert again.compute_logprobs({"a": [datum]})["a"] == pytest.approx([wanted], rel=1e-4)
    request = SampleRequest("a", tuple(ids[:10].tolist()), 6, 0.0, (), 0)
    drawn = again.sample([request])[0].tokens
    inputs = {"input_ids": ids[None, :10], "attention_mask": torch.ones(1, 10, dtype=torch.long)}
    written = theirs.generate(**inputs, max_new_tokens=6, do_sample=False)[0, 10:].tolist()
    assert list(drawn) == written[: len(drawn)]
