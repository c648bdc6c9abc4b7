"""Arguments of the attention operators: odd heads and lengths, shared key heads, every kind of mask, static and dynamic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from optimum_int8 import numerics

SHAPES = (
    # batch, heads, key heads, queries, keys, head size
    (1, 1, 1, 1, 1, 1), (1, 2, 2, 5, 5, 8), (2, 3, 3, 33, 33, 32), (3, 2, 1, 21, 21, 64), (1, 2, 2, 65, 65, 80),
    (2, 2, 2, 31, 31, 6), (1, 1, 1, 97, 97, 63), (2, 4, 2, 1, 17, 16), (1, 3, 1, 7, 64, 33), (1, 6, 2, 32, 63, 128),
    (2, 2, 2, 16, 15, 12), (1, 1, 1, 63, 130, 31),
    (1, 2, 1, 2, 37, 300), (2, 3, 3, 4, 70, 64),  # few queries: keys are read as they lie
)  # fmt: skip
MASKED_SHAPES = ((2, 4, 2, 17, 17, 24), (2, 2, 2, 15, 65, 32), (2, 4, 2, 1, 37, 24))
UNSEEN = ("left_padding", "nothing_seen")
"""Masks that leave a query without any key when later keys are hidden as well; what it gets then is nobody's business."""
LOWEST = torch.finfo(torch.float32).min

Arguments = Callable[[], tuple[Any, ...]]


def _rows_kept(batch: int, keys: int) -> Tensor:
    """`[batch, keys]`: the first sequence whole, the others shorter."""
    return torch.arange(keys) < torch.tensor([keys, *[max(1, keys // 3)] * (batch - 1)]).unsqueeze(1)


def _bool(batch: int, heads: int, queries: int, keys: int) -> Tensor:
    mask = torch.rand(batch, heads, queries, keys) > 0.4
    mask[..., 0] = True
    return mask


MASKS: dict[str, Callable[[int, int, int, int], Tensor]] = {
    "padding": lambda b, h, q, k: _rows_kept(b, k)[:, None, None, :],
    "left_padding": lambda b, h, q, k: _rows_kept(b, k).flip(1)[:, None, None, :],
    "bool": lambda b, h, q, k: _bool(b, h, q, k),
    "bool_shared_heads": lambda b, h, q, k: _bool(b, 1, q, k),
    "bool_shared_queries": lambda b, h, q, k: _bool(b, h, 1, k),
    "bool_2d": lambda b, h, q, k: _bool(1, 1, q, k)[0, 0],
    "bool_strided": lambda b, h, q, k: _bool(b, h, k, q).transpose(2, 3) | (torch.arange(k) == 0),
    "bool_expanded": lambda b, h, q, k: _bool(1, 1, q, k).expand(b, h, q, k),
    "bool_one_column": lambda b, h, q, k: torch.ones(b, 1, 1, 1, dtype=torch.bool),
    "nothing_seen": lambda b, h, q, k: _bool(b, 1, q, k) & (torch.arange(q) > 2).unsqueeze(1),
    "float": lambda b, h, q, k: torch.randn(b, h, q, k),
    "float_bias": lambda b, h, q, k: torch.randn(1, h, q, k),
    "float_lowest": lambda b, h, q, k: torch.where(_rows_kept(b, k)[:, None, None, :], 0.0, LOWEST),
    "float_infinite": lambda b, h, q, k: torch.where(_bool(b, 1, q, k), 0.0, -float("inf")),
    "bfloat16": lambda b, h, q, k: torch.randn(b, 1, q, k).to(torch.bfloat16),
}


def _float_inputs(shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    batch, heads, kv_heads, queries, keys, head = shape
    query = torch.randn(batch, heads, queries, head)
    key, value = (torch.randn(batch, kv_heads, keys, head) for _ in range(2))
    query[:, :, 0], key[:, :, -1], value[:, :, 0] = 0.0, 0.0, value[:, :, 0] * 30
    return query, key, value


def _inputs(shape: tuple[int, ...], dynamic: bool) -> tuple[Any, ...]:
    scales = (None,) * 3 if dynamic else tuple(torch.tensor(s) for s in (0.03, 0.025, 0.04))
    return *_float_inputs(shape), *scales


def _variants() -> Iterator[tuple[str, tuple[int, ...], bool, str | None, bool]]:
    for dynamic in (False, True):
        kind = "dynamic" if dynamic else "static"
        for i, shape in enumerate(SHAPES):
            yield f"{kind}-{shape}", shape, dynamic, None, False
            if shape[4] >= shape[3] and (i + dynamic) % 2:
                yield f"{kind}-{shape}-causal", shape, dynamic, None, True
        for i, mask in enumerate(MASKS):
            shape = MASKED_SHAPES[(i + dynamic) % 3]
            yield f"{kind}-{mask}", shape, dynamic, mask, False
            if mask not in UNSEEN:
                yield f"{kind}-{mask}-causal", shape, dynamic, mask, True


def _mask(name: str | None, shape: tuple[int, ...]) -> Tensor | None:
    return None if name is None else MASKS[name](shape[0], shape[1], shape[3], shape[4])


def attention() -> Iterator[tuple[str, Arguments]]:
    for name, shape, dynamic, mask, causal in _variants():
        yield name, lambda s=shape, d=dynamic, m=mask, c=causal: (*_inputs(s, d), _mask(m, s), s[5] ** -0.5, c)
    yield "negative_scaling", lambda s=(1, 2, 2, 33, 33, 24): (*_inputs(s, False), None, -0.2, False)


def rows_arguments(shape: tuple[int, ...], dynamic: bool, mask: str | None, causal: bool) -> tuple[Any, ...]:
    """Quantized, with heads side by side in a row, as the projections leave them."""
    values, scales = [], []
    for x, given in zip(_float_inputs(shape), (0.03, 0.025, 0.04), strict=True):
        scale = numerics.symmetric_row_scale(x) if dynamic else torch.tensor(given)
        values.append(
            numerics.quantize_affine(x, scale.unsqueeze(-1) if dynamic else scale, 128).transpose(1, 2).flatten(2)
        )
        scales.append(scale.transpose(1, 2).contiguous() if dynamic else scale)
    return *values, *scales, shape[1], shape[2], _mask(mask, shape), shape[5] ** -0.5, causal


def attention_rows(grid: tuple[Tensor, ...] = ()) -> Iterator[tuple[str, Arguments]]:
    for name, shape, dynamic, mask, causal in list(_variants())[len(grid) :: 3]:
        yield name, lambda s=shape, d=dynamic, m=mask, c=causal: (*rows_arguments(s, d, m, c), *grid)


def attention_floats() -> Iterator[tuple[str, Arguments]]:
    def rows(shape: tuple[int, ...], dynamic: bool, mask: str | None, causal: bool) -> tuple[Any, ...]:
        *inputs, q_scale, k_scale, v_scale = _inputs(shape, dynamic)
        floats = [x.transpose(1, 2).flatten(2) for x in inputs]
        return *floats, q_scale, k_scale, v_scale, shape[1], shape[2], _mask(mask, shape), shape[5] ** -0.5, causal

    for name, shape, dynamic, mask, causal in list(_variants())[1::3]:
        yield name, lambda s=shape, d=dynamic, m=mask, c=causal: rows(s, d, m, c)


def attention_appended() -> Iterator[tuple[str, Arguments]]:
    """The last keys are those of the tokens."""

    def rows(shape: tuple[int, ...], dynamic: bool, mask: str | None, causal: bool) -> tuple[Any, ...]:
        *inputs, q_scale, k_scale, v_scale = _inputs(shape, dynamic)
        q, k, v = [x.transpose(1, 2).flatten(2) for x in inputs]
        earlier = shape[4] - shape[3]
        past = k[:, :earlier].contiguous(), v[:, :earlier].contiguous()
        scales = q_scale, k_scale, v_scale
        rest = _mask(mask, shape), shape[5] ** -0.5, causal
        return q, k[:, earlier:], v[:, earlier:], *past, *scales, shape[1], shape[2], *rest

    for name, shape, dynamic, mask, causal in _variants():
        if shape[4] > shape[3]:
            yield name, lambda s=shape, d=dynamic, m=mask, c=causal: rows(s, d, m, c)
    yield "64", lambda: rows((1, 2, 1, 3, 9, 32), True, None, True)


FLOAT_SHAPES = (
    (1, 1, 1, 97, 97, 16), (2, 6, 2, 33, 33, 20), (1, 2, 1, 5, 600, 24), (1, 1, 1, 300, 300, 8), (1, 4, 4, 1, 257, 64),
)  # fmt: skip
"""Beside `SHAPES`: several groups of queries, several blocks of keys."""


def _float_variants() -> Iterator[tuple[str, tuple[int, ...], bool, str | None, bool]]:
    yield from _variants()
    for i, shape in enumerate(FLOAT_SHAPES):
        for mask in (None, "bool", "float") if i else (None,):
            yield f"{shape}-{mask}", shape, bool(i % 2), mask, False
            if shape[4] >= shape[3]:
                yield f"{shape}-{mask}-causal", shape, not i % 2, mask, True


def float_attention() -> Iterator[tuple[str, Arguments]]:
    """As the INT8 core, with bfloat16 in place of what is dynamic there."""
    for name, shape, bfloat16, mask, causal in _float_variants():
        yield (
            name,
            lambda s=shape, b=bfloat16, m=mask, c=causal: (*_float_inputs(s), b, _mask(m, s), s[5] ** -0.5, c),
        )
    for bfloat16 in (False, True):
        for softcap in (0.5, 3.0, 50.0):
            name = f"softcap-{softcap}-{bfloat16}"
            yield (
                name,
                lambda s=(2, 4, 2, 17, 33, 24), b=bfloat16, c=softcap: (
                    *_float_inputs(s),
                    b,
                    _mask("bool", s),
                    1.0,
                    True,
                    c,
                ),
            )


def float_attention_rows(grid: tuple[Tensor, ...] = ()) -> Iterator[tuple[str, Arguments]]:
    def rows(shape: tuple[int, ...], bfloat16: bool, mask: str | None, causal: bool) -> tuple[Any, ...]:
        floats = [x.transpose(1, 2).flatten(2) for x in _float_inputs(shape)]
        settings = bfloat16, _mask(mask, shape), shape[5] ** -0.5, causal
        return *floats, shape[1], shape[2], *settings, 2.0 * causal, *grid

    for name, shape, bfloat16, mask, causal in list(_float_variants())[len(grid) :: 5]:
        yield name, lambda s=shape, b=bfloat16, m=mask, c=causal: rows(s, b, m, c)


def float_attention_appended() -> Iterator[tuple[str, Arguments]]:
    """As `attention_appended`."""

    def rows(shape: tuple[int, ...], bfloat16: bool, mask: str | None, causal: bool) -> tuple[Any, ...]:
        q, k, v = [x.transpose(1, 2).flatten(2) for x in _float_inputs(shape)]
        earlier = shape[4] - shape[3]
        past = k[:, :earlier].contiguous(), v[:, :earlier].contiguous()
        rest = bfloat16, _mask(mask, shape), shape[5] ** -0.5, causal, 4.0 * causal
        return q, k[:, earlier:], v[:, earlier:], *past, shape[1], shape[2], *rest

    for name, shape, bfloat16, mask, causal in list(_float_variants())[::3]:
        if shape[4] > shape[3]:
            yield name, lambda s=shape, b=bfloat16, m=mask, c=causal: rows(s, b, m, c)
    yield "64", lambda: rows((1, 2, 1, 3, 9, 32), False, None, True)


def matmul() -> Iterator[tuple[str, Arguments]]:
    """A matrix packed on the way, batches of it, and batches of sums short enough for float32."""
    for left, right in (
        ((5, 64), (64, 33)), ((2, 7, 97), (97, 31)), ((2, 3, 5, 600), (2, 3, 600, 9)), ((2, 3, 5, 33), (2, 1, 33, 17)), ((1, 1), (1, 1)),
    ):  # fmt: skip
        yield f"{left}-{right}", lambda a=left, b=right: _factors(a, b)


def _factors(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[Any, ...]:
    x, y = (torch.randint(0, 256, shape, dtype=torch.uint8) for shape in (left, right))
    return x, torch.tensor(0.03), torch.tensor(93, dtype=torch.int32), y, torch.tensor(0.025)


def scores() -> Iterator[tuple[str, Arguments]]:
    for name, scales in (("static", (torch.tensor(0.03), torch.tensor(0.025))), ("dynamic", (None, None))):
        for rows, columns, reduction in ((5, 7, 64), (1, 9, 33)):
            yield (
                f"{name}-({rows}, {columns}, {reduction})",
                lambda r=rows, c=columns, k=reduction, s=scales: (torch.randn(2, r, k), torch.randn(2, c, k), *s),
            )
