"""What `python -m benchmarks kernels` times: every operator of the library on the shapes of BERT-base, ResNet-50, YOLO v2 and ConvNeXt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from optimum_int8 import kernels, numerics, operators
from optimum_int8.numerics import ACTIVATIONS, Window

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Kernel:
    """One line of the benchmark: an operator on arguments of one shape."""

    op: str
    shape: str
    make: Callable[[], Arguments]
    operations: int  # two per multiply-add
    moved: int  # bytes read and written, once each
    torch: Callable[[], Callable[[], Any]] | None = None  # makes a call of the same in torch's float32, channels-last


def grid(low: float = -4.0, high: float = 4.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point of a static input."""
    scale, zero_point = numerics.choose_affine_qparams(low, high)
    return torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32)


def linear_kernel(
    rows: int, k: int, n: int, activation: str = "none", dynamic: bool = False, to_bytes: bool = False
) -> Kernel:
    """A linear of `rows` x `k` by `k` x `n`, with bias."""

    def make() -> Arguments:
        x, (weight, scale) = torch.randn(rows, k), numerics.quantize_weight(torch.randn(n, k))
        q = operators.quantize_rows(x) if dynamic else (operators.quantize(x, *grid()), *grid())
        args = (*q, kernels.pack(weight), kernels.row_sums(weight), scale, torch.randn(n), activation)
        return (*args, *grid(-8.0, 8.0)) if to_bytes else args

    words = [f"{rows}x{k}x{n}"] + ([activation] if activation != "none" else []) + (["dynamic"] if dynamic else [])
    op, out = ("linear_quantized", 1) if to_bytes else ("linear", 4)
    return Kernel(op, " ".join(words), make, 2 * rows * k * n, rows * k + k * n + out * rows * n)


def attention_kernel(batch: int, heads: int, length: int, head: int, dynamic: bool) -> Kernel:
    """The attention core on quantized rows, without a mask."""

    def make() -> Arguments:
        x = torch.randn(3, batch, length, heads * head)
        pairs = [torch.ops.optimum_int8.quantize_groups(part, heads) for part in x]
        scales = [s if dynamic else torch.tensor(0.03) for _, s in pairs]
        return *[q for q, _ in pairs], *scales, heads, heads, None, head**-0.5, False, *grid()

    words = f"{batch}x{heads}x{length}x{head}" + " dynamic" * dynamic
    numbers = batch * heads * length * head
    return Kernel("attention_rows_quantized", words, make, 4 * numbers * length, 4 * numbers)


def float_attention_kernel(op: str, batch: int, heads: int, length: int, head: int) -> Kernel:
    """The attention core from float32 (`attention`), or from quantized rows (`attention_rows`), to float32."""

    def make() -> Arguments:
        tail = None, head**-0.5, False
        scales = [torch.tensor(0.03)] * 3
        if op == "attention":
            return *torch.randn(3, batch, heads, length, head), *scales, *tail
        rows = [operators.quantize(torch.randn(batch, length, heads * head), scales[0], grid()[1]) for _ in range(3)]
        return *rows, *scales, heads, heads, *tail

    numbers = batch * heads * length * head
    moved = (16 if op == "attention" else 7) * numbers
    return Kernel(op, f"{batch}x{heads}x{length}x{head}", make, 4 * numbers * length, moved)


def attention_floats_kernel(op: str, batch: int, heads: int, length: int, head: int, bfloat16: bool = False) -> Kernel:
    """The attention core from float32 rows: quantized on the way (`attention_floats`), or in float32 or bfloat16 (`float_attention...`)."""

    def make() -> Arguments:
        tail = None, head**-0.5, False
        if op == "float_attention":
            return *torch.randn(3, batch, heads, length, head), bfloat16, *tail
        rows = torch.randn(3, batch, length, heads * head)
        if op.endswith("appended"):
            one = torch.randn(3, batch, 1, heads * head)
            kind = (heads, heads, bfloat16) if op.startswith("float") else (*[torch.tensor(0.03)] * 3, heads, heads)
            return *one, *rows[:2], *kind, *tail
        if op == "attention_floats":
            return *rows, *[torch.tensor(0.03)] * 3, heads, heads, *tail
        return *rows, heads, heads, bfloat16, *tail, *((0.0, *grid()) if op.endswith("quantized") else ())

    numbers = batch * heads * length * head
    words = f"{batch}x{heads}x{length}x{head}" + " bfloat16" * bfloat16
    queries = 1 if op.endswith("appended") else length
    return Kernel(op, words, make, 4 * numbers * queries, (13 if op.endswith("quantized") else 16) * numbers)


def row_kernel(op: str, rows: int, width: int, *more: Any, words: str = "", item_bytes: int = 5) -> Kernel:
    """An operator that goes once over a matrix; `item_bytes` counts what is read and written for each number."""
    return Kernel(op, f"{rows}x{width}{words}", lambda: (torch.randn(rows, width), *more), 0, rows * width * item_bytes)


def norm_kernel(op: str, rows: int, width: int, *more: Any) -> Kernel:
    """Residual, layer norm with weight and bias."""

    def make() -> Arguments:
        x, residual = torch.randn(2, rows, width).unbind()
        return x, residual, torch.randn(width), torch.randn(width), "layer_norm", 1e-5, *more

    return Kernel(op, f"{rows}x{width} residual", make, 0, rows * width * (12 if op == "norm" else 13))


def gated_kernel(op: str, rows: int, width: int, activation: str, *more: Any) -> Kernel:
    """Both halves as columns of one linear's result."""

    def make() -> Arguments:
        return *torch.randn(rows, 2 * width).split(width, -1), activation, *more

    item_bytes = 12 if op == "gated" else 9
    return Kernel(op, f"{rows}x{width} {activation}", make, 0, rows * width * item_bytes)


def head_norm_kernel(rows: int, heads: int, head: int) -> Kernel:
    """RMS norm of queries."""

    def make() -> Arguments:
        return torch.randn(rows, heads * head), torch.randn(head), None, heads, "rms_norm", 1e-6

    return Kernel("head_norm", f"{rows}x{heads}x{head}", make, 0, rows * heads * head * 8)


def rotary_kernel(rows: int, heads: int, head: int, interleaved: bool) -> Kernel:
    """All of each head is turned."""

    def make() -> Arguments:
        return torch.randn(1, rows, heads * head), *torch.randn(2, 1, rows, head).unbind(), heads, interleaved

    words = " interleaved" if interleaved else ""
    return Kernel("rotary", f"{rows}x{heads}x{head}{words}", make, 0, rows * heads * head * 8)


def embedding_kernel(op: str, rows: int, width: int, vocabulary: int) -> Kernel:
    """Random rows of a table, perhaps added to others."""

    def make() -> Arguments:
        table = torch.randint(-127, 128, (vocabulary, width), dtype=torch.int8), torch.rand(vocabulary)
        other = (torch.randn(1, rows, width),) if op == "embedding_add" else ()
        return torch.randint(0, vocabulary, (1, rows)), *table, *other

    return Kernel(op, f"{rows} of {vocabulary}x{width}", make, 0, rows * width * (9 if op == "embedding_add" else 5))


def conv_kernel(
    name: str, size: int, inner: int, outer: int, window: Window, groups: int = 1, op: str = "conv_quantized"
) -> Kernel:
    """A convolution of one image of `size` x `size`, with bias and ReLU, to uint8, float32 or both."""
    height, width = window.output_size(size, size)

    def make() -> Arguments:
        image = torch.randn(1, size, size, inner)
        weight = torch.randn(outer, inner // groups, window.height, window.width)
        int8, scale = numerics.quantize_weight(weight.flatten(1))
        packed = kernels.pack_conv(int8.view(weight.shape), groups)
        args = (
            operators.quantize(image, *grid()),
            *grid(),
            *packed,
            scale,
            torch.randn(outer),
            list(window),
            groups,
            "relu",
            0.0,
            None,
            "none",
        )
        return args if op == "conv" else (*args, *grid(-8.0, 8.0))

    def in_torch() -> Callable[[], Any]:
        last = torch.channels_last
        image = torch.randn(1, inner, size, size).to(memory_format=last)
        weight = torch.randn(outer, inner // groups, window.height, window.width).to(memory_format=last)
        bias, strides = torch.randn(outer), (window.stride_y, window.stride_x)
        return lambda: F.conv2d(image, weight, bias, strides, (window.top, window.left), 1, groups).relu_()

    products = height * width * outer * inner // groups * window.taps
    written = {"conv": 4, "conv_quantized": 1, "conv_both": 5}[op] * height * width * outer
    moved = size * size * inner + outer * inner // groups * window.taps + written
    return Kernel(op, f"{name} {size}x{size} {inner}->{outer}", make, 2 * products, moved, in_torch)


def pool_kernel(op: str, size: int, channels: int, window: Window) -> Kernel:
    """A pooling of one image."""
    height, width = window.output_size(size, size)

    def make() -> Arguments:
        image = torch.randint(0, 256, (1, size, size, channels), dtype=torch.uint8)
        if op == "max_pool":
            return image, list(window)
        return image, *grid(), list(window), False, *(grid(-2.0, 2.0) if op == "avg_pool_quantized" else ())

    item = 4 if op == "avg_pool" else 1
    return Kernel(
        op,
        f"{window.height}x{window.width} {size}x{size}x{channels}",
        make,
        0,
        channels * (size * size + item * height * width),
    )


def samples_kernel(size: int, channels: int) -> Kernel:
    """An image to uint8 on a grid for all of it."""
    name, numbers = f"{size}x{size}x{channels}", size * size * channels
    return Kernel("quantize_samples", name, lambda: (torch.randn(1, size, size, channels),), 0, 9 * numbers)


def sum_kernel(op: str, rows: int, width: int) -> Kernel:
    """A sum or a concatenation of two matrices of uint8, or one dequantized."""

    def make() -> Arguments:
        x, y = torch.randint(0, 256, (2, rows, width), dtype=torch.uint8).unbind()
        first, second, result = grid(), grid(-3.0, 3.0), grid(-8.0, 8.0)
        if op == "dequantize":
            return x, *first
        if op == "cat_quantized":
            return [x, y], [first[0], second[0]], [first[1], second[1]], *result
        return (x, *first, y, *second, *(result if op == "add_quantized" else ()))

    item = {"dequantize": 5, "add": 6, "add_quantized": 3, "cat_quantized": 4}[op]
    return Kernel(op, f"{rows}x{width}", make, 0, rows * width * item)


def matmul_kernel(rows: int, reduction: int, columns: int) -> Kernel:
    """Two activations, the second one packed on the way."""

    def make() -> Arguments:
        x, y = (torch.randint(0, 256, s, dtype=torch.uint8) for s in ((rows, reduction), (reduction, columns)))
        return x, *grid(), y, torch.tensor(0.03)

    moved = (rows + columns) * reduction + 4 * rows * columns
    return Kernel("matmul", f"{rows}x{reduction}x{columns}", make, 2 * rows * reduction * columns, moved)


def scores_kernel(batch: int, heads: int, length: int, keys: int, head: int) -> Kernel:
    """Products of queries and keys, from float32."""

    def make() -> Arguments:
        scales = [torch.tensor(0.03)] * 2
        return torch.randn(batch, heads, length, head), torch.randn(batch, heads, keys, head), *scales

    products = batch * heads * length * keys
    moved = 4 * (batch * heads * (length + keys) * head + products)
    return Kernel("scores", f"{batch}x{heads}x{length}x{keys}x{head}", make, 2 * products * head, moved)


SAME = Window(3, 3, 1, 1, 1, 1, 1, 1)


def recurrent_kernel(op: str, length: int, batch: int, units: int) -> Kernel:
    """The steps of a recurrent layer of one direction."""
    gates = numerics.LSTM_GATES if op == "lstm" else numerics.GRU_GATES

    def make() -> Arguments:
        q, scale = numerics.quantize_weight(torch.randn(gates * units, units) / units**0.5)
        weight = kernels.by_blocks(q, gates)
        states = [torch.randn(1, batch, units) for _ in range(2 if op == "lstm" else 1)]
        inputs = torch.randn(length, batch, gates * units)
        scales = kernels.by_blocks(scale, gates)
        return inputs, *states, kernels.pack(weight), kernels.row_sums(weight), scales, None

    products = length * batch * gates * units * units
    moved = 4 * length * batch * (gates + 1) * units + gates * units * units
    return Kernel(op, f"{length}x{batch}x{units}", make, 2 * products, moved)


def bag_kernel(bags: int, size: int, rows: int, dim: int) -> Kernel:
    """Sums of rows of a table."""

    def make() -> Arguments:
        q, scale = numerics.quantize_weight(torch.randn(rows, dim))
        return torch.randint(0, rows, (bags * size,)), torch.arange(bags + 1) * size, q, scale, "sum"

    return Kernel("embedding_bag", f"{bags}x{size} {rows}x{dim}", make, 2 * bags * size * dim, bags * dim * (size + 4))


KERNELS = [
    *[linear_kernel(128, k, n) for k, n in ((768, 768), (768, 2304), (768, 3072), (3072, 768))],
    linear_kernel(1, 768, 3072),
    bag_kernel(256, 20, 100_000, 64),
    *[recurrent_kernel(op, 128, batch, 512) for op in ("lstm", "gru") for batch in (1, 8)],
    linear_kernel(1024, 768, 768),
    linear_kernel(128, 768, 768, dynamic=True),
    *[linear_kernel(128, 768, 3072, activation) for activation in ACTIVATIONS if activation != "none"],
    linear_kernel(128, 768, 3072, "gelu", to_bytes=True),
    linear_kernel(128, 768, 3072, "gelu", dynamic=True, to_bytes=True),
    row_kernel("quantize", 128, 768, *grid()),
    row_kernel("quantize_rows", 128, 768),
    row_kernel("quantize_groups", 128, 768, 12, words=" in 12"),
    norm_kernel("norm", 128, 768),
    norm_kernel("norm_quantized", 128, 768, *grid()),
    norm_kernel("norm_quantized_rows", 128, 768),
    gated_kernel("gated", 128, 1536, "silu"),
    gated_kernel("gated_quantized", 128, 1536, "gelu_tanh", *grid()),
    gated_kernel("gated_quantized_rows", 128, 1536, "silu"),
    head_norm_kernel(128, 16, 128),
    *[rotary_kernel(128, 16, 128, interleaved) for interleaved in (False, True)],
    embedding_kernel("embedding", 128, 768, 30522),
    embedding_kernel("embedding_add", 128, 768, 512),
    float_attention_kernel("attention", 1, 12, 128, 64),
    float_attention_kernel("attention_rows", 1, 12, 128, 64),
    attention_kernel(1, 12, 128, 64, dynamic=False),
    attention_kernel(1, 12, 128, 64, dynamic=True),
    attention_kernel(1, 12, 384, 64, dynamic=False),
    attention_floats_kernel("attention_floats", 1, 12, 128, 64),
    attention_floats_kernel("attention_appended", 1, 12, 128, 64),
    attention_floats_kernel("float_attention_appended", 1, 12, 128, 64),
    row_kernel("take_heads", 128, 2304, 0, 192, 12, 64, item_bytes=4),
    *[attention_floats_kernel("float_attention", 1, 12, 128, 64, bfloat16) for bfloat16 in (False, True)],
    attention_floats_kernel("float_attention_rows", 1, 12, 128, 64, True),
    attention_floats_kernel("float_attention_rows_quantized", 1, 12, 128, 64, True),
    matmul_kernel(128, 768, 768),
    scores_kernel(1, 12, 128, 128, 64),
    conv_kernel("7x7 stem", 224, 3, 64, Window(7, 7, 2, 2, 3, 3, 3, 3)),
    conv_kernel("1x1", 56, 64, 256, Window(1, 1)),
    conv_kernel("1x1", 14, 1024, 256, Window(1, 1)),
    conv_kernel("1x1 stride 2", 28, 512, 1024, Window(1, 1, 2, 2)),
    conv_kernel("3x3", 56, 64, 64, SAME),
    conv_kernel("3x3", 14, 256, 256, SAME),
    conv_kernel("3x3", 13, 1024, 1024, SAME),
    conv_kernel("3x3 stride 2", 56, 128, 128, Window(3, 3, 2, 2, 1, 1, 1, 1)),
    conv_kernel("3x3 depthwise", 56, 144, 144, SAME, 144),
    conv_kernel("7x7 depthwise", 28, 192, 192, Window(7, 7, 1, 1, 3, 3, 3, 3), 192),
    conv_kernel("3x3", 14, 256, 256, SAME, op="conv"),
    conv_kernel("3x3", 14, 256, 256, SAME, op="conv_both"),
    samples_kernel(56, 64),
    pool_kernel("max_pool", 112, 64, Window(3, 3, 2, 2, 1, 1, 1, 1)),
    pool_kernel("avg_pool", 7, 2048, Window(7, 7)),
    pool_kernel("avg_pool_quantized", 28, 256, Window(2, 2, 2, 2)),
    *[sum_kernel(op, 3136, 256) for op in ("dequantize", "add", "add_quantized", "cat_quantized")],
]
