"""`nn.MultiheadAttention` with its projections as modules, so that they and the core are sites like those of a Transformers model.

torch keeps the three input projections packed in one parameter, and computes the whole in one function that calls no module.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..core_caller import FLOAT_IMPLEMENTATION

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
"""Names of the input projections, in the order in which torch packs them."""


class UnpackedMultiheadAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` with children `q_proj`, `k_proj`, `v_proj` and `out_proj`; same call and, up to rounding, same results.

    Attributes:
        attention: name of the core in Transformers' attention interface.
    """

    attention: str
    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module

    @property
    def in_proj_weight(self) -> Tensor | None:  # type: ignore[override]
        """The projections' weights as torch packs them, or None where their widths differ."""
        weights = [getattr(self, name).weight for name in PROJECTIONS]
        return torch.cat(weights) if len({weight.shape[1] for weight in weights}) == 1 else None

    @property
    def in_proj_bias(self) -> Tensor | None:  # type: ignore[override]
        """The projections' biases as torch packs them."""
        biases = [getattr(self, name).bias for name in PROJECTIONS]
        return None if biases[0] is None else torch.cat(biases)

    def _reset_parameters(self) -> None:
        """Nothing: the projections are modules, which are initialized by themselves."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See `nn.MultiheadAttention.forward`. With `need_weights` the core runs in float, as INT8 never holds the weights."""
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        batched = query.dim() == 3
        rows = self._batch_first(query, key, value, batched)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (
            p(x).view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)
            for p, x in zip(projections, rows, strict=True)
        )
        dropout = self.dropout if self.training else 0.0
        if key_padding_mask is not None and not batched:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if causal else _join_masks(attn_mask, key_padding_mask, self.num_heads)
        weights = None
        if need_weights:
            out, weights = _explicit_core(q, k, v, mask, dropout)
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            core = ALL_ATTENTION_FUNCTIONS[self.attention]
            out, _ = core(self, q, k, v, mask, dropout=dropout, is_causal=causal)
        out = self.out_proj(out.reshape(*rows[0].shape[:2], self.embed_dim))
        if not batched:
            return out.squeeze(0), weights
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _batch_first(self, query: Tensor, key: Tensor, value: Tensor, batched: bool) -> tuple[Tensor, Tensor, Tensor]:
        """As `[batch, length, embed]`. What is one tensor stays one, so that it is quantized once."""

        def turn(x: Tensor) -> Tensor:
            if not batched:
                return x.unsqueeze(0)
            return x if self.batch_first else x.transpose(0, 1)

        q = turn(query)
        k = q if key is query else turn(key)
        return q, k, (q if value is query else k if value is key else turn(value))


def _join_masks(attn_mask: Tensor | None, key_padding_mask: Tensor | None, heads: int) -> Tensor | None:
    """torch's two masks (True hides) as one of the attention interface (True attends, or float to add)."""
    masks = []
    if attn_mask is not None:
        square = attn_mask if attn_mask.dim() == 2 else attn_mask.view(-1, heads, *attn_mask.shape[1:])
        masks.append(square if square.dim() == 4 else square[None, None])
    if key_padding_mask is not None:
        masks.append(key_padding_mask[:, None, None, :])
    if all(mask.dtype == torch.bool for mask in masks):
        masks = [~mask for mask in masks]
        return masks[0] & masks[1] if len(masks) == 2 else next(iter(masks), None)
    floats = [
        torch.zeros(m.shape, device=m.device).masked_fill(m, -torch.inf) if m.dtype == torch.bool else m for m in masks
    ]
    return floats[0] + floats[1] if len(floats) == 2 else floats[0]


def _explicit_core(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> tuple[Tensor, Tensor]:
    """In float, with the weights: `[batch, length, heads, head]` and `[batch, heads, queries, keys]`."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    weights = nn.functional.dropout(scores.softmax(-1), dropout, dropout > 0.0)
    return (weights @ v).transpose(1, 2), weights


def unpacking_obstacle(module: nn.MultiheadAttention) -> str:
    """Why a module stays as torch made it, or nothing."""
    if type(module) is not nn.MultiheadAttention:
        return f"{type(module).__name__} is a MultiheadAttention with a forward of its own"
    if module.bias_k is not None or module.add_zero_attn:
        return "it adds keys and values of its own (add_bias_kv, add_zero_attn)"
    return ""


def unpack_attention(model: nn.Module) -> nn.Module:
    """Give each `nn.MultiheadAttention` below its projections as modules, in place, and keep torch's own encoders from its fused call,
    which reads the weights of their linears without calling them."""
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and not unpacking_obstacle(module):
            _unpack(module)
        elif isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return model


def _unpack(module: nn.MultiheadAttention) -> None:
    if module._qkv_same_embed_dim:
        weights = module.in_proj_weight.detach().chunk(3)
    else:
        weights = tuple(getattr(module, f"{name}_weight").detach() for name in PROJECTIONS)
    biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.detach().chunk(3)
    for name in ("in_proj_weight", "in_proj_bias"):
        del module._parameters[name]
    for name in PROJECTIONS:
        module.register_parameter(f"{name}_weight", None)
    for name, weight, bias in zip(PROJECTIONS, weights, biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        linear.weight = nn.Parameter(weight.clone())
        linear.bias = None if bias is None else nn.Parameter(bias.clone())
        setattr(module, name, linear.train(module.training))
    module.out_proj.__class__ = nn.Linear  # type: ignore[assignment]  # NonDynamicallyQuantizableLinear, which differs in its name alone
    module.__class__ = UnpackedMultiheadAttention
    module.attention = FLOAT_IMPLEMENTATION  # type: ignore[assignment]
    module._qkv_same_embed_dim = False
