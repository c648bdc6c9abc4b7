"""ik_llama.cpp on Q8_0 weights: the wheel `ik-llama-cpp-python`, as it is built."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..gguf_file import prepare_gguf
from ..models import Job, Loaded
from ..rows import Row

NAME = "ik_llama_q8"
TITLE = "ik_llama.cpp Q8_0"
REQUIRES = ("ik-llama-cpp-python", "gguf")
BYTES_PER_WEIGHT = 34 / 32  # 32 weights and a scale in half precision

WITHOUT_FLASH = "without flash attention, which fails here"


def load(job: Job) -> Loaded:
    """Write the file and open it.

    Without AVX-VNNI its flash attention fails an assertion on some shapes, which ends the process; so each row is tried in
    another process, and where that ends it runs without.
    """

    def choose_flash(row: Row) -> bool:
        code = f"from {__name__} import probe; probe({job.model!r}, {str(job.folder)!r}, {job.threads}, {str(row)!r})"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run([sys.executable, "-c", code], env=environment, timeout=300, check=False).returncode == 0

    return open_file(job, choose_flash)


def open_file(job: Job, choose_flash: Any) -> Loaded:
    """The decoder of a job.

    Args:
        choose_flash: from a row to whether its attention is the flash kind.
    """
    path = prepare_gguf(job)
    from ik_llama_cpp import _ctypes_api as api
    from ik_llama_cpp._internals import IkModel

    from .ggml_decoder import GgmlDecoder, Library

    model = IkModel(str(path))

    def open_context(row: Row) -> tuple[Any, str]:
        options = api.llama_context_default_params()
        options.n_ctx = options.n_batch = row.batch * (row.context + row.new)
        options.n_seq_max = row.batch
        options.n_threads = options.n_threads_batch = job.threads
        options.flash_attn = choose_flash(row)
        return api.llama_init_from_model(model.model, options), "" if options.flash_attn else WITHOUT_FLASH

    return GgmlDecoder(Library(api, open_context, api.llama_kv_cache_clear), job.config())


def probe(model: str, folder: str, threads: int, row: str) -> None:
    """Run a row with flash attention and end the process, which an assertion that fails ends too."""
    open_file(Job(model, Path(folder), threads), lambda _: True).run(Row.parse(row))
    os._exit(0)  # its own clean-up may fail at the end of a process
