"""Fitting the settings' lengths into the model's context, and saying so."""

from collections.abc import Iterable

from cai_base.dialogue import END, Dialogue, prompt_tokens
from cai_base.engines import Engine
from cai_base.errors import UserError
from cai_base.inputs import Inputs
from cai_base.settings.schema import RunSettings

LEAST = 16
"""Fewer tokens than this for a response or a critique make no experiment."""


def fit(settings: RunSettings, inputs: Inputs, engine: Engine) -> tuple[RunSettings, list[str]]:
    """The settings with lengths that the model's context holds, and a sentence for each that was clipped.

    A revision request holds the prompt, a response, a critique and both requests, and leaves room for another response;
    responses and critiques shrink in proportion until the longest of them fits.

    Raises:
        UserError: the prompts leave too little room.
    """
    context = engine.context_length
    dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)

    def longest(texts: Iterable[str]) -> int:
        return max(len(prompt_tokens(engine.tokenizer, text)) for text in texts)

    end = len(engine.tokenizer.encode(END))
    asked = longest(dialogue.question(prompt.text) for prompt in (*inputs.prompts, *inputs.evaluation_prompts)) + end
    requests = longest(
        dialogue.revision(prompt, "x", principle, "x")
        for principle in inputs.constitution.principles
        for prompt in [max((p.text for p in inputs.prompts), key=len)]
    )
    revision, evaluation = settings.revision, settings.evaluation
    wanted = 2 * revision.response_tokens + revision.critique_tokens
    share = min(1.0, (context - requests - 8) / wanted)
    limits = {
        "revision.response-tokens": min(int(revision.response_tokens * share), context - asked),
        "revision.critique-tokens": int(revision.critique_tokens * share),
        "evaluation.response-tokens": min(evaluation.response_tokens, context - asked),
    }
    were = {
        "revision.response-tokens": revision.response_tokens,
        "revision.critique-tokens": revision.critique_tokens,
        "evaluation.response-tokens": evaluation.response_tokens,
    }
    if min(limits.values()) < min(LEAST, *were.values()):
        raise UserError(
            f"--model {settings.model}: its context of {context} tokens leaves too little room beside prompts of up to "
            f"{asked} and requests of up to {requests} tokens; use a longer context, shorter prompts or fewer examples"
        )
    warnings = [
        f"{name} was clipped from {were[name]} to {limit}: the model's context holds {context} tokens"
        for name, limit in limits.items()
        if limit < were[name]
    ]
    fitted = settings.model_copy(
        update={
            "revision": revision.model_copy(
                update={
                    "response_tokens": limits["revision.response-tokens"],
                    "critique_tokens": limits["revision.critique-tokens"],
                }
            ),
            "evaluation": evaluation.model_copy(update={"response_tokens": limits["evaluation.response-tokens"]}),
        }
    )
    return fitted, warnings
