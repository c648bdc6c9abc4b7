"""Where the rules of configurations.py do not fit."""

from __future__ import annotations

from typing import Any


def _sections(*sizes: int, **more: Any) -> dict[str, Any]:
    """Of a rotary embedding for time, height and width."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(sizes), **more}}


RESNET = {
    "model_type": "resnet", "embedding_size": 32, "hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 1, 1], "layer_type": "basic",
}  # fmt: skip
DETR: dict[str, Any] = {
    "use_timm_backbone": False,
    "backbone": None,
    "use_pretrained_backbone": False,
    "backbone_config": {**RESNET, "out_features": ["stage4"]},
}
THREE = {**DETR, "backbone_config": {**RESNET, "out_features": ["stage2", "stage3", "stage4"]}}
REAL_TIME = {
    "encoder_hidden_dim": 64, "d_model": 64, "encoder_in_channels": [64, 64, 64], "decoder_in_channels": [64, 64, 64],
}  # fmt: skip
FOUR_LAYERS = {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]}
WINDOWS = {"window_size": 4, "image_size": 128}
FORECAST = {"prediction_length": 8, "context_length": 16}
EVERY_OTHER = {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1, "expert_layer_period": 2}

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "autoformer": FORECAST,
    "blip-2": {"image_token_index": 101},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_routed_experts": 4},
    "esm": {"vocab_size": 40, "pad_token_id": 1, "mask_token_id": 4},
    "esmc": {"head_dim": 16, "num_key_value_heads": 4},
    "exaone4_5_vision": {"window_size": 32},
    "helium": {"head_dim": 16, "num_key_value_heads": 4},
    "informer": FORECAST,
    "jamba": EVERY_OTHER,
    "mt5": {"decoder_start_token_id": 0},
    "qwen2_5_vl_vision": {"window_size": 32},
    "qwen2_5_omni_vision_encoder": {"window_size": 32},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "t5": {"decoder_start_token_id": 0},
    "time_series_transformer": FORECAST,
    "umt5": {"decoder_start_token_id": 0},
    "xmod": {"default_language": "en_XX"},
    "conditional_detr": DETR,
    "dab-detr": DETR,
    "deformable_detr": THREE,
    "depth_anything": {"backbone_config": {"model_type": "dinov2", "reshape_hidden_states": False, **FOUR_LAYERS}},
    "detr": DETR,
    "donut-swin": WINDOWS,
    "dpt": {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]},
    "ernie4_5_vl_moe_text": _sections(2, 3, 3),
    "glm4v_moe_text": _sections(1, 1, 2, partial_rotary_factor=0.5),
    "glm4v_text": _sections(2, 3, 3),
    "glm_image_text": _sections(2, 3, 3),
    "glm_ocr_text": _sections(2, 3, 3),
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "paddleocr_vl_text": _sections(4, 6, 6),
    "prompt_depth_anything": {
        "backbone_config": {"model_type": "dinov2", "reshape_hidden_states": False, **FOUR_LAYERS}
    },
    "qwen2_5_vl_text": _sections(2, 3, 3),
    "qwen2_5_omni_text": _sections(2, 3, 3),
    "qwen2_vl_text": _sections(2, 3, 3),
    "reformer": {"is_decoder": True},
    "rt_detr": REAL_TIME,
    "rt_detr_v2": REAL_TIME,
    "swin": WINDOWS,
    "table-transformer": DETR,
    "wav2vec2-bert": {"vocab_size": 40},
    "wav2vec2-conformer": {"vocab_size": 40},
}
"""Model type, or class, to values of its configuration (nested as its sub-configurations are)."""

KEEP: dict[str, tuple[str, ...]] = {"canine": ("num_hash_buckets",), "xlstm": ("chunk_size",)}
"""Model type to fields that keep their default."""
