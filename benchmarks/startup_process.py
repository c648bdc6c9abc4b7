"""One measured process: `python -m benchmarks.startup_process FOLDER CLASS ENGINE KIND THREADS` prints a line of JSON.

The clock starts when torch and Transformers are imported, as they are in a user's own program. `import transformers` imports no model
class; what all of them need is a stage of its own, `classes`, which FP32 pays too. What follows is the engine's own: its import, the
model, and the first result. Processor time stands beside the wall clock, since other processes touch it least.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from typing import Any

import torch
import transformers

TEXT_LENGTH, IMAGE_SIZE = 16, 224


def resident_mb() -> float:
    """Memory of this process that is in use and its own or a mapped file's, MB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Clock:
    """Seconds and memory of each stage."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self.last = self._now()

    def stop(self, stage: str) -> None:
        """The stage ends here, and the next one begins."""
        now = self._now()
        wall, processor, memory = (new - old for new, old in zip(now, self.last, strict=True))
        self.stages[stage] = {"wall_s": wall, "processor_s": processor, "memory_mb": memory}
        self.last = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), resident_mb()


def make_inputs(kind: str) -> dict[str, torch.Tensor]:
    """Of a text or an image, always the same."""
    generator = torch.Generator().manual_seed(1)
    if kind == "image":
        return {"pixel_values": torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)}
    tokens = torch.randint(10, 1000, (1, TEXT_LENGTH), generator=generator)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


@torch.inference_mode()
def first_result(model: Any, kind: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The first vector, class or token's logits."""
    if kind == "token":
        settings = {"max_new_tokens": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        return model.generate(**inputs, **settings).logits[0]
    return model(**inputs)[0]


def main() -> None:
    """See the module."""
    folder, class_name, engine, kind, threads = sys.argv[1:]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(int(threads))
    inputs = make_inputs(kind)
    clock = Clock()
    importlib.import_module("transformers.modeling_utils")
    clock.stop("classes")
    loader = getattr(transformers, class_name)
    if engine != "fp32":
        from optimum_int8 import OptimizedModel as loader  # type: ignore[no-redef]
    clock.stop("import")
    model = loader.from_pretrained(folder).eval()
    clock.stop("load")
    result = first_result(model, kind, inputs)
    clock.stop("first")
    first_result(model, kind, inputs)
    clock.stop("second")
    digest = hashlib.sha256(result.float().contiguous().numpy().tobytes()).hexdigest()
    print(json.dumps({"stages": clock.stages, "digest": digest}))


if __name__ == "__main__":
    main()
