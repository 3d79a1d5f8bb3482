"""Untrained arms that use the constitution at inference: in the prompt, or by revising their answers."""

from collections.abc import Sequence
from dataclasses import replace

from cai_base.arms import Arm
from cai_base.dialogue import Dialogue
from cai_base.engines import Adapter, Engine, Findings, Sample, Usage
from cai_base.evaluation.tasks import Query, Revise
from cai_base.inputs import Inputs
from cai_base.inputs.prompts import Prompt
from cai_base.method.interpreter import Interpreter
from cai_base.method.phase import Request, Size
from cai_base.method.revision import OpenChain, RevisionPhase, longest_revision, revise_further
from cai_base.models import load_interpreter
from cai_base.progress import Progress
from cai_base.settings.choices import InterpreterChoice
from cai_base.settings.schema import Prompted, Revision


def layout_of(arm: Arm, inputs: Inputs, prompted: Prompted) -> Dialogue:
    """The layout of an arm's prompts: after the few-shot turns; for `prompted`, principles come first."""
    dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)
    if arm.inference != "constitution first":
        return dialogue
    return replace(dialogue, principles=inputs.constitution.principles, draws=prompted.principles)


def interpreter_of(
    choice: InterpreterChoice, engine: Engine, progress: Progress, findings: Findings | None = None
) -> Interpreter:
    """The interpreter that the settings name; it is loaded if it is not the run's own model.

    Args:
        engine: the run's, with the base model and the adapters.
        findings: for a resumed run, the stored findings of a separate interpreter's engine.

    Raises:
        UserError: the model cannot be loaded.
    """
    if not choice.other:
        return Interpreter(engine, own=choice.own)
    own_engine, adapter = load_interpreter(choice, progress, findings)
    return Interpreter(own_engine, own=False, adapter=adapter)


def revision_of(
    arm: Arm, settings: Revision, inputs: Inputs, engine: Engine, interpreter: Interpreter
) -> Revise | None:
    """The function by which `revise-only` revises its answers; None for every other arm.

    Args:
        settings: `RunSettings.answer_revision`.
        engine: samples the answers.
        interpreter: critiques and revises them.
    """
    if arm.inference != "revision":
        return None
    dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)

    def revise(
        models: Sequence[Adapter | None], seeds: Sequence[int], queries: Sequence[Query], samples: Sequence[Sample]
    ) -> list[Sample]:
        chains = [
            OpenChain(
                model,
                seed,
                Prompt(id="/".join(query.address), text=query.text),
                None,
                [sample.text.strip()],
                truncated=[sample.stop_reason == "length"],
            )
            for model, seed, query, sample in zip(models, seeds, queries, samples, strict=True)
        ]
        revise_further(interpreter, dialogue, inputs.constitution, settings, chains, phase=arm.name)
        return [
            Sample(
                chain.responses[-1],
                tuple(engine.tokenizer.encode(chain.responses[-1])),
                "length" if chain.truncated[-1] else "stop",
            )
            for chain in chains
        ]

    return revise


def revised_answers(arms: Sequence[Arm], inputs: Inputs, size: Size) -> list[Request]:
    """The longest revision request for an answer, if an arm revises its answers; else empty."""
    if any(arm.inference == "revision" for arm in arms):
        return [longest_revision(size, size.dialogue, inputs.constitution, inputs.evaluation_prompts)]
    return []


def extra_cost(arm: Arm, settings: Revision, prompted: Prompted, inputs: Inputs, size: Size) -> Usage:
    """An upper bound, for one seed, on the additional tokens of an arm's answers, compared with an ordinary arm."""
    prompts = inputs.evaluation_prompts
    if arm.inference == "constitution first":
        layout = layout_of(arm, inputs, prompted)
        return Usage(prefilled=sum(len(size.tokenizer.encode(layout.preamble(one.text))) for one in prompts))
    if arm.inference == "revision":
        return RevisionPhase(settings, prompts, inputs.constitution, ()).interpreter_cost(replace(size, seeds=1))
    return Usage()
