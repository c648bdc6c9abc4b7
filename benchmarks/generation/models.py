"""Architectures with random weights of the real sizes, their prompts, and the bytes that a step of decoding has to read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .rows import Row

WHISPER_PROMPT = (50258, 50259, 50359, 50363)
"""Start, English, transcribe, no timestamps."""


def llama_135m() -> Any:
    """A Llama of 135 M parameters: 30 layers of 576, tied embeddings."""
    sizes = {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 2048,
    }  # fmt: skip
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, tie_word_embeddings=True))


def qwen3_600m() -> Any:
    """The shape of Qwen3 0.6 B, tied embeddings."""
    sizes = {
        "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 2048,
    }  # fmt: skip
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**sizes, tie_word_embeddings=True))


def gpt2() -> Any:
    """GPT-2 (124 M)."""
    return transformers.GPT2LMHeadModel(transformers.GPT2Config())


def t5_base() -> Any:
    """T5-base (223 M)."""
    sizes = {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "decoder_start_token_id": 0}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))


def whisper_tiny() -> Any:
    """Whisper-tiny (38 M)."""
    sizes = {
        "d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 6,
        "decoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536,
        "eos_token_id": 50257, "decoder_start_token_id": 50258, "bos_token_id": 50257, "pad_token_id": 50257,
        "begin_suppress_tokens": None,
    }  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**sizes))
    _, language, task, no_timestamps = WHISPER_PROMPT
    prompt = {
        "is_multilingual": True, "lang_to_id": {"<|en|>": language}, "task_to_id": {"transcribe": task},
        "no_timestamps_token_id": no_timestamps, "language": "en", "task": "transcribe",
    }  # fmt: skip
    for key, value in prompt.items():
        setattr(model.generation_config, key, value)
    return model


def marian() -> Any:
    """A Marian translator of the usual size (75 M): 6 and 6 layers of 512."""
    sizes = {
        "vocab_size": 58101, "d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
        "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "max_position_embeddings": 512,
        "activation_function": "swish", "scale_embedding": True, "pad_token_id": 58100, "decoder_start_token_id": 58100,
        "eos_token_id": 0, "forced_eos_token_id": None,
    }  # fmt: skip
    return transformers.MarianMTModel(transformers.MarianConfig(**sizes))


def tiny() -> Any:
    """For tests of the benchmark."""
    sizes = {"n_layer": 1, "n_embd": 64, "n_head": 2, "vocab_size": 500, "bos_token_id": 0, "eos_token_id": 1}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))


def tiny_llama() -> Any:
    """For tests of the benchmark."""
    sizes = {
        "vocab_size": 500, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    }  # fmt: skip
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, tie_word_embeddings=True))


BUILDERS = {
    "llama-135m": llama_135m,
    "qwen3-0.6b": qwen3_600m,
    "gpt2": gpt2,
    "t5-base": t5_base,
    "whisper-tiny": whisper_tiny,
    "marian": marian,
    "tiny": tiny,
    "tiny-llama": tiny_llama,
}


def make(name: str) -> Any:
    """The FP32 model; the same weights in every process."""
    torch.manual_seed(0)
    model = BUILDERS[name]().eval()
    model.generation_config.eos_token_id = None  # every engine makes the same number of tokens
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = 0
    return model


def make_inputs(config: Any, batch: int, length: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` `[batch, length]`, or Whisper's `input_features` `[batch, bins, frames]`."""
    draw = torch.Generator().manual_seed(1)
    if config.model_type == "whisper":
        frames = 2 * config.max_source_positions
        return {"input_features": torch.randn(batch, config.num_mel_bins, frames, generator=draw)}
    ids = torch.randint(5, config.vocab_size - 200, (batch, length), generator=draw)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def step_weights(model: Any) -> int:
    """Weights that one step of decoding multiplies with: those of the decoder's layers and of the head.

    The encoder, and keys and values of cross attention, are computed once for a prompt and are not counted.
    """
    once = ("EncDecAttention.k", "EncDecAttention.v", "encoder_attn.k_proj", "encoder_attn.v_proj")
    counted = 0
    for name, module in model.named_modules():
        in_encoder = name.startswith(("encoder.", "model.encoder."))
        if isinstance(module, (nn.Linear, Conv1D)) and not in_encoder and not name.endswith(once):
            counted += module.weight.numel()
    return counted


@dataclass(frozen=True)
class Job:
    """One engine's task in one process.

    Args:
        model: a key of `BUILDERS`.
        folder: for converted models; what is there is used again.
        threads: threads of one call.
    """

    model: str
    folder: Path
    threads: int

    def fp32(self) -> Any:
        """The FP32 model."""
        return make(self.model)

    def config(self) -> Any:
        """Its configuration, without computing weights."""
        with torch.device("meta"):
            return make(self.model).config


@dataclass(frozen=True)
class Generated:
    """What one call gave.

    Args:
        tokens: new tokens of each prompt.
        total_ms: milliseconds of the call.
        first_ms: milliseconds to the first token, or None where the engine does not tell.
        remarks: what stands beside the figure, as `without flash attention`.
    """

    tokens: list[list[int]]
    total_ms: float
    first_ms: float | None = None
    remarks: str = ""


class Loaded(Protocol):
    """An engine that is ready."""

    def run(self, row: Row) -> Generated:
        """One call; what a server does once per shape does not count. The prompts are those of `make_inputs`."""
