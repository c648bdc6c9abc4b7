"""XLNet's attention with its projections as linears: they are three-dimensional parameters, which `torch.einsum` multiplies with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention

from ..core_caller import CoreCaller
from ..scores import Scores
from ..slot import WeightSlot

_TO_HEADS = "ibh,hnd->ibnd"
_FROM_HEADS = "ibnd,hnd->ibh"
_PROJECTIONS = {"q": _TO_HEADS, "k": _TO_HEADS, "v": _TO_HEADS, "r": _TO_HEADS, "o": _FROM_HEADS}
_MASKED = 1e30  # what XLNet takes from the scores of hidden keys


class EinsumWeight(WeightSlot):
    """Stands where a parameter `[width, heads, head]` stood: `torch.einsum(equation, x, weight)` runs its child `linear`."""

    def __init__(self, parameter: nn.Parameter, equation: str) -> None:
        super().__init__()
        width, self.heads, self.head = parameter.shape
        self.equation = equation
        flat = parameter.detach().reshape(width, -1)
        weight = flat.T.contiguous() if equation == _TO_HEADS else flat.clone()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.linear.weight = nn.Parameter(weight, parameter.requires_grad)

    def float_weight(self) -> Tensor:
        """See `WeightSlot`."""
        weight: Tensor = self.linear.weight
        flat = weight.T if self.equation == _TO_HEADS else weight
        return flat.unflatten(1, (self.heads, self.head))

    @property
    def dtype(self) -> torch.dtype:
        """As the parameter's: XLNet casts positions to it."""
        return self.linear.weight.dtype

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The one product that this weight is for as a linear, other functions on the float matrix."""
        equation, x, weight = args if len(args) == 3 else (None, None, None)
        if func is torch.einsum and isinstance(weight, EinsumWeight) and equation == weight.equation:
            return weight(x)
        return super().__torch_function__(func, types, args, kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` to `[..., heads, head]`, or the other way round."""
        if self.equation == _TO_HEADS:
            return self.linear(x).unflatten(-1, (self.heads, self.head))
        return self.linear(x.flatten(-2))


class UnpackedXLNetAttention(CoreCaller, XLNetRelativeAttention):
    """`XLNetRelativeAttention` with children `q.linear` to `r.linear` and `positions`; same call and, up to rounding, same results."""

    r_w_bias: nn.Parameter
    r_r_bias: nn.Parameter
    r_s_bias: nn.Parameter
    seg_embed: nn.Parameter
    positions: Scores
    dropout: nn.Dropout
    scale: float
    rel_shift_bnij: Callable[..., Tensor]

    def rel_attn_core(
        self,
        q_head: Tensor,
        k_head_h: Tensor,
        v_head_h: Tensor,
        k_head_r: Tensor,
        seg_mat: Tensor | None = None,
        attn_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> Any:
        """As XLNet's, on `[length, batch, heads, head]`. With `output_attentions` in float, as INT8 never holds the weights."""
        if output_attentions:
            return super().rel_attn_core(q_head, k_head_h, v_head_h, k_head_r, seg_mat, attn_mask, output_attentions)
        content, position, key, value, key_r = (
            x.permute(1, 2, 0, 3)
            for x in (q_head + self.r_w_bias, q_head + self.r_r_bias, k_head_h, v_head_h, k_head_r)
        )
        bias = self.rel_shift_bnij(self.positions(position, key_r), klen=key.shape[2])
        if seg_mat is not None:
            segments = torch.einsum("ibnd,snd->ibns", q_head + self.r_s_bias, self.seg_embed)
            bias = bias + torch.einsum("ijbs,ibns->bnij", seg_mat, segments)
        bias = bias * self.scale
        if attn_mask is not None:
            bias = bias - _MASKED * torch.einsum("ijbn->bnij", attn_mask)
        dropout = self.dropout.p if self.training else 0.0
        out, _ = self.core(self, content, key, value, bias, dropout=dropout, scaling=self.scale, is_causal=False)
        return out.transpose(0, 1)


def unpack(module: XLNetRelativeAttention) -> None:
    """In place."""
    for name, equation in _PROJECTIONS.items():
        slot = EinsumWeight(module._parameters.pop(name), equation)
        module.add_module(name, slot.train(module.training))
    module.add_module("positions", Scores().train(module.training))
    module.__class__ = UnpackedXLNetAttention
