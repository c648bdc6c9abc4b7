"""Small models whose attention is more than SDPA can express, or is not known to be SDPA's; sinks and caps that matter, as trained."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

VOCABULARY = 100
_DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
_SEQ2SEQ: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
_T5 = {
    "vocab_size": VOCABULARY, "d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 4,
    "pad_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
_CAPPED = {**_DECODER, "sliding_window": 4, "attn_logit_softcapping": 3.0, "query_pre_attn_scalar": 16}
_WINDOWS = {**_DECODER, "sliding_window": 4}
_CHOSEN = {
    **_DECODER, "num_key_value_heads": 4, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16,
    "v_head_dim": 16, "index_topk": 4, "index_n_heads": 2, "index_head_dim": 32, "n_routed_experts": 4, "n_group": 1,
    "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 2,
}  # fmt: skip
_VISION = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 16,
}  # fmt: skip

KEPT: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_oss": ("GptOssForCausalLM", {**_WINDOWS, **_EXPERTS}),
    "granite_swa": ("GraniteSWAForCausalLM", _WINDOWS),
    "granitemoe_swa": ("GraniteMoeSWAForCausalLM", {**_WINDOWS, **_EXPERTS}),
    "flint": ("FlintForCausalLM", _WINDOWS),
    "deepseek_v4": ("DeepseekV4ForCausalLM", {**_DECODER, **_EXPERTS}),
    "mimo_v2_flash": ("MiMoV2FlashForCausalLM", {**_DECODER, **_EXPERTS}),
    "openai_privacy_filter": ("OpenAIPrivacyFilterForTokenClassification", {**_DECODER, **_EXPERTS}),
    "inkling2": ("Inkling2ForCausalLM", {**_DECODER, **_EXPERTS}),
    "inkling2_loop": ("Inkling2LoopForCausalLM", {**_DECODER, **_EXPERTS}),
    "gemma2": ("Gemma2ForCausalLM", _CAPPED),
    "vaultgemma": ("VaultGemmaForCausalLM", _CAPPED),
    "t5gemma": ("T5GemmaForConditionalGeneration", {"encoder": _CAPPED, "decoder": _CAPPED, "vocab_size": VOCABULARY}),
    "nllb_moe": ("NllbMoeForConditionalGeneration", {**_SEQ2SEQ, "num_experts": 2, "expert_capacity": 16}),
    "pegasus_x": ("PegasusXForConditionalGeneration", {**_SEQ2SEQ, "block_size": 4, "num_global_tokens": 2}),
}
"""Name to class and sizes of models whose attention modules must stay their own."""

EAGER: dict[str, tuple[str, dict[str, Any]]] = {
    "splinter": ("SplinterModel", _DECODER),
    "bigbird_pegasus": ("BigBirdPegasusForConditionalGeneration", {**_SEQ2SEQ, "attention_type": "original_full"}),
    "switch_transformers": ("SwitchTransformersForConditionalGeneration", {**_T5, "num_experts": 2}),
    "longt5": ("LongT5ForConditionalGeneration", _T5),
    "git": ("GitForCausalLM", {**_DECODER, "vision_config": _VISION}),
}
"""Models whose class says nothing about SDPA: eager in FP32, with INT8 cores on eager's masks."""

OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5gemma2": (
        "T5Gemma2ForConditionalGeneration",
        {
            "encoder": {"text_config": _WINDOWS, "vision_config": _VISION, "mm_tokens_per_image": 4},
            "decoder": _WINDOWS,
            "image_token_index": 99,
        },
    ),
    "gemma3": ("Gemma3ForCausalLM", _WINDOWS),
    "gemma4": (
        "Gemma4ForCausalLM",
        {
            **_WINDOWS,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": VOCABULARY,
            "global_head_dim": 16,
        },
    ),
    "deepseek_v32": ("DeepseekV32ForCausalLM", _CHOSEN),
    "glm_moe_dsa": ("GlmMoeDsaForCausalLM", _CHOSEN),
}
_ALL = {**KEPT, **EAGER, **OTHERS}


def make(name: str, **changes: Any) -> transformers.PreTrainedModel:
    """The FP32 model in evaluation mode; scores are large, and sinks take a share of each row."""
    class_name, values = _ALL[name]
    model_class = getattr(transformers, class_name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(model_class.config_class(**{**values, **changes})).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() == 1 else 0.06))
                if "sink" in key:
                    parameter.uniform_(1.0, 4.0)
                if any(part in key for part in ("q_proj", "k_proj", ".query", ".key")) and parameter.dim() == 2:
                    parameter.mul_(2.0)
    return model


def inputs(
    model: transformers.PreTrainedModel, rows: int = 2, length: int = 10, padded: bool = True
) -> dict[str, Tensor]:
    """Token ids and a mask, the first row padded; of an encoder-decoder the decoder's ids too."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 90, (rows, length), generator=draw)
    mask = torch.ones_like(ids)
    if padded:
        mask[0, -3:] = 0
    values = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        values["decoder_input_ids"] = torch.randint(5, 90, (rows, length - 2), generator=draw)
    if isinstance(model, transformers.GitForCausalLM):
        values["pixel_values"] = torch.randn(rows, 3, 32, 32, generator=draw)
    return values


def outputs(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Logits (or states) of one call, of tokens only those that count."""
    with torch.no_grad():
        found = model(**batch)
    result = found.logits if "logits" in found else found.last_hidden_state
    mask = batch["attention_mask"].bool()
    return result[mask] if result.shape[:2] == mask.shape else result


def error(found: Tensor, exact: Tensor) -> float:
    """Relative."""
    return float((found - exact).norm() / exact.norm())
