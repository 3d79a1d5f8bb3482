"""Fields of a model's config.json that transformers does not read: the model would compute without them.

transformers keeps every field that it does not know, and says nothing. A field whose name speaks of the computation,
such as a cap on the scores in an architecture that has none, is refused, unless its value means that nothing is done,
repeats a field that is read, or is what the architecture does anyway (gpt-oss's `swiglu_limit`). Others are in many
published files and mean nothing (SmolLM2's `is_llama_config`), or are unknown: those are named in a note.
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

COMPUTED = frozenset(
    "rope rotary mrope nope yarn ntk alibi position positional relative"
    " scale scales scaling scaled scalar multiplier mult mup ratio factor"
    " window windows sliding chunk chunked causal bidirectional mask sink sinks"
    " cap caps capping softcap softcapping clip clipping limit"
    " norm layernorm rmsnorm prenorm postnorm bias qk qkv attention attn activation act gate gated gating"
    " residual parallel expert experts moe scoring topk quantization".split()
)
"""Words of which one is in a field's name if it says how a model computes."""
FURTHER = ("dim_model_base", "layer_types")
"""Fields of the computation without such a word, such as MiniCPM's, by which it divides the logits."""
NOT_COMPUTED = frozenset(
    "init initializer dropout pdrop loss coef aux cache flash sdpa implementation implement efficient fp32 checkpoint"
    " checkpointing fusion kernel kernels tensor tp".split()
)
"""Words of fields that say how a model was trained or how fast it is run, whatever other words they have."""
STATED: Mapping[tuple[str, str], object] = {
    ("llama", "activation"): "swiglu",
    ("gpt_oss", "swiglu_limit"): 7.0,
    ("gpt_oss", "experts_per_token"): 4,
    ("cohere2", "position_embedding_type"): "rope_gptj",
    ("cohere2", "use_gated_activation"): True,
    ("cohere2", "use_parallel_block"): True,
    ("deepseek_v2", "scoring_func"): "softmax",
    ("deepseek_v3", "scoring_func"): "sigmoid",
    ("deepseek_v3", "topk_method"): "noaux_tc",
    ("starcoder2", "norm_type"): "layer_norm",
    ("gptj", "rotary"): True,
    ("gptj", "scale_attn_weights"): True,
    ("codegen", "rotary"): True,
    ("bloom", "offset_alibi"): 100,
    ("bloom", "skip_bias_add"): True,
}
"""What published files say, by architecture, that it computes anyway."""
OWN = ("partial_rotary_factor", "layer_types")
"""Fields that transformers' common code passes on for every architecture, and only some architectures read."""
ROPE = ("rope_parameters", "rope_scaling")
"""Tables of fields in a config, of which Gemma 3 has one for each kind of layer."""
SCALES = (
    *("factor", "attention_factor", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor"),
    *("beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
)
"""Fields of such a table that scale the positions."""
READ: Mapping[str, tuple[str, ...]] = {"default": (), "linear": ("factor",), "dynamic": ("factor",)}
"""Those that are read, by type of scaling; a table without a type has the first. Other types read most of them."""
WITHOUT_EFFECT = re.compile(
    r"is_llama_config|transformers\.js_config|auto_map|cache_implementation|pretraining_tp|model_max_length|n_ctx"
    r"|task_specific_params|max_window_layers|.*_version|unsloth_.*|_.*|.*_token_id|.*_token_index|.*_fusion|.*dropout"
    r"|.*_pdrop"
)
"""Fields of published files that say where a file comes from, or how it is trained or run."""


def check(name: str, model: PreTrainedModel) -> tuple[str, ...]:
    """Notes about the fields that nothing reads.

    Raises:
        EngineError: one of them changes what the model computes.
    """
    config: Any = model.config
    raw, _ = PreTrainedConfig.get_config_dict(name)
    _check_scaling(name, raw, config.get_text_config())
    own = source_words(frozenset(_modules((config, config.get_text_config(), model, model.base_model))))
    common = source_words(frozenset((configuration_utils, modeling_rope_utils))).difference(OWN)
    fields = dict(_fields(raw))
    read = {key: value for key, value in fields.items() if key in own | common}
    unread = {key: value for key, value in fields.items() if key not in read and not _is_neutral(value)}
    kind = str(config.get_text_config().model_type)
    changes = sorted(key for key, value in unread.items() if _computes(key, value, fields, read, kind))
    if changes:
        reason = (
            f"its {MODEL_CONFIG} has {changes[0]} = {quote(unread[changes[0]])}, which transformers'"
            f" {type(model).__name__} does not read: the model would compute something else"
        )
        remedy = (
            "give a model of an architecture that has this field, or, if it is known to have no effect in this model,"
            f" delete it from {MODEL_CONFIG}"
        )
        raise EngineError("model", name, reason, remedy)
    named = sorted(key for key in unread if not WITHOUT_EFFECT.fullmatch(key) and (kind, key) not in STATED)
    if not named:
        return ()
    few = ", ".join(f"{quote(key)} = {quote(unread[key])}" for key in named[:3])
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return (f"Fields of the model's {MODEL_CONFIG} that transformers does not read: {few}{more}",)


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
    """Whether a value says that something is not there: nothing, false, zero, a factor of one, full attention."""
    if isinstance(value, list):
        return all(one == "full_attention" for one in value)
    return not value or (not isinstance(value, bool) and value == 1)


def _computes(key: str, value: object, fields: Mapping[str, Any], read: Mapping[str, Any], kind: str) -> bool:
    """Whether a field that is not read would change what a model computes, by the words of its name.

    Args:
        key: the field.
        value: not neutral.
        fields: all.
        read: those that are read.
        kind: the model's architecture.
    """
    words = _parts(key)
    if WITHOUT_EFFECT.fullmatch(key) or not (words & COMPUTED or key in FURTHER) or words & NOT_COMPUTED:
        return False
    if "window" in words and fields.get("use_sliding_window") is False:  # Qwen's switch
        return False
    if key == "position_embedding_type" and value in ("rope", "rotary"):
        return not any("rope_theta" in field or field in ROPE for field in read)
    if (kind, key) in STATED:
        return bool(STATED[kind, key] != value)
    return not any(_repeats(words, value, _parts(other), same) for other, same in read.items())


def _repeats(words: frozenset[str], value: object, others: frozenset[str], other: object) -> bool:
    """Whether a field has the value of another under a similar name, as Gemma 2's `sliding_window_size`."""
    if isinstance(value, bool) or type(value) is not type(other) or value != other:
        return False
    return bool(words & others) if isinstance(value, str) else words <= others or others <= words


def _parts(name: str) -> frozenset[str]:
    """The words of a field's name."""
    return frozenset(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))


def _check_scaling(name: str, raw: Mapping[str, Any], config: Any) -> None:
    """Raises EngineError if a table of the positions scales them and its type of scaling, or no type, reads that."""
    passed = getattr(config, "ignore_keys_at_rope_validation", None) or ()
    for place, table in _tables(raw):
        kind = table.get("rope_type", table.get("type", "default"))
        read = READ.get(kind, SCALES) if isinstance(kind, str) else SCALES
        lost = [key for key in SCALES if key not in (*read, *passed) and not _is_neutral(table.get(key))]
        if lost:
            words = f"of type {quote(kind)}" if "rope_type" in table or "type" in table else "without a type of scaling"
            has = f"{lost[0]} = {quote(table[lost[0]])} in {place} {words}"
            reason = f"its {MODEL_CONFIG} has {has}, which does not read it: the model would compute something else"
            remedy = f"add the type that the model was trained with, or delete {place} if it was trained without"
            raise EngineError("model", name, reason, remedy)


def _tables(raw: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The tables of the positions, and those in them, with the field that has them."""
    for name in ROPE:
        if isinstance(table := raw.get(name), dict):
            for one in (table, *(inner for inner in table.values() if isinstance(inner, dict))):
                yield name, one
    if isinstance(inner := raw.get("text_config"), dict):
        yield from _tables(inner)


def _modules(of: Iterable[object]) -> Iterator[ModuleType]:
    yield from filter(None, (inspect.getmodule(type(one)) for one in of))


@cache
def source_words(modules: frozenset[ModuleType]) -> frozenset[str]:
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
