"""`Int8Embedding`: `nn.Embedding` and its subclasses with an int8 table, one scale per row."""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .table import Int8Table
from .weight import resized


class Int8Embedding(Int8Table, nn.Embedding):
    """Rows of an int8 table, each times its row's scale, as `dtype`, which follows `.to(dtype)` as a float table's would.

    Standing before `nn.Embedding` in the order of bases, it is what `super().forward` of a subclass finds: `like` makes
    an INT8 counterpart of a scaled or a shifted table that keeps its class and its own forward.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        nn.Module.__init__(self)  # that of nn.Embedding draws a float table
        self._hold_table(num_embeddings, embedding_dim, padding_idx, dtype)

    @classmethod
    def like(cls, module: nn.Embedding) -> Int8Embedding:
        """An INT8 table without values in the place of `module`, with its settings; of its class, if that is a subclass."""
        new = cls(module.num_embeddings, module.embedding_dim, module.padding_idx, module.weight.dtype)
        if type(module) is not nn.Embedding:
            vars(new).update({name: value for name, value in vars(module).items() if name not in vars(new)})
            new._modules.update(module._modules)
            new.__class__ = _int8_class(type(module))  # type: ignore[arg-type]
        return new.train(module.training)

    def share(self, other: Int8Embedding) -> None:
        """Use the table of `other` from now on: tied tables are one."""
        self.assign(other.quantized_weight(), other.weight_scale)

    def resize(self, weight: Tensor) -> None:
        """Take the size of a float table `[rows, dim]`, and the values of the new rows; the others keep their INT8 values."""
        q, scale = resized(self.quantized_weight().squeeze(-1), self.weight_scale, weight)
        self.assign(q.unsqueeze(-1), scale)

    def assign(self, q: Tensor, scale: Tensor) -> None:
        """Replace the table by int8 `[rows, dim, 1]` with its scales."""
        self.release()
        self._hold(q)
        self.weight_scale = scale
        self.num_embeddings = len(q)
        self.finish_loading()

    def forward(self, input: Tensor) -> Tensor:
        """See the class."""
        return torch.ops.optimum_int8.embedding(input, self.int8_weight, self.weight_scale).to(self.dtype)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


def embedding_obstacle(module: nn.Embedding) -> str:
    """Why an INT8 module in place of `module` could not keep its forward, or nothing."""
    cls = type(module)
    if module.max_norm is not None:
        return "max_norm changes the table while reading it"
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if cls is not nn.Embedding and len(own) > 1:
        return f"{cls.__name__} holds tensors besides its table"
    forwards = [
        base.__dict__["forward"]
        for base in cls.__mro__[: cls.__mro__.index(nn.Embedding)]
        if "forward" in base.__dict__
    ]
    if not all(_reads_through_super(function) for function in forwards):
        return f"{cls.__name__} is an Embedding with a forward of its own that reads its table itself"
    return ""


def _reads_through_super(function: Callable[..., Any]) -> bool:
    """Whether a forward reads the table by `super().forward` only; it may ask the weight for its device."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None or not {"super", "forward"} <= set(code.co_names):
        return False
    return not any(_values_read(code))


def _values_read(code: types.CodeType) -> Iterator[object]:
    """What stands before each `.weight` in the code of a function, except where only `.weight.device` is asked for."""
    names = [step.argval for step in dis.get_instructions(code) if step.opname not in ("CACHE", "PRECALL")]
    for i, name in enumerate(names):
        if name == "weight" and names[i + 1 : i + 2] != ["device"]:
            yield names[i - 1] or "weight"


@functools.cache
def tables_read_directly(parent: type[nn.Module]) -> frozenset[object]:
    """Names of the children whose `.weight` the methods of a module class read themselves (DeBERTa's relative positions)."""
    functions = {
        n: f
        for base in reversed(parent.__mro__)
        if issubclass(base, nn.Module)
        for n, f in vars(base).items()
        if n[0] != "_"
    }
    codes = [getattr(inspect.unwrap(f), "__code__", None) for f in functions.values() if callable(f)]
    return frozenset(name for code in codes if code is not None for name in _values_read(code))


@functools.cache
def _int8_class(base: type[nn.Embedding]) -> type[Int8Embedding]:
    """`base` on an int8 table. One class per base, so that copies compare equal in type."""
    members = {"__module__": __name__, "__doc__": base.__doc__, "__reduce_ex__": _reduce}
    return type(f"Int8{base.__name__}", (base, Int8Embedding), members)


def _reduce(self: Int8Embedding, protocol: int) -> tuple[Any, ...]:
    """Copies and pickles name the class by its base: it is not an attribute of any module."""
    return _blank, (type(self).__bases__[0],), vars(self)


def _blank(base: type[nn.Embedding]) -> Int8Embedding:
    cls = _int8_class(base)  # type: ignore[arg-type]
    return cls.__new__(cls)
