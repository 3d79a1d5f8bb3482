"""The shipped weights come from this code: the beginning of their pretraining, run again."""

import io
import json

import pytest
from safetensors import safe_open

from cai_base import embedded
from cai_base.organism import build as organism_build
from cai_base.organism import pretraining
from cai_base.progress import Progress


@pytest.mark.slow
def test_the_first_fifty_losses_of_the_shipped_weights_pretraining_come_out_again(tmp_path, monkeypatch):
    card = json.loads((embedded.weights() / "card.json").read_text())
    shipped = card["first_losses"]
    assert len(shipped) == organism_build.LOSSES_ON_CARD == 50
    monkeypatch.setattr(organism_build, "CHECKPOINT_EVERY", len(shipped))
    loss_of = pretraining.loss_of
    calls = []

    def loss_until_stopped(model, rows):
        calls.append(1)
        if len(calls) > len(shipped):
            raise KeyboardInterrupt
        return loss_of(model, rows)

    monkeypatch.setattr(pretraining, "loss_of", loss_until_stopped)
    with pytest.raises(KeyboardInterrupt):
        organism_build.build(tmp_path, seed=card["seed"], progress=Progress(io.StringIO()))
    with safe_open(tmp_path / "work" / "checkpoint.safetensors", "pt") as file:
        again = json.loads(file.metadata()["history"])["loss"]
    # Another number of threads or another processor adds in another order: bit for bit on the machine that made them.
    assert again == pytest.approx(shipped, rel=1e-3)
