"""One measured process: `python -m benchmarks.encode_process FOLDER ENGINE COUNT THREADS` encodes texts of mixed lengths, cold.

The clock starts when torch and Transformers' model classes are imported, which sentence-transformers does for every engine. Batches are
those of `SentenceTransformer.encode`: texts sorted by length, the longest first, 32 at once. After each batch the processor time and the
texts finished are printed as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

BATCH, SHORTEST, LONGEST = 32, 8, 308

Inputs = dict[str, torch.Tensor]


def batches(count: int) -> Iterator[Inputs]:
    """`count` random texts with lengths spread evenly, the same in every process."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (count,), generator=generator).sort(descending=True).values.tolist()
    lengths[0] = LONGEST
    for start in range(0, count, BATCH):
        rows = torch.tensor(lengths[start : start + BATCH])
        mask = (torch.arange(int(rows.max())) < rows[:, None]).long()
        yield {
            "input_ids": torch.randint(10, 30000, mask.shape, generator=generator) * mask,
            "attention_mask": mask,
        }


def load(folder: str, engine: str, threads: int) -> Callable[[Inputs], Any]:
    """A call of the engine's model."""
    if engine == "openvino_int8":
        from .engines import openvino_int8
        from .models import Job

        bind = openvino_int8.load(Job("minilm", Path(folder), threads, fixed_shapes=False)).bind
        return lambda inputs: bind(inputs)()
    from optimum_int8 import OptimizedModel

    model = OptimizedModel.from_pretrained(folder).eval()
    return lambda inputs: model(**inputs)


def main() -> None:
    """See the module."""
    folder, engine, count, threads = sys.argv[1:]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(int(threads))
    if engine == "openvino_int8":
        from . import models  # noqa: F401  # our own helpers are no part of that engine's time
    texts = list(batches(int(count)))
    importlib.import_module("transformers.modeling_utils")
    began = time.process_time()
    call = load(folder, engine, int(threads))
    found, done = [], 0
    with torch.inference_mode():
        for batch in texts:
            call(batch)
            done += len(batch["input_ids"])
            found.append((time.process_time() - began, done))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
