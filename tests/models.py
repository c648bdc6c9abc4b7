"""Small random models that several folders of tests share. Weights are drawn, biases and norms too, so that no term is idle."""

from __future__ import annotations

import json
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from optimum_int8 import Int8Config, quantize
from optimum_int8.restore import build_skeleton, finish_loading

_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Bert": ("bert.encoder.layer.{}", _SIZES),
    "DistilBert": (
        "distilbert.transformer.layer.{}",
        {"dim": 64, "hidden_dim": 128, "n_heads": 2, "n_layers": 2, "vocab_size": 100, "max_position_embeddings": 64},
    ),
    "Roberta": ("roberta.encoder.layer.{}", _SIZES),
    "Electra": ("electra.encoder.layer.{}", {**_SIZES, "embedding_size": 32}),
    "Albert": ("albert.encoder.albert_layer_groups.0", {**_SIZES, "embedding_size": 32}),
}
"""Name to the path of an encoder layer (ALBERT's layers share one) and the sizes of a small configuration."""


def classifier(architecture: str = "Bert", seed: int = 0, **changes: Any) -> transformers.PreTrainedModel:
    """A small FP32 sequence classifier in evaluation mode."""
    torch.manual_seed(seed)
    values = {**ARCHITECTURES[architecture][1], **changes}
    config = getattr(transformers, f"{architecture}Config")(**values)
    model = getattr(transformers, f"{architecture}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # standard deviations of trained models rather than of an initialisation: attention is then not uniform
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() == 1 else 0.06))
    return model


def reloaded(empty: nn.Module, int8: nn.Module, metadata: dict[str, Any] | None = None) -> nn.Module:
    """What a checkpoint of `int8` gives: `empty`, a float model of its class, made INT8 as the metadata says, on its tensors.

    Args:
        metadata: instead of the model's own.
    """
    metadata = json.loads(json.dumps(metadata or int8.int8_metadata))  # as a file holds it
    empty = empty.to("meta").eval()
    build_skeleton(empty, metadata)
    empty.load_state_dict(int8.state_dict(), assign=True)
    return finish_loading(empty, metadata)


def batch(rows: int = 2, length: int = 9, padding: int = 4, seed: int = 1) -> dict[str, Tensor]:
    """Token ids and a mask; the first row ends in `padding` masked tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 100, (rows, length), generator=generator)
    mask = torch.ones(rows, length, dtype=torch.long)
    if padding:
        mask[0, length - padding :] = 0
        ids[0, length - padding :] = 1  # RoBERTa's padding token: its positions depend on it
    return {"input_ids": ids, "attention_mask": mask}


def int8_classifier(
    architecture: str = "Bert", approach: str = "static", model: nn.Module | None = None, **settings: Any
) -> Any:
    """A quantized small classifier; static ones are calibrated on two batches."""
    model = classifier(architecture) if model is None else model
    data = [batch(), batch(4, 17, 0, 2)] if approach == "static" else None
    return quantize(model, Int8Config(approach=approach, **settings), data, progress=False)


@torch.no_grad()
def logits(model: nn.Module, **inputs: Tensor) -> Tensor:
    return model(**inputs).logits
