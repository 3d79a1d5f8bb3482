"""Malformed GGUF files, and archives of a Tinker service: refused in one sentence, or read."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_archives import GOOD, NAME, archive
from engines import gguf_files
from fuzz.mutations import ODD_NUMBERS, as_json, spoiled_bytes, spoiled_values
from fuzz.test_fuzz import many, refused_or_accepted
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from cai_base.engines import EngineError
from cai_base.engines.local import gguf
from cai_base.engines.tinker import adapters
from cai_base.errors import UserError

SIZES = (0, 1, 255, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
"""Lengths, counts and types as a damaged header may have them."""


@st.composite
def other_numbers(draw: st.DrawFn, valid: bytes, header: int) -> bytes:
    """A file with other lengths, counts or types in its header."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 2))):
        width, place = draw(st.sampled_from((4, 8))), draw(st.integers(0, header - 8))
        number = draw(st.sampled_from(SIZES)) % 2 ** (8 * width)
        data[place : place + width] = number.to_bytes(width, "little")
    return bytes(data)


def as_user(read: Callable[[], object]) -> Callable[[], object]:
    """What `models.py` makes of an engine's error."""

    def reading() -> object:
        try:
            return read()
        except EngineError as error:
            raise UserError(str(error)) from error

    return reading


def test_a_spoiled_gguf_file_is_refused_in_a_sentence_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path / "cache"))
    file = gguf_files.write(tmp_path / "small.gguf")
    valid = file.read_bytes()
    header = valid.index(b"token_embd.weight")
    assert refused_or_accepted(as_user(lambda: gguf.converted(str(file)))), "what is not spoiled is read"

    @many(25)
    @given(data=st.one_of(spoiled_bytes(valid), spoiled_bytes(valid[:header]), other_numbers(valid, header)))
    def spoiled(data: bytes) -> None:
        file.write_bytes(data)
        refused_or_accepted(as_user(lambda: gguf.converted(str(file))))

    spoiled()


@pytest.mark.parametrize(
    ("field", "size"), [("block_count", 5_000_000), ("embedding_length", 1 << 20), ("feed_forward_length", 1 << 28)]
)
def test_a_gguf_file_of_a_larger_model_than_it_can_hold_is_refused_at_once(
    field: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path / "cache"))
    file = gguf_files.write(tmp_path / "small.gguf")
    data = bytearray(file.read_bytes())
    place = data.index(f"llama.{field}".encode()) + len(f"llama.{field}") + 4  # after the name, and its type
    data[place : place + 4] = size.to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(EngineError, match=rf"small\.gguf has .*{field} = {size:,}"):
        gguf.converted(str(file))


FILES = {name.removeprefix("./"): content for name, content in GOOD.items()}


def store(folder: Path, content: bytes) -> Callable[[], object]:
    """Unpacks an archive and writes its adapter; the engine takes exactly these two errors as the service's fault."""

    def storing() -> None:
        try:
            adapters.write(folder, "a/base", adapters.unpack(content))
        except (OSError, ValueError) as error:
            raise UserError(str(error) or type(error).__name__) from error

    return storing


def test_a_spoiled_archive_of_a_service_is_refused_in_a_sentence_or_read(tmp_path: Path) -> None:
    valid = archive(GOOD)
    plain = gzip.decompress(valid)
    assert refused_or_accepted(store(tmp_path, valid)), "what is not spoiled is read"

    @many(80)
    @given(data=st.one_of(spoiled_bytes(valid), spoiled_bytes(plain), spoiled_bytes(plain).map(gzip.compress)))
    def spoiled(data: bytes) -> None:
        refused_or_accepted(store(tmp_path, data))

    spoiled()


def test_odd_values_in_an_adapter_of_a_service_are_refused_in_a_sentence_or_taken(tmp_path: Path) -> None:
    config, weights = json.loads(FILES["adapter_config.json"]), FILES["adapter_model.safetensors"]

    @many(80)
    @given(value=spoiled_values(config), data=st.one_of(st.just(weights), spoiled_bytes(weights)))
    def odd(value: Any, data: bytes) -> None:
        files = {"adapter_config.json": as_json(value), "adapter_model.safetensors": data}
        if refused_or_accepted(store(tmp_path, archive(files))):
            taken = json.loads((tmp_path / "adapter_config.json").read_bytes())
            assert taken["r"] == 2
            assert taken["lora_alpha"] not in (0, *ODD_NUMBERS[5:7])

    odd()


def test_an_archive_that_unpacks_to_far_more_than_it_has_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    files = GOOD | {"adapter_model.safetensors": bytes(1 << 27)}
    small = archive(files)
    assert len(small) < 1 << 20
    with pytest.raises(UserError, match="unpacks to more than"):
        store(tmp_path, small)()


def test_an_adapter_with_half_of_its_matrices_is_refused(tmp_path: Path) -> None:
    half = {f"{NAME}.lora_A.weight": torch.ones(2, 4)}
    with pytest.raises(UserError, match="lora_B"):
        store(tmp_path, archive(FILES | {"adapter_model.safetensors": save(half)}))()
