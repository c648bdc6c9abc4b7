"""Mixture of experts: a parameter that holds one matrix per expert, in float and as `Int8Experts`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels, numerics
from .base import Int8Module, as_float
from .expert_weight import Experts
from .gradient import straight_through, wants_gradients
from .quantize_input import quantize_input

EAGER = "eager"
"""Transformers' name for an experts' own `forward`, which multiplies by one expert's matrix at a time."""


_Matrix = tuple[Tensor, Tensor, Tensor, "Tensor | None", "Tensor | None"]
"""Of one expert: panels, sums, scales; the input's scale and zero point, None where they are measured."""


class FloatExperts(Experts):
    """The parameter itself, as `weight`; calibration watches what flows into `forward`.

    Attributes:
        before: the experts implementation of Transformers that the module around it had.
    """

    weight: nn.Parameter
    before: str | None = None

    def __init__(self, parameter: nn.Parameter, transposed: bool) -> None:
        super().__init__()
        self.transposed = transposed
        self.dtype = parameter.dtype
        self.weight = parameter

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Experts, outputs and inputs."""
        experts, rows, columns = self.weight.shape
        return (experts, columns, rows) if self.transposed else (experts, rows, columns)

    @property
    def device(self) -> torch.device:
        """Of the parameter."""
        return self.weight.device

    def float_values(self, members: int | Sequence[int]) -> Tensor:
        """See `Experts`."""
        if isinstance(members, range) and len(members) == len(self.weight):
            return self.weight
        return self.weight[members if isinstance(members, int) else list(members)]

    def matrix(self, expert: int) -> Tensor:
        """The weight of one expert as `[out, in]`."""
        weight = self.weight[expert]
        return weight.mT if self.transposed else weight

    def forward(self, x: Tensor, expert: int, bias: Tensor | None = None) -> Tensor:
        """float `[..., in]` to `[..., out]` by the matrix of one expert."""
        weight = self.weight[expert].to(x.dtype)
        return x @ weight if self.transposed else F.linear(x, weight, bias)


class Int8Experts(Experts, Int8Module):
    """One INT8 matrix per expert; an expert's `forward` is that of an `Int8Linear`. Only what is called is read.

    Stored: `weight` int8 `[experts, out, in, 1]`, `weight_scale` float32 `[experts, out]`, and when static `input_scale` float32
    `[experts]`, `input_zero_point` int32 `[experts]` and `calibrated` bool `[experts]`: an expert that calibration never reached measures
    a range per row at run time, as all do when dynamic.
    """

    panels: Tensor
    weight_sum: Tensor
    weight_scale: Tensor
    input_scale: Tensor | None
    input_zero_point: Tensor | None
    calibrated: Tensor | None

    def __init__(
        self,
        sizes: tuple[int, int, int],
        transposed: bool,
        static: bool,
        activation_bits: int = 8,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self._sizes = sizes
        self.transposed = transposed
        self.activation_bits = activation_bits
        self.dtype = dtype
        experts = sizes[0]
        self.register_buffer("weight", torch.empty((*sizes, 1), dtype=torch.int8))
        self.register_buffer("weight_scale", torch.empty(sizes[:2], dtype=torch.float32))
        self.register_buffer("input_scale", torch.ones(experts, dtype=torch.float32) if static else None)
        self.register_buffer("input_zero_point", torch.zeros(experts, dtype=torch.int32) if static else None)
        self.register_buffer("calibrated", torch.zeros(experts, dtype=torch.bool) if static else None)
        self._matrices: list[_Matrix] | None = None

    @classmethod
    def from_float(
        cls,
        module: FloatExperts,
        input_ranges: Mapping[str, tuple[float, float]] | None = None,
        per_channel: bool = True,
        activation_bits: int = 8,
    ) -> Int8Experts:
        """Quantize each expert's matrix; `input_ranges`, by the expert's number, None makes it dynamic."""
        new = cls(module.sizes, module.transposed, input_ranges is not None, activation_bits, module.dtype)
        for i in range(len(module)):
            q, new.weight_scale[i] = numerics.quantize_weight(module.matrix(i).detach(), per_channel)
            new._buffers["weight"][i] = q.unsqueeze(-1)  # type: ignore[index]
        for key, found in (input_ranges or {}).items():
            assert new.input_scale is not None and new.input_zero_point is not None and new.calibrated is not None
            scale, zero_point = numerics.choose_affine_qparams(*found, activation_bits)
            new.input_scale[int(key)] = scale
            new.input_zero_point[int(key)] = zero_point
            new.calibrated[int(key)] = True
        new.finish_loading()
        return new.train(module.training)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Experts, outputs and inputs."""
        return self._sizes

    @property
    def products_per_row(self) -> int:
        """Of one expert."""
        _, outputs, inputs = self.sizes
        return outputs * inputs

    @property
    def device(self) -> torch.device:
        """Of the stored values."""
        return self.weight_scale.device

    def finish_loading(self) -> None:
        """See `Int8Module.finish_loading`."""
        if "weight" not in self._buffers:
            return
        stored: Tensor = self._buffers.pop("weight").squeeze(-1)  # type: ignore[union-attr]
        self.register_buffer("panels", torch.stack([kernels.pack(weight) for weight in stored]), persistent=False)
        sums = torch.stack([kernels.row_sums(weight) for weight in stored])
        self.register_buffer("weight_sum", sums, persistent=False)
        self._matrices = None

    def quantized(self, expert: int) -> Tensor:
        """int8 `[out, in]` of one expert."""
        return kernels.unpack(self.panels[expert], *self.sizes[1:])

    def float_values(self, members: int | Sequence[int]) -> Tensor:
        """See `Experts`."""
        if not isinstance(members, int):
            return torch.stack([self.float_values(member) for member in members])
        values = self.quantized(members).to(torch.float32) * self.weight_scale[members, :, None]
        return values.mT if self.transposed else values

    def forward(self, x: Tensor, expert: int, bias: Tensor | None = None) -> Tensor:
        """float `[..., in]` to `[..., out]` by the matrix of one expert, in x's dtype. The gradient is that of the float matrix."""
        if wants_gradients(x, bias):
            compute = functools.partial(self._compute, expert)
            return straight_through(compute, functools.partial(self._in_float, expert), x, bias)
        return self._compute(expert, x, bias)

    def _in_float(self, expert: int, x: Tensor, bias: Tensor | None) -> Tensor:
        weight = self.quantized(expert).to(torch.float32) * self.weight_scale[expert, :, None]
        return F.linear(x, weight.to(x.dtype), bias)

    def _compute(self, expert: int, x: Tensor, bias: Tensor | None) -> Tensor:
        panels, weight_sum, weight_scale, input_scale, input_zero_point = self._matrix(expert)
        q, scale, zero_point = quantize_input(x, input_scale, input_zero_point, self.activation_bits)
        bias = None if bias is None else as_float(bias)
        y = torch.ops.optimum_int8.linear(q, scale, zero_point, panels, weight_sum, weight_scale, bias)
        return y.to(x.dtype)

    def _matrix(self, expert: int) -> _Matrix:
        """The views are kept: kernels hang what they prepare on a tensor."""
        if self._matrices is None:
            self._matrices = [self._views(i) for i in range(len(self))]
        return self._matrices[expert]

    def _views(self, expert: int) -> _Matrix:
        found = self.panels[expert], self.weight_sum[expert], self.weight_scale[expert]
        if self.calibrated is None or not bool(self.calibrated[expert]):
            return *found, None, None
        return *found, self.input_scale[expert], self.input_zero_point[expert]  # type: ignore[index]

    def _apply(self, fn: Any, recurse: bool = True) -> Int8Experts:
        self._matrices = None
        return super()._apply(fn, recurse)  # type: ignore[return-value]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_matrices": None}

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if "panels" in self._buffers:
            stored = torch.stack([self.quantized(i) for i in range(len(self))])
            destination[prefix + "weight"] = stored.unsqueeze(-1)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        if "panels" in self._buffers:
            stored = torch.stack([self.quantized(i) for i in range(len(self))])
            del self._buffers["panels"], self._buffers["weight_sum"]
            self.register_buffer("weight", stored.unsqueeze(-1))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.finish_loading()


def run_eagerly(model: nn.Module) -> None:
    """Let modules with stacks of matrices run their own `forward`: Transformers' other implementations read all experts at once."""
    for owner in modules_with_experts(model):
        if experts_implementation(owner) not in (None, EAGER):
            owner.config._experts_implementation = EAGER  # type: ignore[union-attr]


def experts_implementation(owner: nn.Module) -> str | None:
    """The name of Transformers' experts implementation that a module takes, if it takes one."""
    return getattr(getattr(owner, "config", None), "_experts_implementation", None)


def modules_with_experts(model: nn.Module) -> Iterator[nn.Module]:
    """The modules of a model that hold stacks of experts' matrices themselves."""
    return (m for m in model.modules() if any(isinstance(child, Experts) for child in m._modules.values()))
