"""The shipped weights can be reproduced: the beginning of their pretraining has the same losses."""

import io
import json

import pytest
from safetensors import safe_open

from cai_base import embedded
from cai_base.organism import build as building
from cai_base.organism import pretraining
from cai_base.progress import Progress


@pytest.mark.slow
def test_pretraining_has_the_first_fifty_losses_of_the_shipped_weights(tmp_path, monkeypatch):
    card = json.loads((embedded.weights() / "card.json").read_text())
    shipped = card["first_losses"]
    assert len(shipped) == building.LOSSES_ON_CARD == 50
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", len(shipped))
    mean_loss = pretraining.mean_loss
    calls = []

    def loss_until_stopped(model, rows):
        calls.append(1)
        if len(calls) > len(shipped):
            raise KeyboardInterrupt
        return mean_loss(model, rows)

    monkeypatch.setattr(pretraining, "mean_loss", loss_until_stopped)
    with pytest.raises(KeyboardInterrupt):
        building.build(tmp_path, seed=card["seed"], progress=Progress(io.StringIO()))
    with safe_open(tmp_path / "work" / "checkpoint.safetensors", "pt") as file:
        again = json.loads(file.metadata()["history"])["loss"]
    # Other threads or another processor add numbers in another order, so only the same machine gives the same bits.
    assert again == pytest.approx(shipped, rel=1e-3)
