"""`Int8Linear`: `nn.Linear` and Transformers' `Conv1D` on INT8."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from .. import kernels, numerics
from .base import as_float
from .embedding import Int8Embedding
from .gradient import straight_through, wants_gradients
from .quantize_input import quantize_input
from .weight import Int8Biased, resized


class Int8Linear(Int8Biased):
    """`y = x @ weight.T + bias` with an int8 weight and a uint8 input, result in x's dtype.

    Stored: `weight` int8 `[out, in, 1]`, `weight_scale` float32 `[out]`, `bias` float32 `[out]` or None, and when static
    `input_scale` float32 `[]`, `input_zero_point` int32 `[]`; dynamic inputs get a scale and zero point per row. The weight is kept as the kernels'
    panels; reading `weight` gives the float matrix, `[out, in]`, or `[in, out]` as a `Conv1D` has it (`transposed`). The trailing axis of
    the stored weight makes a loader that does not know the format fail.

    `activation_bits` below 8 leaves the input `2**activation_bits` of the 256 levels; values beyond are clipped.
    """

    panels: Tensor
    weight_sum: Tensor
    input_scale: Tensor | None
    input_zero_point: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        static: bool = True,
        activation_bits: int = 8,
        dtype: torch.dtype = torch.float32,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.activation_bits = activation_bits
        self.dtype = dtype
        self.transposed = transposed
        self._hold(torch.empty(out_features, in_features, 1, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.empty(out_features, dtype=torch.float32))
        self._buffers["bias"] = torch.empty(out_features, dtype=torch.float32) if bias else None
        self._qparam_buffers(("input_scale", "input_zero_point"), static)
        self._tied: list[Int8Embedding] = []  # in a list, so that it is not a child

    @classmethod
    def like(cls, module: nn.Module, static: bool = True, activation_bits: int = 8) -> Int8Linear:
        """One without values in the place of an `nn.Linear` or a `Conv1D`."""
        rows, columns = float_weight(module).shape
        dtype: torch.dtype = module.weight.dtype  # type: ignore[assignment]
        return cls(
            columns, rows, module.bias is not None, static, activation_bits, dtype, not isinstance(module, nn.Linear)
        )

    @classmethod
    def from_float(
        cls,
        module: nn.Module,
        input_range: tuple[float, float] | None = None,
        per_channel: bool = True,
        weight_scale: Tensor | None = None,
        activation_bits: int = 8,
    ) -> Int8Linear:
        """Quantize an `nn.Linear` or a `Conv1D`; `input_range` None makes it dynamic, `weight_scale` None takes the largest weights."""
        weight = float_weight(module)
        bias = module.bias
        new = cls.like(module, input_range is not None, activation_bits)
        q, new.weight_scale = numerics.quantize_weight(weight, per_channel, weight_scale)
        new.weight = q.unsqueeze(-1)
        if bias is not None:
            new.bias = bias.detach().to(torch.float32).clone()  # type: ignore[operator]
        new._set_input_range(input_range, activation_bits)
        new.finish_loading()
        return new.train(module.training)

    @property
    def products_per_row(self) -> int:
        """See `Int8Module`."""
        return self.in_features * self.out_features

    def tie(self, embedding: Int8Embedding) -> None:
        """Share the stored weight and its scales with an embedding (a language model's head)."""
        self._tied = [embedding]

    def resize(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take the size of a float weight `[out, in]` and its bias, and the values of what is new; the rest keeps its INT8 values.

        It is untied then, if it was tied. Not for a `Conv1D`.
        """
        old = self._buffers["bias"]
        kept = min(self.out_features, len(weight))
        q, scale = resized(self.quantized_weight().squeeze(-1), self.weight_scale, weight)
        self.assign(q.unsqueeze(-1), scale)
        if old is not None and bias is not None:
            self.bias = torch.cat([old[:kept], bias.detach()[kept:].to(torch.float32)])

    def assign(self, q: Tensor, scale: Tensor, owner: Int8Embedding | None = None) -> None:
        """Replace the weight by int8 `[out, in, 1]` with its scales; `owner` is the embedding whose they are. A bias gets zeros at its end."""
        self.release()
        self._tied = [] if owner is None else [owner]
        self._hold(q)
        self.weight_scale = scale
        bias = self._buffers["bias"]
        if bias is not None and len(bias) != len(q):
            self.bias = functional.pad(bias, (0, len(q) - len(bias)))
        self.out_features, self.in_features = q.shape[:2]
        self.finish_loading()

    def rescale(self, factor: float) -> bool:
        """See `Int8Weighted.rescale`."""
        return not self._tied and super().rescale(factor)

    def finish_loading(self) -> None:
        """See `Int8Module.finish_loading`."""
        if "weight" not in self._buffers:
            return
        weight = self._buffers.pop("weight").squeeze(-1)  # type: ignore[union-attr]
        self.register_buffer("panels", kernels.pack(weight), persistent=False)
        self.register_buffer("weight_sum", kernels.row_sums(weight), persistent=False)

    def forward(self, input: Tensor, bias: Tensor | None = None) -> Tensor:
        """See the class. `bias` is one that the caller holds, of a linear without its own. The gradient is that of the float linear."""
        if wants_gradients(input, bias):
            return straight_through(self._compute, self._in_float, input, bias)
        return self._compute(input, bias)

    def _in_float(self, x: Tensor, bias: Tensor | None) -> Tensor:
        weight = super().dequantize().to(x.dtype)
        bias = self._buffers["bias"] if bias is None else bias
        return functional.linear(x, weight, None if bias is None else bias.to(x.dtype))

    def _compute(self, x: Tensor, bias: Tensor | None) -> Tensor:
        qparams = self.input_scale, self.input_zero_point, self.activation_bits
        bias = self._buffers["bias"] if bias is None else as_float(bias)
        return packed_linear(x, qparams, self.panels, self.weight_sum, self.weight_scale, bias).to(x.dtype)

    def quantized_weight(self) -> Tensor:
        """The weight as it is stored: int8 `[out, in, 1]`."""
        stored = self._buffers.get("weight")
        if stored is not None:
            return stored
        if self._tied:
            return self._tied[0].quantized_weight()
        return kernels.unpack(self.panels, self.out_features, self.in_features).unsqueeze(-1)

    def dequantize(self) -> Tensor:
        """See `Int8Weighted.dequantize`."""
        weight = super().dequantize()
        return weight.T.contiguous() if self.transposed else weight

    def float_shape(self) -> tuple[int, ...]:
        """Shape of the float weight."""
        shape = self.out_features, self.in_features
        return shape[::-1] if self.transposed else shape

    def int8_storage(self) -> Tensor:
        """The panels, or the table that they are tied to."""
        return self._tied[0].int8_storage() if self._tied else self.panels

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._tied:
            destination[prefix + "weight_scale"] = self._tied[0].weight_scale

    def release(self) -> None:
        """See `Int8Weighted.release`."""
        if "panels" in self._buffers:
            weight = self.quantized_weight()
            del self._buffers["panels"], self._buffers["weight_sum"]
            self._hold(weight)

    def extra_repr(self) -> str:
        """What `print` shows."""
        kind = "dynamic" if self.input_scale is None else "static"
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self._buffers['bias'] is not None}, {kind}"


def packed_linear(
    x: Tensor,
    qparams: tuple[Tensor | None, Tensor | None, int],
    panels: Tensor,
    weight_sum: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """float `[..., in]` by a packed weight to float32 `[..., out]`; `qparams` are the arguments of `quantize_input` after `x`."""
    q, scale, zero_point = quantize_input(x, *qparams)
    y: Tensor = torch.ops.optimum_int8.linear(q, scale, zero_point, panels, weight_sum, weight_scale, bias)
    return y


def linear_obstacle(module: nn.Module) -> str:
    """Why an INT8 linear would not compute the same as a subclass of `nn.Linear` or `Conv1D`, or nothing."""
    name = type(module).__name__
    if isinstance(module, NonDynamicallyQuantizableLinear):
        return f"{name}: torch's attention reads its weight without calling it"
    tensors = {**module._parameters, **module._buffers}
    if "weight" not in module._parameters or set(tensors) != {"weight", "bias"} or module._modules:
        return f"{name} is a Linear with tensors or modules of its own"
    return "" if _is_matrix_product(module) else f"{name} is a Linear with a forward of its own"


def _is_matrix_product(module: nn.Module) -> bool:
    """Whether a module takes one tensor and gives `x @ weight.T + bias`, found by comparing values of all sizes."""
    if len(inspect.signature(module.forward).parameters) != 1:
        return False
    weight = float_weight(module).detach()
    bias: Any = None if module.bias is None else module.bias.detach()  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    for shape, size in (((3,), 1.0), ((2, 3), 1e-3), ((1, 2), 1e4), ((2, 1, 2), -30.0), ((2,), 0.0)):
        x = size * torch.randn(*shape, weight.shape[1], generator=generator).to(weight.dtype)
        expected = functional.linear(x, weight, bias)
        try:
            with torch.no_grad():
                found = module.forward(x)
        except Exception:  # whatever it is, it is no matrix product
            return False
        tolerance = 8 * torch.finfo(weight.dtype).eps * float(expected.abs().max() + 1e-30) * weight.shape[1] ** 0.5
        if not isinstance(found, Tensor) or found.shape != expected.shape or found.dtype != expected.dtype:
            return False
        if not bool(((found - expected).abs() <= tolerance).all()):
            return False
    return True


def float_weight(module: nn.Module) -> Tensor:
    """The weight of an `nn.Linear` or `Conv1D` as `[out, in]`, that of an `nn.Conv3d` as `[out, in * taps]`."""
    if isinstance(module, nn.Conv3d):
        return module.weight.flatten(1)
    return module.weight if isinstance(module, nn.Linear) else module.weight.T  # type: ignore[return-value]
