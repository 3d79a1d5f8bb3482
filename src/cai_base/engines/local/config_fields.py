"""Fields of a model's config.json that transformers does not read: the model would compute without them.

transformers keeps every field that it does not know, and says nothing. A field that means a different computation, such
as a cap on the scores in an architecture that has none, is refused. Others are in many published files and mean nothing
(SmolLM2's `is_llama_config`), or repeat another field (Falcon 3's `activation`): those are named in a note.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, configuration_utils, modeling_rope_utils

from cai_base.engines import EngineError
from cai_base.engines.files import MODEL_CONFIG
from cai_base.reading import quote

COMPUTED = (
    *("attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "clip_qkv", "alibi"),
    *("attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling", "logit_scale"),
    *("qk_layernorm", "use_qk_norm", "rope_interleaved", "partial_rotary_factor", "use_mrope", "no_rope_layers"),
    *("scale_emb", "scale_depth", "dim_model_base", "lm_head_multiplier"),
    *("num_local_experts", "num_experts", "parallel_attn", "use_bidirectional_attention", "quantization"),
)
"""Fields that change what a model computes, each read by some architecture or, as MLX's `quantization`, a program."""
OWN = ("partial_rotary_factor",)
"""Fields that transformers' common code passes on for every architecture, and only some architectures read."""
ROPE = ("rope_parameters", "rope_scaling")
"""Tables of fields in a config, of which Gemma 3 has one for each kind of layer."""
WITHOUT_EFFECT = re.compile(
    r"is_llama_config|transformers\.js_config|auto_map|cache_implementation|pretraining_tp|model_max_length|n_ctx"
    r"|task_specific_params|.*_version|unsloth_.*|_.*|.*_token_id|.*_token_index|.*_fusion|.*dropout|.*_pdrop"
)
"""Fields of published files that say where a file comes from, or how it is trained or run."""


def check(name: str, model: PreTrainedModel) -> tuple[str, ...]:
    """Notes about the fields that nothing reads.

    Raises:
        EngineError: one of them changes what the model computes.
    """
    config: Any = model.config
    raw, _ = PreTrainedConfig.get_config_dict(name)
    own = _words(frozenset(_modules((config, config.get_text_config(), model, model.base_model))))
    common = _words(frozenset((configuration_utils, modeling_rope_utils))).difference(OWN)
    unread = {key: value for key, value in _fields(raw) if key not in own | common and not _is_neutral(value)}
    changes = sorted(key for key in unread if key in COMPUTED)
    if changes:
        reason = (
            f"its {MODEL_CONFIG} has {changes[0]} = {quote(unread[changes[0]])}, which transformers'"
            f" {type(model).__name__} does not read: the model would compute something else"
        )
        remedy = "give a model of an architecture that has this field, or take it out if the model was trained without"
        raise EngineError("model", name, reason, remedy)
    named = sorted(key for key in unread if not WITHOUT_EFFECT.fullmatch(key))
    if not named:
        return ()
    fields = ", ".join(f"{quote(key)} = {quote(unread[key])}" for key in named[:3])
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return (f"Fields of the model's {MODEL_CONFIG} that transformers does not read: {fields}{more}",)


def _fields(raw: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of the text model, which a multimodal model has in a table of its own, and of its positions."""
    yield from raw.items()
    for name in ROPE:
        if isinstance(positions := raw.get(name), dict):
            yield from _leaves(positions)
    if isinstance(inner := raw.get("text_config"), dict):
        yield from _fields(inner)


def _leaves(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a table and of the tables in it."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield key, value


def _is_neutral(value: object) -> bool:
    """Whether a value says that something is not there: nothing, false, zero, or a factor of one."""
    return not value or (not isinstance(value, bool) and value == 1)


def _modules(of: Iterable[object]) -> Iterator[ModuleType]:
    yield from filter(None, (inspect.getmodule(type(one)) for one in of))


@cache
def _words(modules: frozenset[ModuleType]) -> frozenset[str]:
    """Every name and every key in the modules' source: a field that is read stands there, under its own name.

    A docstring or a comment reads nothing.
    """
    return frozenset(word for module in modules for word in _names(ast.parse(inspect.getsource(module))))


def _names(tree: ast.AST) -> Iterator[str]:
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=str(name)) | ast.Name(id=str(name)) | ast.arg(arg=str(name)):
                yield name
            case ast.keyword(arg=str(name)):
                yield name
            case ast.Constant(value=str(name)) if id(node) not in texts:
                yield name
