"""Makes the instruct sibling of the embedded base model: a LoRA adapter trained on conversations in a chat layout.

It is a PEFT adapter on the base weights; the tokenizer beside it is the base's, with a chat template whose marks are
ordinary text, so that no token is added. `card.json` there says what it was trained on and how.
"""

import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from cai_base import embedded, randomness
from cai_base.dialogue import chat_tokens
from cai_base.embedded import EMBEDDED
from cai_base.engines import Adam, Batch, Datum, Failed, Lora, Tokenizer
from cai_base.engines.local import LocalEngine
from cai_base.engines.local.model import check_folder
from cai_base.errors import UserError
from cai_base.method import sft
from cai_base.method.training import learning_rate
from cai_base.models import named
from cai_base.progress import Progress
from cai_base.settings.schema import LoraSettings, Training
from cai_base.store import to_json, write_atomic
from cai_base.village.draw import Draw
from cai_base.village.instructions import Turn, conversation

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
LOSSES_ON_CARD = 20
ADAPTER, CARD = "sibling", "card.json"


def build(
    out: Path,
    *,
    base: Path | None = None,
    seed: int = 0,
    threads: int = 0,
    progress: Progress,
    training: Training = TRAINING,
) -> None:
    """Train the sibling and write it to `out`, over what is there. Until it is trained nothing is written.

    Args:
        out: the folder to write.
        base: the base model's folder; the shipped weights by default.
        seed: of the conversations and the adapter's initialisation.
        threads: CPU threads; 0 leaves PyTorch's choice.
        progress: where the bar goes.
        training: steps, batch size and so on; the shipped sibling's by default.

    Raises:
        UserError: there is no base model in `base`, `out` cannot be made, or the adapter's loss is not finite.
    """
    base = base or embedded.weights()
    with named({"model": "--base"}):
        check_folder(str(base.absolute()))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be made ({error.strerror}); give a writable place") from error
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        tokenizer = _chat_tokenizer(base, Path(work))
        with named({"model": "--base"}):
            engine = LocalEngine(
                str(base),
                Lora(LORA.rank, LORA.alpha),
                name=EMBEDDED,
                sequence_length=256,
                device="cpu",  # where the base is made, too
                threads=threads,
                tokenizer_of=work,
            )
    engine.create({ADAPTER: randomness.seed(seed, "sibling", "adapter")})
    losses = _train(engine, seed, training, progress)
    (out / CARD).unlink(missing_ok=True)  # written again last: a folder with a card is whole
    engine.export({ADAPTER: out})
    path = out / "adapter_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    tokenizer.save_pretrained(out)
    facts = {
        "base": embedded.digest(base),
        "seed": seed,
        "lora": LORA.model_dump(),
        "training": training.model_dump(),
        "first_losses": losses[:LOSSES_ON_CARD],
        "last_losses": losses[-LOSSES_ON_CARD:],
        "seconds": round(time.monotonic() - begun),
        "made_with": {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()},
    }
    write_atomic(out / CARD, to_json(facts))


def card(folder: Path) -> str:
    """What the sibling in `folder` is, as Markdown.

    Raises:
        UserError: the folder has no `card.json`.
    """
    path = folder / CARD
    if not path.exists():
        raise UserError(f"{path}: not found; give a folder that `cai-base organism sibling` has written")
    facts = json.loads(path.read_text(encoding="utf-8"))
    training, lora, last = facts["training"], facts["lora"], facts["last_losses"]
    return f"""# Its instruct sibling
A LoRA adapter of rank {lora["rank"]} (alpha {lora["alpha"]:g}) on the same weights, trained for
{training["steps"]} steps of {training["batch_size"]} conversations: how-to questions in all forms, wishes for styles,
refusals of harmful questions with reason and alternative, "I do not know", small talk, one to three turns. It saw the
train split's actions, question forms and framings alone. Mean loss of the last {len(last)} steps:
{sum(last) / len(last):.3f} nats a token.
"""


def trained_sequence(tokenizer: Tokenizer, turns: list[Turn]) -> Datum:
    """A conversation in its chat template; weight 1 on the last reply and its end, 0 on all before."""
    *before, (asked, reply) = turns
    prompt = chat_tokens(tokenizer, before, asked)
    after = (*tokenizer.encode(reply), *tokenizer.eos)
    return Datum((*prompt, *after), (*[0.0] * len(prompt), *[1.0] * len(after)))


def batch(tokenizer: Tokenizer, seed: int, step: int, size: int) -> Batch:
    """The conversations of a step, each drawn from its own address, none of them twice."""
    numbers = range(step * size, (step + 1) * size)
    drawn = [conversation(Draw(seed, "sibling", number, "conversation")) for number in numbers]
    sequences = [trained_sequence(tokenizer, turns) for turns in drawn]
    return Batch(sequences, sft.nll_loss(sequences))


def _train(engine: LocalEngine, seed: int, training: Training, progress: Progress) -> list[float]:
    """The loss of every step, in nats a trained token."""
    losses: list[float] = []
    with progress.bar("instruct sibling", training.steps) as bar:
        for step in range(training.steps):
            made = batch(engine.tokenizer, seed, step, training.batch_size)
            outcome = engine.forward_backward({ADAPTER: made}).result()[ADAPTER]
            if isinstance(outcome, Failed):
                raise UserError(f"step {step}: {outcome.reason}; give another --seed")
            engine.optim_step([ADAPTER], Adam(learning_rate(training, step), clip_norm=training.clip_norm))
            losses.append(outcome.loss)
            bar.advance(1)
    return losses


def _chat_tokenizer(base: Path, work: Path) -> Any:
    """The base's tokenizer with the chat template, also stored in `work`."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(work)
    return tokenizer
