"""Calls of `torch.matmul`, `torch.add` and `torch.cat` in a module's own code: sites of recipes, by the place of the call."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from ..config import Int8Config
from ..errors import CheckpointError
from ..nn.base import Int8Module
from ..nn.call_modules import ADD, CAT, INT8_CALLS, MATMUL, FloatCall, Int8Call
from .functional.call_place import source_line
from .kind import SiteKind
from .settings import Quantization, RecipeEntry, RecipeTraits, Storage

_CALL_NAME = re.compile(rf"({'|'.join(INT8_CALLS)})(_-?\d+)+[a-z]?")


_RECIPES = {
    MATMUL: RecipeTraits(
        ops=(MATMUL,),
        symmetric_inputs=(1,),
        symmetric_expected="int8 for the second input of a matmul",
        float_by_default=True,
    ),
    ADD: RecipeTraits(ops=(ADD, "add_"), float_by_default=True, mixes_inputs=True, rounds_output=True, optional=True),
    CAT: RecipeTraits(ops=(CAT,), float_by_default=True, mixes_inputs=True, rounds_output=True, optional=True),
}
"""A sum or a concatenation saves no multiplication, and an INT8 step there changes all that follows; a product of two activations, which
both must be quantized and packed at each call, is slower than in float32: a fresh recipe leaves them in FP32."""


class CallKind(SiteKind[FloatCall]):
    """One torch function of two or more activations.

    Args:
        op: its name in `torch`, and that of the kind.
    """

    inputs = ()
    needs_ranges = False

    def __init__(self, op: str) -> None:
        self.name = op
        self.recipe = _RECIPES[op]

    def matches(self, module: nn.Module, config: Int8Config) -> bool:
        """See `SiteKind`."""
        return isinstance(module, FloatCall) and module.op == self.name

    def from_float(self, module: FloatCall, how: Quantization) -> Int8Module:
        """Not from ranges: a recipe says which inputs are INT8."""
        raise NotImplementedError(f"a call of {self.name} is made by a recipe")

    def empty(self, module: nn.Module, how: Storage) -> Int8Call | None:
        """See `SiteKind`."""
        if how.about is None:
            return None
        return INT8_CALLS[self.name](how.about["inputs_quantized"], how.about.get("output_quantized", False))

    def describe(self, model: nn.Module, name: str) -> dict[str, Any]:
        """The line of the call, and what of it is INT8."""
        path, _, leaf = name.rpartition(".")
        parent = model.get_submodule(path) if path else model
        module: Any = parent._modules[leaf]
        found = {"op": self.name, "source": source_line(type(parent).__bases__[0], leaf)}
        found["inputs_quantized"] = module.inputs_quantized
        return {**found, "output_quantized": True} if module.output_quantized else found

    def accepts_description(self, name: str, about: Mapping[str, Any] | None) -> bool:
        """See `SiteKind`."""
        if about is None or about.get("op") != self.name or not isinstance(about.get("source"), str):
            return False
        flags = about.get("inputs_quantized")
        rounds = about.get("output_quantized", False)
        if not isinstance(flags, list) or not all(type(flag) is bool for flag in flags) or type(rounds) is not bool:
            return False
        return _CALL_NAME.fullmatch(name.rpartition(".")[2]) is not None

    def check_source(self, model: nn.Module, described: Mapping[str, Mapping[str, Any]]) -> None:
        """Calls are found by their line in the source: refuse a model whose source is another one."""
        known = dict(model.named_modules())
        for name, about in described.items():
            path, _, leaf = name.rpartition(".")
            if path not in known:
                raise CheckpointError(f"the checkpoint has an INT8 call {name!r}, but the model has no module {path!r}")
            cls = type(known[path])
            found = source_line(cls, leaf)
            expected = about["source"]
            if found and expected and found != expected:
                raise CheckpointError(
                    f"the source of {cls.__name__}.forward has changed: where the checkpoint has the INT8 call {leaf!r} stands "
                    f"{found!r}; expected {expected!r}. Convert the model again"
                )

    def has_place(self, place: str, modules: Collection[str], tensors: Collection[str], described: bool) -> bool:
        """The module in whose code it is."""
        return place.rpartition(".")[0] in modules if described else place in modules

    def from_recipe(self, module: FloatCall, entry: RecipeEntry) -> Int8Call:
        """See `SiteKind`."""
        new = INT8_CALLS[self.name](entry.inputs_quantized, entry.output is not None)
        for i, quantized in enumerate(entry.inputs_quantized):
            if quantized:
                new.set_qparams(f"input{i}", *entry.inputs[i])
        if entry.output is not None:
            new.set_qparams("output", *entry.output)
        return new
