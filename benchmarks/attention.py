"""Attention in INT8, bfloat16 and float32 against torch's: what `python -m benchmarks kernels --attention` measures.

Two tables: the core alone, as one program on float rows of BERT-base's 12 heads of 64, beside torch's SDPA in both dtypes; and an
encoder of two BERT-base layers, its linears static INT8, by the `attention` it was quantized with, beside the same with torch's float32
core and the FP32 encoder, on full batches and on one of mixed lengths. All take turns; where one thread works, medians of processor time
are kept, so that other load weighs less.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn import functional

from optimum_int8 import Int8Config, quantize
from optimum_int8.config import ATTENTIONS
from optimum_int8.evaluation.machine import describe_machine
from optimum_int8.kernels import Program

from .shapes import Shape

HEADS, HEAD = 12, 64
CORES = ((1, 16, 16), (1, 128, 128), (1, 384, 384), (8, 128, 128), (1, 1, 512))
ENCODERS = ("1x16", "1x128", "1x384", "8x128", "8x8-128")
ROUNDS = 7
TURN_SECONDS = 0.04


def core_program(attention: str, batch: int, rows: list[Tensor], out: Tensor) -> Callable[[], Any]:
    """One call of a native core on queries, keys and values as rows."""
    program, width = Program(), HEADS * HEAD
    inputs, result = [program.external(4 * width) for _ in rows], program.external(4 * width)
    fields: dict[str, Any] = {"columns": width, "heads": HEADS, "key_heads": HEADS, "scaling": HEAD**-0.5}
    if attention == "int8":
        grid = {"columns": width, "output_scale": 0.03, "output_zero_point": 128}
        quantized = [program.local(width) for _ in rows]
        for i, (x, q) in enumerate(zip(inputs, quantized, strict=True)):
            program.add("quantize", [x], [q], key_side=int(i > 0), **grid)
        program.add("attention", quantized, [result], input_scale=[0.03] * 3, **fields)
    else:
        program.add("float_attention", inputs, [result], bfloat16=int(attention == "bfloat16"), **fields)
    return lambda: program.run(batch, rows[0].shape[1], [*rows, out], None, rows[1].shape[1])


def torch_core(dtype: torch.dtype, rows: list[Tensor]) -> Callable[[], Any]:
    """The same in torch, from float rows to float rows."""

    def call() -> Tensor:
        q, k, v = (x.unflatten(-1, (HEADS, HEAD)).transpose(1, 2).to(dtype) for x in rows)
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).float().flatten(2)

    return call


def core_calls(batch: int, queries: int, keys: int) -> dict[str, Callable[[], Any]]:
    """Everything that computes one core."""
    rows = [torch.randn(batch, n, HEADS * HEAD) for n in (queries, keys, keys)]
    ours = {name: core_program(name, batch, rows, torch.empty_like(rows[0])) for name in ATTENTIONS}
    return ours | {f"torch_{str(d)[6:]}": torch_core(d, rows) for d in (torch.float32, torch.bfloat16)}


def encoders() -> dict[str, Any]:
    """Two encoder layers of BERT-base's sizes by what computes their cores."""
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(num_hidden_layers=2)).eval()
    ids = torch.randint(0, model.config.vocab_size, (4, 64))
    data = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]
    made = {a: quantize(model, Int8Config(attention=a, approach="static"), data, progress=False) for a in ATTENTIONS}
    cut = quantize(model, Int8Config(attention="float32", approach="static"), data, progress=False)
    cut.set_attn_implementation("sdpa")
    return made | {"torch_float32": cut, "fp32": model}


def encoder_call(model: Any, shape: Shape) -> Callable[[], Any]:
    """One call, with a mask where lengths differ."""
    ids = torch.randint(0, 1000, (shape.batch, shape.length))
    given = {"input_ids": ids}
    if shape.shortest is not None:
        given["attention_mask"] = (torch.arange(shape.length) < torch.tensor(shape.lengths()).unsqueeze(1)).long()
    return lambda: model(**given)


def take_turns(calls: dict[str, Callable[[], Any]], clock: Callable[[], float]) -> dict[str, float]:
    """Median microseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, call in calls.items():
        call()
        begin = clock()
        call()
        repeats[name] = max(1, min(200, int(TURN_SECONDS / max(clock() - begin, 1e-6))))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begin = clock()
            for _ in range(repeats[name]):
                call()
            times[name].append((clock() - begin) / repeats[name] * 1e6)
    return {name: round(statistics.median(values), 1) for name, values in times.items()}


def measure(threads: int) -> dict[str, Any]:
    """Measure and print; returns the result: `threads`, `rounds`, `machine`, and microseconds by shape in `core` and `encoder`."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    result: dict[str, Any] = {
        "threads": threads,
        "rounds": ROUNDS,
        "machine": describe_machine(),
        "core": {},
        "encoder": {},
    }
    with torch.no_grad():
        for shape in CORES:
            result["core"]["{}x{}x{}".format(*shape)] = found = take_turns(core_calls(*shape), clock)
            print(*shape, found, flush=True)
        by_core = encoders()
        for shape in map(Shape.parse, ENCODERS):
            calls = {name: encoder_call(model, shape) for name, model in by_core.items()}
            result["encoder"][str(shape)] = found = take_turns(calls, clock)
            print(shape, found, flush=True)
    return result
