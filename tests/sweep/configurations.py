"""A tiny configuration of any model type: the default one, every size shrunk by the name of its field."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import transformers
from transformers import PreTrainedConfig

from tests.sweep.exceptions import EXCEPTIONS, KEEP

VOCABULARY = 160
WIDTH = 64
INNER = 128
HEADS = 4
HEAD = 32
LAYERS = 2
IMAGE = 32
PATCH = 8
POSITIONS = 256
FRAMES = 64
LABELS = 20

Rule = Callable[[int], int]


def at_most(limit: int) -> Rule:
    """Keep what is small."""
    return lambda value: min(value, limit)


def _heads(value: int) -> int:
    return HEADS if value >= HEADS else 2 if value >= 2 else value


RULES: tuple[tuple[str, Rule], ...] = (
    (r"codebook_size|codevectors", at_most(64)),
    (r"vocab_size|num_embeddings$|bins$", at_most(VOCABULARY)),
    (r"(num_key_value_heads|num_kv_heads|kv_heads|num_key_value_groups|n_head_kv)$", lambda v: min(v, 2)),
    (r"(?<!d_)heads?$", _heads),
    (r"(experts_per_tok|top_k|topk|num_selects|moe_k)$|index_topk$", at_most(2)),
    (r"topk_group|n_group$|topk_method", at_most(1)),
    (r"experts$|num_local_experts|moe_num_experts", at_most(4)),
    (r"shared_experts", at_most(1)),
    (r"first_k_dense_replace", at_most(1)),
    (r"(max_window_layers|num_kv_shared_layers|num_nextn_predict_layers)$", at_most(0)),
    (r"(num|n)_?(hidden)?_?layers?$|^(encoder|decoder)_layers$|_layers$|^depth$|_depth$|num_blocks$|num_encoder_blocks", at_most(LAYERS)),
    (r"max_source_positions", at_most(FRAMES // 2)),
    (r"(max_)?(source_|target_|text_|encoder_|decoder_)?"
        r"(position_embeddings|positions|seq_len|seqlen|sequence_length|n_ctx)$|max_seq",
        at_most(POSITIONS)),
    (r"image_size|img_size|input_size$|resolution$", lambda v: IMAGE if v >= IMAGE else v),
    (r"^(spatial_)?patch_size$", lambda v: PATCH if v >= PATCH else v),
    (r"qk_rope_head_dim|rotary_dim|index_rope", at_most(16)),
    (r"qk_nope_head_dim|v_head_dim|kv_channels|head_dim|d_kv|dim_head|head_size|d_head", at_most(HEAD)),
    (r"qk_head_dim", at_most(16 + HEAD)),
    (r"lora_rank|time_step_rank|dt_rank|bottleneck", at_most(32)),
    (r"state_size|d_state|ssm_state", at_most(16)),
    (r"intermediate|ffn|d_ff|d_inner|n_inner|mlp_dim|feedforward|hidden_dim$", at_most(INNER)),
    (r"num_queries|num_query_tokens|num_proposals|queries$|latents$", at_most(12)),
    (r"chunk_size|block_size|sliding_window|local_attention|attention_window|window_size|context_window", at_most(8)),
    (r"num_conv_pos_embeddings$", at_most(16)),
    (r"num_conv_pos_embedding_groups$|num_groups$|n_groups$|norm_groups$", at_most(2)),
    (r"num_buckets$", at_most(8)),
    (r"hidden|width|dim$|dims$|_size$|d_model|n_embd|embd|channels?$|features$|units$|filters$|rank$|embed", at_most(WIDTH)),
)  # fmt: skip
"""Of a field's name, the first that matches shrinks its value."""

KEPT = re.compile(
    r"kernel|stride|padding|dilation|num_labels|num_channels|in_channels|in_chans|merge_size|temporal_patch|type_vocab_size|pooler_size"
    r"|_token|_index|proj_layers|_indexes|_id$|downsample_|num_feature_levels|mel|sampling_rate|out_indices|scale|factor|ratio|expan|hop|^dtype$|fft"
)
"""Fields that say what a model is rather than how large."""

TOKENS = re.compile(r"(_token_id|_token_index|_index|_id|_token|_tokens)$")


def tiny(model_type: str, class_name: str = "", wide: bool = False) -> PreTrainedConfig:
    """A tiny configuration.

    Args:
        class_name: of the model it is for, whose exceptions apply.
        wide: keep the default widths of this model type, and shrink only depth, vocabulary and images: for a model whose sizes depend on
            each other in a way that the rules do not know.

    Raises:
        Exception: whatever the configuration's class raises.
    """
    config_class = type(transformers.AutoConfig.for_model(model_type)) if model_type else PreTrainedConfig
    default = config_class()
    values = shrink(default, wide)
    config = config_class(**_merge(values, EXCEPTIONS.get(class_name, {})))
    if re.search(r"For(Sequence|Image|Audio|Video)Classification$", class_name):
        config.num_labels = LABELS  # the error of two numbers would be a matter of luck
    return config


def shrink(config: PreTrainedConfig, wide: bool = False) -> dict[str, Any]:
    """The arguments of a smaller configuration of the same class."""
    given = {field.name for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else set()
    of_base = {field.name for field in dataclasses.fields(PreTrainedConfig)} - {"num_labels"}
    subs = set(getattr(type(config), "sub_configs", {}) or {})
    values: dict[str, Any] = {}
    layers = _depth_of(config) if not hasattr(config, "depths") else (0, [])
    if "vocab_size" in given and getattr(config, "pad_token_id", 0) is None:
        values["pad_token_id"] = 1
    keep = KEEP.get(config.model_type, ())
    if hasattr(config, "depths") and getattr(config, "_out_features", None):
        values["out_features"] = list(config._out_features)
    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            values[key] = {**shrink(value, wide), "model_type": value.model_type}
        elif (
            key in keep
            or (key in of_base and not TOKENS.search(key))
            or key.startswith("_")
            or key in subs
            or given
            and key not in given
        ):
            continue
        else:
            smaller = _shrunk(key, value, layers, wide)
            if key in GROUPED and not wide and isinstance(value, int) and (_all_heads(config, value)):
                smaller = _heads(value)
            if key == "head_dim" and value is None and not wide:
                smaller = WIDTH // HEADS
            if smaller is not None:
                values[key] = smaller
    return _merge(values, EXCEPTIONS.get(config.model_type, {}))


GROUPED = ("num_key_value_heads", "num_kv_heads", "n_head_kv")


def _all_heads(config: PreTrainedConfig, value: int) -> bool:
    """Whether each head has keys and values of its own, as in multi-head latent attention."""
    heads = getattr(config, "num_attention_heads", 0)
    return value == heads or getattr(config, "kv_lora_rank", None) is not None


def _depth_of(config: PreTrainedConfig) -> tuple[int, list[int]]:
    """The number of layers, and the numbers of those to keep: two, or one of each kind."""
    depth = next(
        (
            v
            for k in ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
            if isinstance(v := getattr(config, k, None), int)
        ),
        0,
    )
    kinds: dict[Any, int] = {}
    lists = [v for v in vars(config).values() if isinstance(v, (list, tuple)) and depth > 2 and len(v) == depth]
    if lists:
        for i, kind in enumerate(zip(*map(_hashable, lists), strict=True)):
            kinds.setdefault(kind, i)
    chosen = sorted(kinds.values())[:4]
    for i in range(depth):
        if len(chosen) >= min(LAYERS, depth):
            break
        if i not in chosen:
            chosen.append(i)
    return depth, sorted(chosen)


def _hashable(values: Any) -> list[Any]:
    return [str(v) for v in values]


def _shrunk(key: str, value: Any, layers: tuple[int, list[int]], wide: bool) -> Any:
    """The smaller value of a field; None keeps the default."""
    depth, chosen = layers
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (list, tuple)) and depth > 2 and len(value) == depth:
        return [value[i] for i in chosen]
    if isinstance(value, int) and depth > 2 and value == depth and re.search(r"layers?$", key):
        return len(chosen)
    if TOKENS.search(key) and isinstance(value, (int, list)):
        return _token(key, value)
    if isinstance(value, dict):
        return _rope(value) if "rope" in key and not wide else None
    if KEPT.search(key):
        return None
    if isinstance(value, int):
        return _by_rule(key, value, wide)
    if isinstance(value, (list, tuple)) and value and all(type(v) is int for v in value):
        if re.search(r"depths?$|^num_blocks|^num_.*layers$", key):
            return [min(v, 1) for v in value]
        return [_by_rule(re.sub(r"s$", "", key), v, wide) for v in value]
    return None


NARROW = re.compile(r"vocab|layers?$|depth|image_size|experts|position|blocks")


def _by_rule(key: str, value: int, wide: bool) -> int:
    if wide and not NARROW.search(key):
        return value
    return next((rule(value) for pattern, rule in RULES if re.search(pattern, key)), value)


_SPECIAL = {"bos": 0, "pad": 1, "eos": 2, "decoder_start": 0, "sep": 2, "cls": 0, "unk": 3, "mask": 4}


def _token(key: str, value: Any) -> Any:
    """A token's number within the small vocabulary; special tokens of other kinds get one each, from the end of the vocabulary."""
    if isinstance(value, list):
        return [_token(f"{key}{i}", v) if isinstance(v, int) else v for i, v in enumerate(value)] if value else None
    if value < 0 or value < 100:
        return None
    stem = re.sub(r"_(token|id|index)\w*$", "", key)
    return _SPECIAL.get(stem.split("_token")[0], 100 + sum(map(ord, stem)) * 7 % 53)


def _rope(value: dict[str, Any]) -> dict[str, Any] | None:
    """Sections of a rotary embedding, for the small head."""
    changed = dict(value)
    for key, inner in value.items():
        if isinstance(inner, dict):
            changed[key] = _rope(inner) or inner
        if key == "mrope_section" and isinstance(inner, (list, tuple)):
            share = HEAD // 2 * value.get("partial_rotary_factor", 1.0) / sum(inner)
            cut = [max(int(v * share), 1) for v in inner]
            cut[0] += int(HEAD // 2 * value.get("partial_rotary_factor", 1.0)) - sum(cut)
            changed[key] = cut
    return changed if changed != value else None


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict) and not key.startswith("rope")
        merged[key] = _merge(merged[key], value) if nested else value
    return merged
