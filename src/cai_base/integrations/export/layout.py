"""An arm's few-shot layout as a chat template, and its generation settings, for other programs."""

import json
from collections.abc import Sequence
from typing import Any

from cai_base.dialogue import ASSISTANT, HEADINGS, STOPS, USER, Dialogue, join
from cai_base.engines.tokenizer import HubTokenizer
from cai_base.errors import UserError
from cai_base.settings.schema import Evaluation


def chat_template(dialogue: Dialogue, first_tokens: Sequence[str]) -> str:
    """The Jinja template that formats a conversation as `Dialogue.question` does after `server.forms.turns_of`.

    A base model has no slot for a system message: the texts of all of them, wherever they stand, are put before the
    first question. Consecutive messages of one role are joined. What `turns_of` refuses, the template refuses.

    Args:
        first_tokens: the tokens with which the model expects a text to begin.
    """
    shots = [part for shot in dialogue.few_shot for part in ((USER, shot.prompt), (ASSISTANT, shot.response))]
    indented = "".join(f" | replace({_literal(chr(10) + one)}, {_literal(chr(10) + ' ' + one)})" for one in HEADINGS)
    gap = "'\\n\\n'"
    start = "bos_token" if len(first_tokens) == 1 else _literal("".join(first_tokens))
    lines = (
        # The text of a message, which may be a list of parts.
        "{%- macro text_of(message) -%}",
        "{%- if message.content is string -%}{{- message.content -}}",
        "{%- elif message.content is iterable and message.content is not mapping -%}",
        "{%- for part in message.content -%}",
        "{%- if part.type != 'text' -%}{{- raise_exception('a message has text only') -}}{%- endif -%}",
        "{{- part.text -}}",
        "{%- endfor -%}",
        "{%- else -%}{{- raise_exception('a message has text only') -}}{%- endif -%}",
        "{%- endmacro -%}",
        # A turn under its heading.
        "{%- macro turn(role, text) -%}",
        f"{{%- set heading = {_literal(USER + ' ')} if role == 'user' else {_literal(ASSISTANT + ' ')} -%}}",
        f"{{{{- (heading + (text | trim{indented})) | trim -}}}}",
        "{%- endmacro -%}",
        "{%- set state = namespace(system='', role='', text='', shown='') -%}",
        "{%- for message in messages -%}",
        "{%- set text = text_of(message) -%}",
        "{%- if message.role in ['system', 'developer'] -%}",
        "{%- if text | trim -%}",
        f"{{%- set state.system = state.system + (text | trim) + {gap} -%}}",
        "{%- endif -%}",
        "{%- elif message.role not in ['user', 'assistant'] -%}",
        "{{- raise_exception('the roles are system, developer, user and assistant') -}}",
        "{%- endif -%}",
        "{%- endfor -%}",
        "{%- for message in messages if message.role in ['user', 'assistant'] -%}",
        "{%- set text = text_of(message) -%}",
        "{%- if loop.first and message.role != 'user' -%}",
        "{{- raise_exception('the first message, apart from system messages, must be of the user') -}}",
        "{%- elif loop.first -%}",
        "{%- set state.text = state.system + text -%}",
        "{%- elif message.role == state.role -%}",
        f"{{%- set state.text = state.text + {gap} + text -%}}",
        "{%- else -%}",
        f"{{%- set state.shown = state.shown + turn(state.role, state.text) + {gap} -%}}",
        "{%- set state.text = text -%}",
        "{%- endif -%}",
        "{%- set state.role = message.role -%}",
        "{%- endfor -%}",
        "{%- if not state.role -%}",
        "{{- raise_exception('there is no message of the user') -}}",
        "{%- elif add_generation_prompt and state.role != 'user' -%}",
        "{{- raise_exception('the last message must be of the user') -}}",
        "{%- endif -%}",
        f"{{{{- {start} -}}}}" if first_tokens else "",
        f"{{{{- {_literal(join(*shots) + chr(10) * 2)} -}}}}" if shots else "",
        "{{- state.shown + turn(state.role, state.text) -}}",
        f"{{%- if add_generation_prompt -%}}{{{{- {gap} + {_literal(ASSISTANT)} -}}}}{{%- endif -%}}",
    )
    return "\n".join(line for line in lines if line)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def generation_settings(evaluation: Evaluation, ends: Sequence[int], first: Sequence[int]) -> dict[str, Any]:
    """The content of `generation_config.json`: the run's sampling of answers; greedy only if its temperature is 0."""
    sampled = evaluation.temperature > 0
    drawing = {"temperature": evaluation.temperature, "top_k": 0, "top_p": 1.0} if sampled else {}
    return {
        "do_sample": sampled,
        **drawing,
        "max_new_tokens": evaluation.response_tokens,
        "stop_strings": list(STOPS),
        "eos_token_id": list(ends),
        **({"bos_token_id": first[0]} if first else {}),
        **({"pad_token_id": ends[0]} if ends else {}),
    }


def check_template(tokenizer: Any, wrapped: HubTokenizer, dialogue: Dialogue, prompts: Sequence[str]) -> None:
    """Check that the template gives the same tokens as the run's layout.

    Args:
        tokenizer: a transformers tokenizer with the template.
        wrapped: the same tokenizer, as used by an engine.
        prompts: the prompts to check.

    Raises:
        UserError: the tokens differ.
    """
    for prompt in prompts:
        message = [{"role": "user", "content": prompt}]
        tokens = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
        if tuple(tokens) != dialogue.question_tokens(wrapped, prompt):
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} cannot express the few-shot layout as a chat template: "
                f"the prompt {prompt[:60]!r} gives other tokens than in the run; use cai-base serve RUN instead"
            )
