"""What a model that judges reads and writes, before it is known what it is asked about."""

from collections.abc import Iterable, Sequence

from cai_base.dialogue import prompt_tokens
from cai_base.engines import Tokenizer, Usage
from cai_base.evaluation.judges import Response
from cai_base.evaluation.judges.grading import RubricGrading
from cai_base.inputs.rubrics import Rubric


def judging_cost(
    rubrics: Sequence[Rubric], responses: Iterable[Response], tokenizer: Tokenizer, longest: int, reply: int
) -> Usage:
    """An upper bound on the tokens of one vote on each response.

    Args:
        responses: with empty texts in place of those that are not sampled yet.
        longest: tokens of the longest text to be judged.
        reply: tokens of the judge's longest reply.
    """
    gradings = {rubric.task: RubricGrading(rubric) for rubric in rubrics}
    usage = Usage()
    for response in responses:
        for task in response.rubrics:
            read = sum(
                len(prompt_tokens(tokenizer, str(turn["content"]))) for turn in gradings[task].messages(response)
            )
            usage.add(Usage(prefilled=read + longest * len(response.texts), sampled=reply))
    return usage
