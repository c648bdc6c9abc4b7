"""Which op of a recipe is which op of a model."""

from __future__ import annotations

from ..sites import recipe_traits
from .op import Op
from .record import Recording, Seen

WITHOUT_PRODUCTS = (
    "relu", "relu_", "gelu", "sigmoid", "tanh", "hardswish", "leaky_relu", "dropout", "flatten", "interpolate", "upsample_nearest2d",
    "max_pool2d", "batch_norm", "layernorm", "layer_norm", "softmax", "permute", "view",
)  # fmt: skip
"""Ops without a multiplication that Intel Extension for PyTorch lists too. They follow the ops around them."""

_OTHER_NAMES = {"bmm": "matmul", "add_": "add", "embedding_bag": "embedding"}


def match(ops: list[Op], found: Recording) -> dict[str, Op]:
    """Recipe by site name, for the ops that the model ran.

    An op with a `module` is matched by it, one with an `owner` by name and order in that module; the ops of a file of Intel Extension for
    PyTorch 1.x by name and order.

    Raises:
        ConfigError: an op that the model does not have, and an edit that cannot be done: with the line.
    """
    if any(op.module is None and op.owner is None for op in ops):
        matched = _by_order(ops, list(found.seen.values()))
    else:
        matched = {}
        for owner in dict.fromkeys(op.owner for op in ops if op.owner is not None):
            inside = [seen for seen in found.seen.values() if seen.site.functional and _owner(seen, found) == owner]
            matched |= _by_order([op for op in ops if op.owner == owner], inside)
        for op in ops:
            if op.module is None:
                continue
            seen = found.seen.get(op.module)
            if seen is None and op.is_quantized and op.module not in _names(found):
                raise op.refuse("module", op.module, "the qualified name of a module of this model")
            if seen is not None:
                matched[seen.site.name] = op
    for name, op in matched.items():
        _check(op, found.seen[name])
    return matched


def _names(found: Recording) -> set[str]:
    return set() if found.sites is None else set(found.sites.names.values())


def _owner(seen: Seen, found: Recording) -> str:
    """The module that a function belongs to: the longest name of one that its own begins with."""
    path = seen.site.name
    names = _names(found)
    while path and path not in names:
        path = path.rpartition(".")[0]
    return path


def _by_order(ops: list[Op], rest: list[Seen]) -> dict[str, Op]:
    matched = {}
    for op in ops:
        name = _OTHER_NAMES.get(op.name, op.name)
        if name in WITHOUT_PRODUCTS:
            continue
        place = next((i for i, seen in enumerate(rest) if seen.site.op == name), None)
        if place is None and op.is_quantized and not recipe_traits(name).optional:
            raise op.refuse("name", op.name, f"an op that comes here in this model; none called {name!r} is left")
        if place is not None:
            matched[rest.pop(place).site.name] = op
    return matched


def _check(op: Op, seen: Seen) -> None:
    if op.module is not None and op.name != seen.site.op:
        raise op.refuse("name", op.name, f"{seen.site.op!r}, which {seen.site.name!r} is")
    if not op.is_quantized:
        return
    if seen.site.why_not:
        raise op.refuse("inputs_quantized", op.inputs_quantized, f"false: {seen.site.why_not}")
    count = max(len(seen.inputs), 1)
    if len(op.inputs_quantized) != count:
        raise op.refuse("inputs_quantized", op.inputs_quantized, f"{count} values, one for each input")
    traits = recipe_traits(seen.site.op)
    if not traits.mixes_inputs and not all(op.inputs_quantized):
        raise op.refuse("inputs_quantized", op.inputs_quantized, "all true or all false: INT8 multiplies INT8")
    dtypes = op.input_quantized_dtypes
    if any(dtypes[place : place + 1] != ["int8"] for place in traits.symmetric_inputs):
        raise op.refuse("input_quantized_dtypes", dtypes, traits.symmetric_expected)
    if seen.inputs and len(op.input_scales) != count:
        raise op.refuse("input_scales", op.input_scales, f"{count} values; calibrate with this file")
    if op.module is not None and any(op.outputs_quantized) and not op.output_quantized:
        expected = "false: a result is rounded by the op that reads it; set its inputs_quantized"
        raise op.refuse("outputs_quantized", op.outputs_quantized, expected)
    if len(op.weight_scales) == 1 and seen.site.weight is not None and recipe_traits(op.name).lists_weight_scales:
        rows = seen.site.weight.shape[0]
        if len(op.weight_scales[0]) not in (1, rows):
            raise op.refuse(
                "weight_scales", [f"{len(op.weight_scales[0])} scales"], f"1 or {rows}, one for each output channel"
            )
