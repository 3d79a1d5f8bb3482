"""How long one DPO step takes: the local engine, packed and padded, against TRL's DPOTrainer on the same pairs.

    python benchmarks/dpo_step.py [--threads 1] [--steps 10] [--rounds 3]

A random Llama of 5.3M parameters, LoRA of rank 32 on all linear layers, batches of 4 pairs behind one few-shot prefix
of 110 tokens. Everything is in fp32 on the CPU. The contenders take turns, round after round, so that what else the
machine does falls on all of them alike; a figure is the median over all steps of all rounds. The engine's reference is
known before its steps, as it is in a run, so its fair peer is TRL with `precompute_ref_log_probs`.
"""

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
)
from trl import DPOConfig, DPOTrainer

from cai_base.engines import Adam, Batch, Datum, Lora, LossValue
from cai_base.engines.local import LocalEngine

RANK, BETA, RATE = 32, 0.1, 5e-5
PAIRS, BATCH = 32, 4
VOCABULARY = 2000


def save_model(folder: Path) -> None:
    """A random model, and a tokenizer whose words are `w2`, `w3` and so on."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {"<unk>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def make_pairs() -> Dataset:
    """Pairs as text: prompts of 8-20 words behind a prefix of 110, responses of 20-40."""
    draw = np.random.default_rng(0)

    def words(low: int, high: int) -> str:
        return "".join(f" w{i}" for i in draw.integers(2, VOCABULARY, draw.integers(low, high + 1)))

    prefix = words(110, 110)
    rows = [{"prompt": prefix + words(8, 20), "chosen": words(20, 40), "rejected": words(20, 40)} for _ in range(PAIRS)]
    return Dataset.from_list(rows)


class Clock(TrainerCallback):
    """Seconds of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        """Start."""
        self.began = time.perf_counter()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self.began)


def trl(folder: Path, pairs: Dataset, *, precompute: bool) -> tuple[Callable[[int], list[float]], Dataset]:
    """A function that trains that many steps and gives the seconds of each, and the pairs as TRL tokenised them."""
    config = DPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=BATCH,
        beta=BETA,
        learning_rate=RATE,
        max_length=None,
        precompute_ref_log_probs=precompute,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    clock = Clock()
    trainer = DPOTrainer(
        LlamaForCausalLM.from_pretrained(folder),
        args=config,
        train_dataset=pairs,
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock],
    )

    trainer.remove_callback(PrinterCallback)

    def steps(n: int) -> list[float]:
        clock.seconds.clear()
        trainer.args.max_steps = n + 2
        trainer.train()
        return clock.seconds[2:]

    return steps, trainer.train_dataset


def dpo(reference: Tensor) -> Callable[[Tensor], LossValue]:
    """The loss of Rafailov et al., arXiv 2305.18290, equation 7."""

    def loss(sums: Tensor) -> LossValue:
        margins = BETA * (sums - reference).view(-1, 2) @ torch.tensor([1.0, -1.0])
        return LossValue(-F.logsigmoid(margins).mean())

    return loss


def ours(folder: Path, tokenised: Dataset, *, pack: bool, adapters: int) -> Callable[[int], list[float]]:
    """A function that trains `adapters` adapters that many steps and gives the seconds of each, per adapter."""
    sequences = [
        [
            Datum((*row["prompt_ids"], *row[side]), (*[0.0] * len(row["prompt_ids"]), *[1.0] * len(row[side])))
            for side in ("chosen_ids", "rejected_ids")
        ]
        for row in tokenised
    ]
    longest = max(len(s.tokens) for pair in sequences for s in pair)
    engine = LocalEngine(str(folder), Lora(RANK, RANK), sequence_length=longest, device="cpu", pack=pack)
    names = [f"{i}" for i in range(adapters)]
    engine.create({name: i for i, name in enumerate(names)})
    first = engine.compute_logprobs({None: [s for pair in sequences for s in pair]})[None]
    reference = torch.tensor(first).view(-1, 2)
    order = itertools.cycle(range(0, PAIRS, BATCH))

    def step() -> float:
        began = time.perf_counter()
        batches = {}
        for i, name in enumerate(names):
            here = [(next(order) + i + k) % PAIRS for k in range(BATCH)]
            flat = [s for k in here for s in sequences[k]]
            batches[name] = Batch(flat, dpo(reference[here].flatten()))
        pending = engine.forward_backward(batches)
        engine.optim_step(names, Adam(RATE))
        pending.result()
        return (time.perf_counter() - began) / adapters

    return lambda n: [step() for _ in range(n + 2)][2:]


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10, help="steps a contender takes in a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        save_model(folder)
        pairs = make_pairs()
        plain, tokenised = trl(folder, pairs, precompute=False)
        contenders = {
            "TRL DPOTrainer": plain,
            "TRL DPOTrainer, precompute_ref_log_probs": trl(folder, pairs, precompute=True)[0],
            "engine, padded, 1 adapter": ours(folder, tokenised, pack=False, adapters=1),
            "engine, packed, 1 adapter": ours(folder, tokenised, pack=True, adapters=1),
            "engine, packed, 3 adapters, per adapter": ours(folder, tokenised, pack=True, adapters=3),
            "engine, packed, 10 adapters, per adapter": ours(folder, tokenised, pack=True, adapters=10),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, steps in contenders.items():
                seconds[name] += steps(options.steps)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, torch {torch.__version__}, {options.threads} thread(s), load {load:.1f}\n")
    print(f"{'':42}{'ms a step':>10}{'spread':>14}{'of TRL':>8}{'of TRL pre.':>12}")
    peers = [median[name] for name in list(median)[:2]]
    for name, value in median.items():
        low, high = np.quantile(seconds[name], [0.1, 0.9]) * 1e3
        ratios = "".join(f"{value / peer:>{width}.2f}" for peer, width in zip(peers, (8, 12), strict=True))
        print(f"{name:42}{value * 1e3:>10.0f}{f'{low:.0f}-{high:.0f}':>14}{ratios}")


if __name__ == "__main__":
    main()
