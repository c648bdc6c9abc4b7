"""A small random model of every architecture that the package answers for, with inputs and calibration batches for it."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

VOCABULARY = 100
_ENCODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
_SPECIAL = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_FACTORISED = {**_ENCODER, "embedding_size": 32}
_SEQ2SEQ: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    "scale_embedding": True,
}
_DECODER = {
    **_ENCODER,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}

ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", _ENCODER),
    "minilm": ("BertForMaskedLM", {**_ENCODER, "hidden_size": 96, "num_attention_heads": 3}),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": VOCABULARY, "dim": 64, "hidden_dim": 128, "n_heads": 2, "n_layers": 2, "max_position_embeddings": 64},
    ),
    "roberta": ("RobertaForSequenceClassification", _ENCODER),
    "camembert": ("CamembertForSequenceClassification", _ENCODER),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", _ENCODER),
    "albert": ("AlbertForSequenceClassification", _FACTORISED),
    "electra": ("ElectraForTokenClassification", _FACTORISED),
    "xlnet": (
        "XLNetForSequenceClassification",
        {"vocab_size": VOCABULARY, "d_model": 64, "n_layer": 2, "n_head": 2, "d_inner": 128},
    ),
    "deberta-v2": (
        "DebertaV2ForSequenceClassification",
        {**_ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16, "share_att_key": True},
    ),
    "mpnet": ("MPNetForSequenceClassification", _ENCODER),
    "modernbert": (
        "ModernBertForSequenceClassification",
        {**_ENCODER, **_SPECIAL, "local_attention": 8, "cls_token_id": 0, "sep_token_id": 2},
    ),
    "bart": ("BartForConditionalGeneration", _SEQ2SEQ),
    "mbart": ("MBartForConditionalGeneration", _SEQ2SEQ),
    "t5": (
        "T5ForConditionalGeneration",
        {
            "vocab_size": VOCABULARY, "d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 2, "num_heads": 2,
            "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
        },
    ),
    "marian": ("MarianMTModel", {**_SEQ2SEQ, "decoder_start_token_id": 1}),
    "pegasus": ("PegasusForConditionalGeneration", {**_SEQ2SEQ, "decoder_start_token_id": 1}),
    "gpt2": (
        "GPT2LMHeadModel",
        {
            "vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64,
            "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
        },
    ),
    "llama": ("LlamaForCausalLM", _DECODER),
    "qwen2": ("Qwen2ForCausalLM", _DECODER),
    "qwen3": ("Qwen3ForCausalLM", _DECODER),
    "vit": (
        "ViTForImageClassification",
        {
            "hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2,
            "intermediate_size": 256, "image_size": 16, "patch_size": 4, "num_labels": 20,
        },
    ),
}  # fmt: skip
"""Name to model class and the sizes of a small configuration."""

GENERATIVE = ("bart", "mbart", "t5", "marian", "pegasus", "gpt2", "llama", "qwen2", "qwen3")


def make(name: str, seed: int = 0, **changes: Any) -> transformers.PreTrainedModel:
    """The FP32 model in evaluation mode. All weights are drawn, wide enough that attention and logits are not uniform."""
    class_name, values = ZOO[name]
    model_class = getattr(transformers, class_name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(model_class.config_class(**{**values, **changes})).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if parameter.requires_grad:
                    wide = 0.1 if parameter.dim() == 1 else (0.6 if "relative_attention_bias" in key else 0.06)
                    parameter.add_(torch.randn_like(parameter) * wide)
    return model


def inputs(model: transformers.PreTrainedModel, rows: int = 2, length: int = 9, seed: int = 1) -> dict[str, Tensor]:
    """Inputs of one call; the first row is padded, on the side its model pads on."""
    draw = torch.Generator().manual_seed(seed)
    if model.main_input_name == "pixel_values":
        side = model.config.image_size
        return {"pixel_values": torch.randn(rows, 3, side, side, generator=draw)}
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=draw)
    mask = torch.ones(rows, length, dtype=torch.long)
    padded = slice(0, 3) if is_decoder(model) else slice(length - 3, length)
    mask[0, padded], ids[0, padded] = 0, 1
    values = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        values["decoder_input_ids"] = torch.randint(3, VOCABULARY, (rows, length - 2), generator=draw)
    return values


def is_decoder(model: transformers.PreTrainedModel) -> bool:
    """Whether the model continues its input, so that padding stands on the left."""
    return model.can_generate() and not model.config.is_encoder_decoder


def logits(model: transformers.PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Logits of one call, without gradients; of tokens only those that count, as fused blocks skip padding."""
    with torch.no_grad():
        found = model(**batch).logits
    mask = batch.get("attention_mask")
    return found[mask.bool()] if mask is not None and found.dim() == 3 and found.shape[:2] == mask.shape else found
