"""The float attention core of a decoding step: the tokens' keys and values are appended to those of a cache."""

from __future__ import annotations

import torch

from ..kernels.emission import Emission, Rows
from .attention_appended import append_states, fake_appended, on_appended
from .attention_float import append_float_core, define_float_attention_rows, float_attention_rows
from .registry import APPENDED, ROWS, define
from .roles import Appending


def _emit_float_attention_appended(
    e: Emission,
    q: Rows,
    k: Rows,
    v: Rows,
    past_k: Rows,
    past_v: Rows,
    heads: int,
    kv_heads: int,
    bfloat16: bool,
    scaling: float,
    causal: bool,
    softcap: float = 0.0,
) -> tuple[Rows, Rows, Rows]:
    out = e.new(q.columns, torch.float32)
    keys, values = append_states(e, k, v, past_k, past_v)
    append_float_core(e, out, (q, keys, values), heads, kv_heads, bfloat16, scaling, causal, softcap)
    return out, keys, values


define(
    "float_attention_appended",
    "(Tensor q, Tensor k, Tensor v, Tensor past_k, Tensor past_v, int heads, int kv_heads, bool bfloat16, Tensor? mask, float scaling, "
    "bool causal, float softcap=0.0) -> (Tensor, Tensor, Tensor)",
    compute=on_appended(float_attention_rows),
    definition=on_appended(define_float_attention_rows),
    fake=fake_appended,
    emit=_emit_float_attention_appended,
    domains=(ROWS,),
    values=("q", "k", "v", "past_k", "past_v"),
    columns=("q", "k", "v"),
    keys=APPENDED,
    form=Appending("float_attention_rows"),
)
