"""The attention core of a decoding step: the tokens' keys and values are appended to those of a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..kernels.emission import Emission, Rows
from .attention_cores import append_core, append_core_on_kept
from .attention_int8 import attention_floats, define_attention_floats
from .registry import APPENDED, ROWS, define
from .roles import Appending
from .shapes import like

_PAST = "Tensor past_k, Tensor past_v"
_SCALES = "Tensor? q_scale, Tensor? k_scale, Tensor? v_scale"


def on_appended(core: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """A core of float rows as one that appends keys and values to those of a cache, and gives what there is then."""

    def run(  # type: ignore[no-untyped-def]
        q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor, *others
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The core on all keys and values there are then, and these.

        Args:
            q, k, v: float `[batch, length, heads * head]`; of k and v `kv_heads * head`.
            past_k, past_v: float `[batch, earlier, kv_heads * head]`.
            others: the other arguments of the core.

        Returns float32 of q's shape, and keys and values `[batch, earlier + length, kv_heads * head]`.
        """
        keys = torch.cat((past_k, k), 1)
        values = torch.cat((past_v, v), 1)
        return core(q, keys, values, *others), keys, values

    return run


def _emit_attention_appended(
    e: Emission,
    q: Rows,
    k: Rows,
    v: Rows,
    past_k: Rows,
    past_v: Rows,
    q_scale: Tensor | None,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
    heads: int,
    kv_heads: int,
    scaling: float,
    causal: bool,
) -> tuple[Rows, Rows, Rows]:
    out = e.new(q.columns, torch.float32)
    scales = (q_scale, k_scale, v_scale)
    kept = [e.keep(rows, kv_heads, scale) for rows, scale in ((k, k_scale), (v, v_scale))]
    if kept[0] is not None and kept[1] is not None:
        keys = e.new(k.columns, torch.float32, after=past_k)
        values = e.new(v.columns, torch.float32, after=past_v)
        append_core_on_kept(e, out, (q, k, v), (kept[0], kept[1]), scales, heads, kv_heads, scaling, causal)
        return out, keys, values
    keys, values = append_states(e, k, v, past_k, past_v)
    append_core(e, out, (q, keys, values), scales, heads, kv_heads, scaling, causal)
    return out, keys, values


def append_states(e: Emission, k: Rows, v: Rows, past_k: Rows, past_v: Rows) -> tuple[Rows, Rows]:
    """Append the append of keys and values to those of a cache; gives all of them."""
    keys = e.new(k.columns, torch.float32, after=past_k)
    values = e.new(v.columns, torch.float32, after=past_v)
    for past, new, joined in ((past_k, k, keys), (past_v, v, values)):
        e.program.add(
            "append", [past.value, new.value], [joined.value], columns=new.columns, column=new.column, key_side=e.keys
        )
    return keys, values


def fake_appended(
    q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor, *rest: Any, **named: Any
) -> tuple[Tensor, ...]:
    """Shapes and dtypes of the result, and of the keys and values there are then."""
    return like(q, *q.shape), *[_joined(past, new) for past, new in ((past_k, k), (past_v, v))]


def _joined(past: Tensor, new: Tensor) -> Tensor:
    """Passes know sizes that differ from call to call by name."""
    batch, earlier, columns = past.shape
    length: Any = new.shape[1]
    total = f"{earlier} and {length}" if str in (type(earlier), type(length)) else earlier + length
    return like(past, batch, total, columns)


define(
    "attention_appended",
    f"(Tensor q, Tensor k, Tensor v, {_PAST}, {_SCALES}, int heads, int kv_heads, Tensor? mask, float scaling, bool causal)"
    " -> (Tensor, Tensor, Tensor)",
    compute=on_appended(attention_floats),
    definition=on_appended(define_attention_floats),
    fake=fake_appended,
    emit=_emit_attention_appended,
    domains=(ROWS,),
    values=("q", "k", "v", "past_k", "past_v"),
    columns=("q", "k", "v"),
    keys=APPENDED,
    form=Appending("attention_floats"),
)
