"""Which linears read the output of a norm or a linear, and nobody else does: the edges along which channels can be rescaled.

One batch is run under a `TorchFunctionMode`, which sees each function that takes a tensor. The output of a source is followed through
what keeps its channels apart (views, dropout, ReLU, a product, the values' way through attention) until something reads it. Anything
not known to keep channels apart blocks the source, with its name as the reason: a residual sum, a GELU, a split, being returned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.modeling_utils import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..calibration import run_batch
from ..torch_private import DisableTorchFunction
from .layouts import follow, is_metadata
from .rows import evaluating

SAMPLE = 64
"""Rows on which a norm shows that its weight scales its output."""


@dataclass(frozen=True)
class Edge:
    """`readers`, linears, all read the output of `source`, a norm or a linear, and nothing else does."""

    source: str
    readers: tuple[str, ...]
    from_norm: bool


@dataclass
class Flow:
    """The edges of a model, and for each linear that is no reader of one the reason."""

    edges: list[Edge] = field(default_factory=list)
    obstacles: dict[str, str] = field(default_factory=dict)


def find_edges(model: nn.Module, batch: Any) -> Flow:
    """Run one batch and tell along which edges channels can be rescaled without changing what the model computes.

    A source or a reader that is called more than once, or whose parameters another module shares, is left out.
    """
    trace = _Trace(model)
    with evaluating(model):
        try:
            outputs = _run(model, batch, trace)
        finally:
            trace.close()
    for tensor in tensors_of(outputs):
        if id(tensor) in trace.values:
            trace.block(trace.values[id(tensor)].source, "its output is returned by the model")
    shared = _sharing_modules(model)
    flow = Flow()
    for source in trace.readers:
        readers = tuple(trace.readers[source])
        reason = trace.blocked.get(source) or _obstacle(model, trace, shared, source, readers)
        if not reason:
            flow.edges.append(Edge(source, readers, source not in trace.linears))
        for reader in readers if reason else ():
            flow.obstacles[reader] = f"{source}: {reason}"
    fed = {reader for edge in flow.edges for reader in edge.readers}
    for name in trace.linears:
        if name not in fed:
            flow.obstacles.setdefault(name, "no norm or linear is known to stand right before it")
    return flow


def _run(model: nn.Module, batch: Any, trace: _Trace) -> Any:
    """One call; with hidden states where the model has them, since a user may ask for them, and without a cache, which is in the way."""
    if isinstance(model, PreTrainedModel) and isinstance(batch, Mapping):
        batch = {"output_hidden_states": True, **batch}
        if hasattr(model.config.get_text_config(decoder=True), "use_cache"):
            batch["use_cache"] = False
    with trace:
        return run_batch(model, batch)


def _obstacle(model: nn.Module, trace: _Trace, shared: set[str], source: str, readers: tuple[str, ...]) -> str:
    for name in (source, *readers):
        if trace.calls[name] != 1:
            return f"{name} is called {trace.calls[name]} times"
        if name in shared:
            return f"{name} shares its parameters with another module"
    if source in trace.linears:
        return ""
    norm = model.get_submodule(source)
    return (
        ""
        if _weight_scales_output(norm, trace.samples[source])
        else f"the weight of a {type(norm).__name__} does not scale its output"
    )


class _Trace(TorchFunctionMode):
    """Follows the outputs of norms and linears; see the file."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        named = {name: module for name, module in model.named_modules() if name}
        self.linears = {name for name, module in named.items() if type(module) in (nn.Linear, Conv1D)}
        self.values: dict[int, _Value] = {}
        self.readers: dict[str, dict[str, None]] = {}
        self.blocked: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self.samples: dict[str, Tensor] = {}
        self._inside: list[str] = []
        self._handles: list[Any] = []
        for name, module in named.items():
            if name in self.linears:
                self._handles.append(module.register_forward_pre_hook(self._enter(name)))
                self._handles.append(module.register_forward_hook(self._leave(name), always_call=True))
            elif _is_norm(module):
                self._handles.append(module.register_forward_hook(self._leave(name)))

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def block(self, source: str, reason: str) -> None:
        """Rule a source out; the first reason counts."""
        self.blocked.setdefault(source, reason)

    def _enter(self, name: str) -> Any:
        return lambda module, inputs: self._inside.append(name)

    def _leave(self, name: str) -> Any:
        def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self.calls[name] += 1
            if name in self.linears:
                self._inside.pop()
            elif isinstance(output, Tensor) and inputs:
                with DisableTorchFunction():
                    self.samples[name] = inputs[0].reshape(-1, inputs[0].shape[-1])[:SAMPLE].clone()
            if isinstance(output, Tensor):
                self.readers.setdefault(name, {})
                with DisableTorchFunction():
                    self.values[id(output)] = _Value(output, name, "rows", output.shape[-1])

        return leave

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        with DisableTorchFunction():
            for tensor in {id(t): t for t in tensors_of((args, kwargs))}.values():
                if id(tensor) in self.values and not is_metadata(func):
                    self._read(func, self.values[id(tensor)], args, kwargs, output)
        return output

    def _read(self, func: Any, value: _Value, args: Any, kwargs: Any, output: Any) -> None:
        if self._inside:
            if value.layout == "rows":
                self.readers[value.source][self._inside[-1]] = None
            else:
                self.block(value.source, f"{self._inside[-1]} reads it head by head")
            return
        layout = follow(func, value.tensor, value.layout, value.channels, args, kwargs, output)
        if layout is None:
            self.block(value.source, f"its output is also read by {getattr(func, '__name__', func)}")
            return
        earlier = self.values.get(id(output))
        if earlier is not None and earlier.source != value.source:
            self.block(value.source, f"its output is mixed with that of {earlier.source}")
            return
        self.values[id(output)] = _Value(output, value.source, layout, value.channels)


@dataclass(frozen=True)
class _Value:
    """A tensor (kept, so that its id stays its own) that carries the channels of `source`, in a layout of `layouts.py`."""

    tensor: Tensor
    source: str
    layout: str
    channels: int


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_of(item)


def _is_norm(module: nn.Module) -> bool:
    """A module named a norm with one weight, and perhaps a bias, per channel; whether it scales is tried on real inputs."""
    parameters = dict(module.named_parameters())
    one_axis = all(p.dim() == 1 for p in parameters.values()) and len({p.numel() for p in parameters.values()}) == 1
    named = "norm" in type(module).__name__.lower()
    return named and one_axis and set(parameters) in ({"weight"}, {"weight", "bias"})


def _weight_scales_output(norm: nn.Module, x: Tensor) -> bool:
    """Whether weight and bias times s give the output times s. Powers of two change no rounding; Gemma's `1 + weight` fails."""
    factors = torch.tensor([0.5, 1.0, 2.0])[torch.arange(x.shape[-1]) % 3]
    parameters = list(norm.parameters())
    if parameters[0].numel() != x.shape[-1]:
        return False
    with torch.no_grad():
        before = norm(x)
        kept = [p.detach().clone() for p in parameters]
        try:
            for parameter in parameters:
                parameter.mul_(factors)
            return torch.allclose(norm(x), before * factors, rtol=1e-5, atol=0.0)
        finally:
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


def _sharing_modules(model: nn.Module) -> set[str]:
    """Names of modules that hold a parameter which another module holds too."""
    holders: dict[int, set[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), set()).add(name)
    return {name for names in holders.values() if len(names) > 1 for name in names}
