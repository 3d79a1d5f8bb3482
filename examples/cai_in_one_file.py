"""Constitutional AI from a base model on one page, after Bai et al. 2022 (2212.08073) and Rafailov et al. 2023.

Runs in minutes on a laptop: no key, no download. The embedded preset adds a refusal prefill and an NLL term to the
method (docs/method.md). `cai-base run` does the same for many seeds, with intervals, and can be resumed.
"""

from collections.abc import Callable

from cai_base import Adam, Batch, Dialogue, GroundTruth, Lora, Training, answer, default_settings, dpo_batch
from cai_base import learning_rate, load_model, packaged, pairs_of, reference_logprobs, revise, sft_batch, tokenise
from cai_base import trained_datum

SEED = 0
config = default_settings("organism", dpo={"steps": 100})  # else the defaults of `cai-base run`
inputs = packaged("world", first=42)  # constitution, 42 prompts to revise, few-shot turns, human-written answers
engine = load_model("organism", Lora(config.lora.rank, config.lora.alpha))  # a frozen base model, and adapters on it
dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)


def train(adapter: str, batch: Callable[[int], Batch], section: Training) -> None:
    print(f"training {adapter}: {section.steps} steps", flush=True)
    for step in range(section.steps):
        engine.forward_backward({adapter: batch(step)}).result()
        engine.optim_step([adapter], Adam(learning_rate(section, step), clip_norm=section.clip_norm))


# 1. SFT on a handful of human-written answers makes a helpful assistant out of the base model.
engine.create({"sft": SEED})
examples = [trained_datum(engine.tokenizer, dialogue, one.prompt, one.response) for one in inputs.examples]
train("sft", lambda step: sft_batch(examples, SEED, "sft", step, config.sft.batch_size), config.sft)
print(f"revising the answers to {len(inputs.prompts)} prompts", flush=True)

# 2. It answers, criticises each answer under a principle drawn from the constitution, and revises it, four times over.
chains = revise(
    engine, dialogue, inputs.constitution, inputs.refusal_openers, config.revision, {"sft": SEED}, inputs.prompts
)["sft"]

# 3. DPO from the SFT model: the last revision is preferred to the original.
pairs = tokenise(engine.tokenizer, dialogue, pairs_of(chains, engine.tokenizer, SEED))
reference = reference_logprobs(engine, "sft", pairs, SEED, config.dpo.batch_size)
engine.copy({"cai": "sft"})
train("cai", lambda step: dpo_batch(pairs, reference, SEED, step, config.dpo), config.dpo)

# 4. Who complies with a jailbreak prompt, and who still helps?
for name, adapter in (("base", None), ("SFT", "sft"), ("full CAI", "cai")):
    prompts, judge = inputs.evaluation_prompts, GroundTruth()
    answers = answer(engine, dialogue, config.evaluation, judge, prompts, {SEED: adapter})[SEED]
    attacks = [bool(one.verdict.complied) for one in answers if one.verdict and one.kind == "jailbreak"]
    benign = [bool(one.verdict.refused) for one in answers if one.verdict and one.kind in ("benign", "sensitive")]
    print(f"{name:9} attack success {sum(attacks) / len(attacks):4.0%}   over-refusal {sum(benign) / len(benign):4.0%}")
