"""`nn.Embedding` and its subclasses as `Int8Embedding` computes them, in float, for training."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from ... import numerics
from .quantize import fake_quantize_weight


class FakeQuantizedEmbedding(nn.Embedding):
    """A table whose rows are rounded to INT8 when they are read. Rounding only these rows gives the same values."""

    per_channel: bool

    def forward(self, input: Tensor) -> Tensor:
        """ids of any shape to float `[..., dim]`."""
        rows = super().forward(input)
        if self.per_channel:
            return fake_quantize_weight(rows.flatten(0, -2)).view_as(rows)
        scale = numerics.choose_weight_scale(self.weight, per_channel=False)[0]
        zero_point = torch.zeros((), dtype=torch.int32, device=rows.device)
        limits = (-numerics.SIGNED_MAX, numerics.SIGNED_MAX)
        return torch.fake_quantize_per_tensor_affine(rows.float(), scale, zero_point, *limits).to(rows.dtype)


def fake_quantize_embedding(module: nn.Embedding, per_channel: bool = True) -> None:
    """Make a float table read as its INT8 counterpart will, in place: same object, a subclass of its class."""
    module.__class__ = _fake_class(type(module))  # type: ignore[arg-type]
    module.per_channel = per_channel  # type: ignore[assignment]


def unfake_embedding(module: FakeQuantizedEmbedding) -> None:
    """The inverse of `fake_quantize_embedding`."""
    del module.per_channel
    own = type(module) is FakeQuantizedEmbedding
    module.__class__ = nn.Embedding if own else type(module).__bases__[0]


@functools.cache
def _fake_class(base: type[nn.Embedding]) -> type[nn.Embedding]:
    """`base`, whose `super().forward` reads fake-quantized rows; see `Int8Embedding` for the order of bases."""
    if base is nn.Embedding:
        return FakeQuantizedEmbedding
    members: dict[str, Any] = {"__module__": __name__, "__doc__": base.__doc__, "__reduce_ex__": _reduce}
    return type(f"FakeQuantized{base.__name__}", (base, FakeQuantizedEmbedding), members)


def _reduce(self: nn.Embedding, protocol: int) -> tuple[Any, ...]:
    """Copies and pickles name the class by its base: it is not an attribute of any module."""
    return _blank, (type(self).__bases__[0],), vars(self)


def _blank(base: type[nn.Embedding]) -> nn.Embedding:
    cls = _fake_class(base)  # type: ignore[arg-type]
    return cls.__new__(cls)
