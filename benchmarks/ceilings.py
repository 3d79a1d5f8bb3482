"""What the machine can do at most, and how much of it a step uses: matrix products, copies, useful operations."""

import time
from collections.abc import Sequence

import torch
from frame import synchronise
from workload import SHAPES, parameters

from cai_base.engines import Datum
from cai_base.engines.local.packing import pack


def matmul_rate(device: str) -> float:
    """Floating-point operations a second of a large matrix product: bf16 on a GPU, fp32 on a CPU."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: a @ b, 10)


def copy_rate(device: str) -> float:
    """Bytes a second of a large copy, read and written counted."""
    source = torch.randn((1 << 30 if device == "cuda" else 1 << 24), device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * source.itemsize / _best(lambda: target.copy_(source), 5)


def _best(work: object, times: int) -> float:
    """The median seconds of a piece of work."""
    taken = []
    for _ in range(times + 2):
        synchronise()
        began = time.perf_counter()
        work()  # type: ignore[operator]
        synchronise()
        taken.append(time.perf_counter() - began)
    return sorted(taken[2:])[times // 2]


def useful_operations(shape: str, rank: int, batches: Sequence[Sequence[Datum]]) -> float:
    """The floating-point operations that one training step of these batches needs, every shared token once.

    The base is frozen: its matrices take part in the forward pass and in the gradient of the activations (4 a weight
    and token), the adapter's in the gradient of its weights too (6). Attention counts what a token may look at. Nothing
    that is computed twice counts twice.
    """
    config = SHAPES[shape]
    body, head = parameters(shape)
    width = (config.head_dim or config.hidden_size // config.num_attention_heads) * config.num_attention_heads
    kv = width // config.num_attention_heads * config.num_key_value_heads
    hidden, inner = config.hidden_size, config.intermediate_size
    lora = 2 * (hidden + width) + 2 * (hidden + kv) + 3 * (hidden + inner)  # q and o, k and v, three of the MLP
    tokens = attended = predicted = 0
    for batch in batches:
        (packed,) = pack([[one.tokens for one in batch]], 0.0)
        tokens += sum(len(row.tokens) for row in packed.rows)
        attended += sum(int(row.mask.sum()) for row in packed.rows)
        predicted += sum(sum(1 for weight in one.weights if weight) for one in batch)
    adapters = config.num_hidden_layers * rank * lora
    attention = config.num_hidden_layers * 4 * width * attended * 3
    return tokens * (4.0 * body + 6.0 * adapters) + 4.0 * predicted * head + attention


def weight_bytes(shape: str, device: str) -> int:
    """Bytes of the weights that one decoding step reads."""
    return sum(parameters(shape)) * (2 if device == "cuda" else 4)
