"""Where keys and values are kept while responses are drawn: a cache that is wrong for a model is not used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import tokens
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from cai_base.engines import EngineError, Findings, SampleRequest
from cai_base.engines.local import LocalEngine, cache
from cai_base.engines.local.cache_check import likely_difference

Make = Callable[..., LocalEngine]


def spoil_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention to a shared prefix that has other scores, as where a model scales them in a way that is not seen."""
    monkeypatch.setattr(cache, "_capped", lambda scores, softcap: 1.5 * scores)


def spoil_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that take another's keys when one is dropped."""
    select = cache.Buffer.batch_select_indices
    monkeypatch.setattr(cache.Buffer, "batch_select_indices", lambda self, rows: select(self, torch.zeros_like(rows)))


def spoil_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that look at less of a shared prefix than their window."""
    of = cache._Prefixes.of

    def narrower(self: Any, keys: torch.Tensor) -> Any:
        prefix, window = of(self, keys)
        return prefix, window - 3

    monkeypatch.setattr(cache._Prefixes, "of", narrower)


def spoil_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of transformers' that drops no row."""
    monkeypatch.setattr(DynamicCache, "reorder_cache", lambda self, rows: None)


def test_a_cache_that_is_wrong_for_a_model_is_not_used_and_said(
    engine: Make, folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder("llama"), dtype=torch.float32)
    few_shot = tokens(np.random.default_rng(0), 12)
    prompts = [few_shot + tokens(np.random.default_rng(i), i) for i in (1, 4)]
    wanted = [
        model.generate(torch.tensor([one]), do_sample=False, max_new_tokens=6, pad_token_id=0)[0, len(one) :].tolist()
        for one in prompts
    ]
    for spoil, kind, said in (
        (spoil_prefix, "rows", "the shared prefix of their prompts in every row"),
        (spoil_rows, "transformers", "drawn padded, with transformers' own cache"),
    ):
        spoil(monkeypatch)
        monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path / kind))  # what was found out before is not right any more
        ours = engine("llama")
        assert ours.packed, "training is as fast as before"
        assert ours.findings().layout.cache == kind
        (note,) = ours.notes
        assert said in note
        assert "a likely token's log-probabilities with it and without any differ by" in note
        if kind == "transformers":
            samples = ours.sample([SampleRequest(None, prompt, 6, 0.0, (), 0) for prompt in prompts])
            assert [list(sample.tokens) for sample in samples] == wanted
    spoil_transformers(monkeypatch)
    with pytest.raises(EngineError, match="responses cannot be drawn token by token, not even with transformers' own"):
        engine("qwen3")


@pytest.mark.parametrize("kind", ["windowed", "large"])
def test_a_window_that_is_cut_too_short_is_seen(engine: Make, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    spoil_window(monkeypatch)
    assert engine(kind).findings().layout.cache == "rows"


def test_one_wrong_token_of_a_large_vocabulary_is_seen() -> None:
    wanted = torch.randn(262_144, generator=torch.Generator().manual_seed(0)).log_softmax(dim=-1)
    wrong = wanted.clone()
    wrong[wanted.argmax()] -= 0.5
    assert (wrong - wanted).abs().mean() < 1e-5
    assert likely_difference(wrong, wanted) == pytest.approx(0.5)


def test_a_run_begun_by_a_version_that_stored_no_cache_goes_on_with_the_one_that_is_right(engine: Make) -> None:
    findings = engine("llama").findings().model_dump()
    del findings["layout"]["cache"]
    assert engine("llama", findings=Findings(**findings)).findings().layout.cache == "shared"
