"""Attention in long packed rows: block by block it is what it is as a whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from batches import gradient, nll, pairs, stir
from checkpoints import LENGTH, LORA, VOCABULARY, save_tokenizer
from shapes import CONFIGS, EAGER, PADDED, save
from transformers import FalconConfig, FalconForCausalLM

from cai_base.engines import Batch
from cai_base.engines.local import LocalEngine, blocks

TAKEN = [kind for kind in CONFIGS if kind not in EAGER and kind not in PADDED]


def count_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the length of every row that is divided into blocks."""
    lengths: list[int] = []
    divide = blocks.blocks_of

    def counted(mask: np.ndarray, dtype: torch.dtype) -> list[blocks.Block]:
        lengths.append(len(mask))
        return divide(mask, dtype)

    monkeypatch.setattr(blocks, "blocks_of", counted)
    return lengths


@pytest.mark.parametrize("kind", TAKEN)
def test_a_model_has_the_same_sums_and_gradients_with_attention_in_blocks(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(kind, tmp_path)
    engine = LocalEngine(str(tmp_path), LORA, sequence_length=LENGTH, device="cpu")
    batches = {"a": pairs(3, 4), "b": pairs(4, 3)}
    engine.create(dict.fromkeys(batches, 1))
    stir(engine, *batches)
    lengths = count_rows(monkeypatch)
    outcomes = []
    for least in (blocks.LEAST, 1):
        monkeypatch.setattr(blocks, "LEAST", least)
        monkeypatch.setattr(blocks, "BLOCK", 7)
        monkeypatch.setattr(blocks, "GAP", 2)
        sums = engine.compute_logprobs(batches)  # type: ignore[arg-type]
        engine.forward_backward({name: Batch(batch, nll) for name, batch in batches.items()}).result()
        outcomes.append((sums, [gradient(engine, name) for name in batches]))
        assert bool(lengths) == (least == 1)
        for name in batches:
            engine._bank.adapters[name].gradient = None
    (whole, wanted), (in_blocks, got) = outcomes
    for name in batches:
        assert in_blocks[name] == pytest.approx(whole[name], rel=1e-4)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())


def test_only_long_packed_rows_in_fp32_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("Llama", tmp_path)
    batch = pairs(3, 4)
    padded = LocalEngine(str(tmp_path), LORA, sequence_length=LENGTH, device="cpu", pack=False)
    packed = LocalEngine(str(tmp_path), LORA, sequence_length=LENGTH, device="cpu")
    lengths = count_rows(monkeypatch)
    for least, divided in ((10_000, 0), (1, 1)):
        monkeypatch.setattr(blocks, "LEAST", least)
        padded.compute_logprobs({None: batch})
        assert not lengths
        packed.compute_logprobs({None: batch})
        assert bool(lengths) == bool(divided)
    assert not blocks._masks.known, "none is, once the pass is over"
    halves = LocalEngine(str(tmp_path), LORA, sequence_length=LENGTH, device="cpu", dtype=torch.bfloat16)
    lengths.clear()
    halves.compute_logprobs({None: batch})
    assert not lengths


@pytest.mark.parametrize(
    ("seed", "groups", "dtype"), [(0, 1, torch.float32), (1, 2, torch.float32), (2, 2, torch.bfloat16)]
)
def test_random_masks_give_what_the_whole_attention_gives(
    seed: int, groups: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 16)
    generator = torch.Generator().manual_seed(seed)
    rows, heads, length, features = 3, 4, 61, 8
    mask = torch.rand(rows, 1, length, length, generator=generator) < 0.05
    mask[:, :, range(length), range(length)] = True
    shapes = [(rows, heads, length, features), *[(rows, heads // groups, length, features)] * 2]
    inputs = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    upstream = torch.randn(rows, length, heads, features, generator=generator).to(dtype)
    query, *rest = inputs
    key, value = (one.repeat_interleave(groups, dim=1) for one in rest)
    whole = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3).transpose(1, 2)
    monkeypatch.setattr(blocks, "_masks", blocks._Masks())
    blocks._masks.begin([mask])
    out, _ = blocks.attention(torch.nn.Module(), *inputs, mask, scaling=0.3)
    near = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(out, whole, **near)  # type: ignore[arg-type]
    for a, b in zip(*(torch.autograd.grad(one, inputs, upstream) for one in (out, whole)), strict=True):
        torch.testing.assert_close(a, b, **near)  # type: ignore[arg-type]
    bare = torch.nn.Module()
    other, _ = blocks.attention(bare, query, key, value, mask.clone(), scaling=0.3)
    torch.testing.assert_close(other, whole, rtol=0, atol=0, msg="of a mask that is not known")
    strided = query.detach().transpose(2, 3).contiguous().transpose(2, 3)
    assert strided.stride(-1) != 1
    other, _ = blocks.attention(bare, strided, key, value, mask, scaling=0.3)
    torch.testing.assert_close(other, whole, **near)  # type: ignore[arg-type]
    mask.logical_and_(torch.ones(length, length, dtype=torch.bool).tril())
    now = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3).transpose(1, 2)
    other, _ = blocks.attention(bare, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(other, now, rtol=0, atol=0, msg="of a mask that was changed")
    with pytest.raises(ValueError, match="softcap"):
        blocks.attention(bare, query, key, value, mask, scaling=0.3, softcap=2.0)


def test_a_model_with_attention_of_its_own_is_packed_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Falcon's layers take another path under any other name than sdpa."""
    torch.manual_seed(0)
    config = FalconConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        alibi=False,
        bias=False,
        initializer_range=0.15,
    )
    FalconForCausalLM(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, bos=True)
    batch = pairs(3, 4)
    engines = [
        LocalEngine(str(tmp_path), LORA, sequence_length=LENGTH, device="cpu", pack=pack) for pack in (True, False)
    ]
    assert [engine.packed for engine in engines] == [True, False]
    monkeypatch.setattr(blocks, "LEAST", 1)
    sums = [engine.compute_logprobs({None: batch})[None] for engine in engines]
    assert sums[0] == pytest.approx(sums[1], rel=1e-4)
