"""Recurrent layers on INT8 next to torch.ao's `quantize_dynamic` and FP32: what `python -m benchmarks recurrent` measures.

All take turns, so that other load meets all of them; of each the least and the median time of a call are kept.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from optimum_int8 import Int8Config, quantize

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU}
CALLS = 3
"""Calls of one engine in a turn."""


def engines(kind: str, units: int, x: Tensor) -> dict[str, nn.Module]:
    """One layer in FP32, by torch.ao where this torch has it, and on INT8."""
    torch.manual_seed(0)
    model = nn.Sequential(KINDS[kind](units, units, batch_first=True)).eval()
    found: dict[str, nn.Module] = {"fp32": model}
    try:
        from torch.ao.quantization import quantize_dynamic
    except ImportError:
        pass
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated
            found["torch_ao"] = quantize_dynamic(model, {nn.LSTM, nn.GRU}, dtype=torch.qint8)
    found["dynamic"] = quantize(model, Int8Config(approach="dynamic"))
    found["static"] = quantize(model, Int8Config(approach="static"), [x], progress=False)
    return found


@torch.inference_mode()
def measure(units: int, length: int, batches: list[int], rounds: int, threads: int) -> Iterator[dict[str, Any]]:
    """A row of each kind and batch: `kind`, `batch`, and by engine `least_ms`, `median_ms` and `error`, relative to FP32."""
    torch.set_num_threads(threads)
    for kind in KINDS:
        for batch in batches:
            x = torch.randn(batch, length, units, generator=torch.Generator().manual_seed(0))
            models = engines(kind, units, x)
            exact = models["fp32"](x)[0]
            times: dict[str, list[float]] = {name: [] for name in models}
            for _ in range(rounds + 1):
                for name, model in models.items():
                    for _ in range(CALLS):
                        begin = time.perf_counter()
                        model(x)
                        times[name].append((time.perf_counter() - begin) * 1e3)
            row: dict[str, Any] = {"kind": kind, "batch": batch}
            for name, model in models.items():
                kept = times[name][CALLS:]  # the first round warms up
                error = float((model(x)[0] - exact).norm() / exact.norm())
                row[name] = {"least_ms": min(kept), "median_ms": statistics.median(kept), "error": error}
            yield row
