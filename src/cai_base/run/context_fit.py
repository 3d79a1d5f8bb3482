"""Limits the lengths of responses and critiques so that every request fits the model's context."""

from collections.abc import Sequence

from cai_base.arms import Arm
from cai_base.dialogue import END
from cai_base.engines import Engine
from cai_base.errors import UserError
from cai_base.inputs import Inputs
from cai_base.method.phase import Phase, Size
from cai_base.run.inference import layout_of, revised_answers
from cai_base.settings.schema import Evaluation, Prompted, Revision

LEAST = 16
"""A run is refused if fewer tokens than this are left for a response or a critique."""
MARGIN = 8
"""Tokens left free, because sampled text may have a few more tokens when it is tokenised again."""


def fit(
    revision: Revision,
    evaluation: Evaluation,
    prompted: Prompted,
    arms: Sequence[Arm],
    inputs: Inputs,
    engine: Engine,
    size: Size,
    phases: Sequence[Phase],
    interpreter: Engine | None = None,
) -> tuple[Revision, Evaluation, list[str]]:
    """The lengths that fit the model's context, and a warning for each length that was reduced.

    Every phase gives its longest request. If a request contains several responses or critiques, such as a revision
    request, all are shortened in proportion until it fits. A single response gets the tokens that its question leaves.

    Args:
        revision, evaluation: with the requested lengths.
        prompted: the number of principles before a question, in the arm that states them.
        arms: the evaluated arms.
        engine: the engine with the model.
        phases: the run's phases.
        interpreter: the engine of a separate interpreter, if any, whose context the requests must fit too.

    Raises:
        UserError: the prompts leave too little room.
    """
    context = min([engine.context_length, *([] if interpreter is None else [interpreter.context_length])])
    layouts = {layout_of(arm, inputs, prompted) for arm in arms}
    questions = (layout.question(prompt.text) for layout in layouts for prompt in inputs.evaluation_prompts)
    end = len(engine.tokenizer.encode(END))
    requests = [request for phase in phases if (request := phase.longest_request(size)) is not None]
    revised = revised_answers(arms, inputs, size)
    requests += revised
    question = max(*size.questions, *(size.length(text) for text in questions)) + end
    longest = max((request.fixed for request in requests if request.critiques or request.shared), default=0)
    share = min(
        [
            1.0,
            *(
                (context - request.fixed - MARGIN)
                / (request.responses * revision.response_tokens + request.critiques * revision.critique_tokens)
                for request in requests
                if request.critiques or request.shared
            ),
        ]
    )
    before = {
        "revision.response-tokens": revision.response_tokens,
        "revision.critique-tokens": revision.critique_tokens,
        "evaluation.response-tokens": evaluation.response_tokens,
    }
    limits = {
        "revision.response-tokens": min(int(revision.response_tokens * share), context - question),
        "revision.critique-tokens": int(revision.critique_tokens * share),
        "evaluation.response-tokens": min(evaluation.response_tokens, context - question),
    }
    if revised and share < 1:  # the answers of such an arm are part of revision requests, too
        answer = min(limits["evaluation.response-tokens"], limits["revision.response-tokens"])
        limits["evaluation.response-tokens"] = answer
    if min(limits.values()) < min(LEAST, *before.values()):
        states = any(layout.principles for layout in layouts)
        fewer = "; the control prompted states fewer principles with --prompted.principles N" if states else ""
        raise UserError(
            f"--model {engine.model}: its context of {context} tokens leaves too little room for responses to prompts "
            f"of up to {question} and requests of up to {longest} tokens; use a longer context, shorter prompts or "
            f"fewer examples{fewer}"
        )
    warnings = [
        f"{name} was reduced from {before[name]} to {limit}: the model's context is {context} tokens"
        for name, limit in limits.items()
        if limit < before[name]
    ]
    response, critique, answer = limits.values()
    return (
        revision.model_copy(update={"response_tokens": response, "critique_tokens": critique}),
        evaluation.model_copy(update={"response_tokens": answer}),
        warnings,
    )
