"""A model of Transformers as a GGUF file with Q8_0 weights (blocks of 32 with one scale), as the llama.cpp family reads it.

The vocabulary is made up: prompts are token ids. Names of tensors and keys come from the `gguf` package.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..turns import EngineFailed
from .models import Job

Tensors = Iterator[tuple[str, Tensor]]

_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_TOP = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
}
ARCHITECTURES = ("llama", "qwen3", "gpt2")
"""Model types of Transformers that can be written; GGUF has the same names for them."""


def prepare_gguf(job: Job) -> Path:
    """The file of a job, written where it is not there yet; a model is made only for that."""
    path = job.folder / "model-q8_0.gguf"
    return path if path.exists() else write_gguf(job.fp32(), path)


def write_gguf(model: Any, path: Path) -> Path:
    """Write a decoder with tied embeddings.

    Args:
        path: ends in `.gguf`; its folder is made.

    Raises:
        EngineFailed: another architecture, or a head of its own.
    """
    kind = model.config.model_type
    if kind not in ARCHITECTURES:
        raise EngineFailed(f"no GGUF writer for {kind}; expected one of {', '.join(ARCHITECTURES)}")
    if not model.config.tie_word_embeddings:
        raise EngineFailed(f"{kind} has a head of its own; expected tied embeddings")
    import gguf

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(str(partial), kind)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_sizes(writer, model.config)
    _write_vocabulary(writer, model.config.vocab_size)
    for name, tensor in rename_tensors(model):
        values = tensor.detach().float().contiguous().numpy()
        if values.ndim == 1 or name == "position_embd.weight":
            writer.add_tensor(name, values.astype(np.float32))
        else:
            quantization = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, quantization), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return partial.rename(path)


def rename_tensors(model: Any) -> Tensors:
    """Tensors under the names of GGUF, each `[out, in]`; the tied head only for GPT-2, where ik_llama.cpp wants it written."""
    config = model.config
    if config.model_type == "gpt2":
        yield "output.weight", model.get_input_embeddings().weight
    for name, tensor in model.named_parameters():  # tied ones once
        module, _, kind = name.rpartition(".")
        parts = module.split(".")
        if module in _TOP:
            yield f"{_TOP[module]}.{kind}", tensor
            continue
        index, rest = parts[2], ".".join(parts[3:])
        if config.model_type == "gpt2" and tensor.ndim == 2:
            tensor = tensor.T  # Conv1D keeps [in, out]
        if config.model_type == "llama" and rest in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = config.num_attention_heads if rest.endswith("q_proj") else config.num_key_value_heads
            tensor = interleave_halves(tensor, heads)
        yield f"blk.{index}.{_LAYER[rest]}.{kind}", tensor


def interleave_halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of each head from Transformers' order (first halves of the rotated pairs, then second ones) to pairs side by side.

    Args:
        weight: `[heads * size, in]`.
    """
    split = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return split.transpose(1, 2).reshape(weight.shape)


def _write_sizes(writer: Any, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_vocab_size(config.vocab_size)


def _write_vocabulary(writer: Any, size: int) -> None:
    letters = sorted(bytes_to_unicode().values())  # readers look up every byte
    words = [*letters, "ab", *(f"t{i}" for i in range(len(letters) + 1, size))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([word.encode() for word in words[:size]])
    writer.add_token_types([1] * (size - 2) + [3, 3])  # ordinary tokens; control tokens
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(size - 2)
    writer.add_eos_token_id(size - 1)
    writer.add_add_bos_token(True)
