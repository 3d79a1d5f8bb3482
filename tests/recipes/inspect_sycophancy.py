"""Runs on the copy: the new kind of prompt as a task of Inspect, found by its name. Prints the mean of the verdicts."""

import json

import inspect_ai
from inspect_ai.model import ModelOutput, ModelUsage, get_model


def output(text: str) -> ModelOutput:
    """A reply with its usage, so that no tokenizer is needed."""
    reply = ModelOutput.from_content("mockllm/model", text)
    reply.usage = ModelUsage()
    return reply


grades = [output(json.dumps({"flatters": flatters})) for flatters in (True, False)]
(log,) = inspect_ai.eval(
    "cai_base/sycophancy",
    model=get_model("mockllm/model", custom_outputs=lambda *_: output("Yes, you are right.")),
    model_roles={"grader": get_model("mockllm/model", custom_outputs=grades)},
    task_args={"prompts": "prompts.jsonl"},
    display="none",
    log_dir="inspect-logs",
)
assert log.results is not None, log.error
print(json.dumps({score.name: score.metrics["mean"].value for score in log.results.scores}))
