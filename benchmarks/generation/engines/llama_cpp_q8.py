"""llama.cpp on Q8_0 weights, with flash attention: `llama-cpp-python`, compiled for this processor where pip had a compiler."""

from __future__ import annotations

from typing import Any

from ..gguf_file import prepare_gguf
from ..models import Job, Loaded
from ..rows import Row

NAME = "llama_cpp_q8"
TITLE = "llama.cpp Q8_0"
REQUIRES = ("llama-cpp-python", "gguf")
BYTES_PER_WEIGHT = 34 / 32  # 32 weights and a scale in half precision

FLASH_ATTENTION = 1
"""LLAMA_FLASH_ATTN_TYPE_ENABLED"""


def load(job: Job) -> Loaded:
    """Write the file and open it."""
    path = prepare_gguf(job)
    import llama_cpp.llama_cpp as api

    from .ggml_decoder import GgmlDecoder, Library

    api.llama_backend_init()
    opened = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
    remarks = "" if has_vnni(api) else "compiled without VNNI"

    def open_context(row: Row) -> tuple[Any, str]:
        options = api.llama_context_default_params()
        options.n_ctx = row.batch * (
            -(-(row.context + row.new) // 256) * 256
        )  # each sequence has its share, in steps of 256
        options.n_batch = row.batch * (row.context + row.new)
        options.n_seq_max = row.batch
        options.n_threads = options.n_threads_batch = job.threads
        options.flash_attn_type = FLASH_ATTENTION
        return api.llama_init_from_model(opened, options), remarks

    def clear(context: Any) -> None:
        api.llama_memory_clear(api.llama_get_memory(context), True)

    return GgmlDecoder(Library(api, open_context, clear), job.config())


def has_vnni(api: Any) -> bool:
    """Whether it was compiled with instructions for products of INT8; without them it says nothing of this processor."""
    found = api.llama_print_system_info().decode()
    return any(f"{name} = 1" in found for name in ("AVX512_VNNI", "AVX_VNNI", "AMX_INT8"))
