"""Trains the instruct sibling of the embedded base model: a LoRA adapter, on conversations in a chat template.

The result is a PEFT adapter for the base weights, with the base's tokenizer, a chat template whose role markers are
ordinary text, so that no token is added, and `card.json`, which records how the sibling was trained.
"""

import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from cai_base import embedded, randomness
from cai_base.dialogue import chat_tokens
from cai_base.embedded import EMBEDDED
from cai_base.engines import Adam, Batch, Datum, Failed, Lora, Tokenizer
from cai_base.engines.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from cai_base.engines.local import LocalEngine
from cai_base.engines.local.model import check_folder
from cai_base.engines.weight_files import save_weights
from cai_base.errors import UserError
from cai_base.method import sft
from cai_base.method.training import learning_rate
from cai_base.models import named
from cai_base.organism.cards import CARD, SiblingCard
from cai_base.progress import Progress
from cai_base.settings.schema import LoraSettings, Training
from cai_base.store import make_folder, refuse_others, to_json, write_atomic
from cai_base.village.draw import Draw
from cai_base.village.instruct_conversations import Turn, conversation

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>\n{{ message['content'] | trim }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LORA = LoraSettings(rank=16, alpha=32.0)
TRAINING = Training.model_validate(
    {
        "steps": 400,
        "batch-size": 16,
        "learning-rate": 1e-3,
        "warmup": 0.05,
        "schedule": "cosine",
        "clip-norm": 1.0,
    }
)
SEQUENCE_LENGTH = 256
"""The engine's longest sequence, in tokens."""
LOSSES_ON_CARD = 20
"""First and last losses on the card."""
OWN = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""The files of one that a killed command left behind."""
ADAPTER = "sibling"
"""The adapter's name in the engine."""


def make_sibling(
    out: Path,
    *,
    base: Path | None = None,
    seed: int = 0,
    threads: int = 0,
    progress: Progress,
    training: Training = TRAINING,
) -> None:
    """Train the sibling and write it to `out`, replacing an existing one. Nothing is written before training has ended.

    Args:
        out: the folder to write.
        base: the base model's folder; the shipped weights by default.
        seed: the seed of the conversations and of the adapter's initial weights.
        threads: CPU threads; 0 leaves the choice to PyTorch.
        progress: shows the progress bar.
        training: steps, batch size, learning rate; those of the shipped sibling by default.

    Raises:
        UserError: there is no base model in `base`, `out` cannot be created or has other files, or the adapter's loss
            is not finite.
    """
    base = base or embedded.weights()
    with named({"model": "--base"}):
        check_folder(str(base.absolute()))
    make_folder(out)
    if not (out / CARD).exists():
        refuse_others(out, OWN, "a sibling")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        tokenizer = _chat_tokenizer(base, Path(work))
        with named({"model": "--base"}):
            engine = LocalEngine(
                str(base),
                Lora(LORA.rank, LORA.alpha),
                name=EMBEDDED,
                sequence_length=SEQUENCE_LENGTH,
                device="cpu",  # as for the base, so that the same seed gives the same weights
                threads=threads,
                tokenizer_of=work,
            )
    engine.create({ADAPTER: randomness.seed(seed, "sibling", "adapter")})
    losses = _train(engine, seed, training, progress)
    (out / CARD).unlink(missing_ok=True)  # rewritten last: a folder with a card is complete
    engine.export({ADAPTER: out})
    path = out / ADAPTER_WEIGHTS
    save_weights({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    tokenizer.save_pretrained(out)
    card: SiblingCard = {
        "base": embedded.digest(base),
        "seed": seed,
        "lora": LORA.model_dump(),
        "training": training.model_dump(),
        "first_losses": losses[:LOSSES_ON_CARD],
        "last_losses": losses[-LOSSES_ON_CARD:],
        "seconds": round(time.monotonic() - start),
        "made_with": {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()},
    }
    write_atomic(out / CARD, to_json(card))


def conversation_datum(tokenizer: Tokenizer, turns: list[Turn]) -> Datum:
    """A conversation in its chat template; weight 1 on the last reply and its end token, 0 on everything before."""
    *earlier_turns, (question, reply) = turns
    prompt = chat_tokens(tokenizer, earlier_turns, question)
    response = (*tokenizer.encode(reply), *tokenizer.eos)
    return Datum((*prompt, *response), (*[0.0] * len(prompt), *[1.0] * len(response)))


def batch(tokenizer: Tokenizer, seed: int, step: int, size: int) -> Batch:
    """The conversations of one step. Each is drawn from its own random stream, so steps have different
    conversations."""
    numbers = range(step * size, (step + 1) * size)
    conversations = [conversation(Draw(seed, "sibling", number, "conversation")) for number in numbers]
    data = [conversation_datum(tokenizer, turns) for turns in conversations]
    return Batch(data, sft.nll_loss(data))


def _train(engine: LocalEngine, seed: int, training: Training, progress: Progress) -> list[float]:
    """The loss of every step: mean NLL per trained token, in nats."""
    losses: list[float] = []
    with progress.bar("instruct sibling", training.steps, unit="steps") as bar:
        for step in range(training.steps):
            conversations = batch(engine.tokenizer, seed, step, training.batch_size)
            outcome = engine.forward_backward({ADAPTER: conversations}).result()[ADAPTER]
            if isinstance(outcome, Failed):
                raise UserError(f"step {step}: {outcome.reason}; give another --seed")
            engine.optim_step([ADAPTER], Adam(learning_rate(training, step), clip_norm=training.clip_norm))
            losses.append(outcome.loss)
            bar.advance(1)
    return losses


def _chat_tokenizer(base: Path, work: Path) -> Any:
    """The base's tokenizer with the chat template; also saves it in `work`."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(work)
    return tokenizer
