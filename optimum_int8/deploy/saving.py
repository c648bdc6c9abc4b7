"""`save`: an INT8 model as one exported graph with dynamic batch and length."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from .._version import __version__
from ..errors import CheckpointError, QuantizationError
from ..fx import (
    ROUNDING,
    Block,
    NotCapturable,
    agree,
    flatten,
    other_shapes,
    quiet,
    rebuild,
    rebuild_output,
    stand_ins,
)
from ..nn import Int8Module
from ..passes import REWRITES, find_blocks, run_passes
from ..torch_private import tree_flatten, tree_leaves, tree_unflatten
from .format import EXTRA, FORMAT_NAME, FORMAT_VERSION
from .loading import lowered
from .sizes import Sizes, sizes_of, try_small

_STORED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
_ROUNDS = 8
"""Calls after which every block has been captured or has given way to smaller ones: models nest less deeply."""


class Save:
    """`model.save(path)` of a converted model: it remembers the example. Copies and pickles with its model."""

    def __init__(self, model: nn.Module, example_input: Any) -> None:
        self.model = model
        self.example_input = example_input

    def __call__(self, path: str | os.PathLike[str]) -> None:
        """See `save`."""
        save(self.model, path, self.example_input)


def save(model: nn.Module, path: str | os.PathLike[str], example_input: Any) -> None:
    """Write an INT8 model as a `.pt2`, which `load` runs without the model's source, with the same outputs to the bit.

    The file holds what the model's blocks compute after fine-grained FX, as operators of torch and of `torch.ops.optimum_int8`. Batch and
    length are dynamic where the model allows it. Python in the model that depends on sizes takes the branch that the example takes, and
    the loaded module refuses other sizes. Python that depends on values cannot be exported.

    Args:
        path: ends in `.pt2`; written complete or not at all.
        example_input: arguments of one call: a mapping of keyword arguments, a tuple of positional ones, or one tensor.

    Raises:
        QuantizationError: the model is not INT8, or cannot be exported: with the reason of torch.export.
        CheckpointError: the path does not end in `.pt2`, or the disk refuses.
    """
    target = Path(path)
    if target.suffix != ".pt2":
        raise CheckpointError(f"the name {target.name!r} does not end in .pt2; expected one that does")
    if not any(isinstance(module, Int8Module) for module in model.modules()):
        raise QuantizationError(f"this {type(model).__name__} has no INT8 module; quantize or convert it first")
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        exported, sizes = _export(model, example_input)
    finally:
        for module, mode in modes.items():
            module.training = mode
    _write(exported, sizes, target, type(model).__name__)


def _export(model: nn.Module, example_input: Any) -> tuple[ExportedProgram, Sizes]:
    """At a larger batch and length than the example's, so that both are dynamic; at its own, where the model refuses that or takes
    another branch."""
    if isinstance(example_input, Mapping):
        args = ()
        kwargs = dict(example_input)
    else:
        args = tuple(example_input) if isinstance(example_input, (tuple, list)) else (example_input,)
        kwargs = {}
    try:
        key, tensors = flatten(args, kwargs)
    except NotCapturable as reason:
        raise QuantizationError(
            f"this example cannot be exported: {reason}; expected tensors and plain values"
        ) from reason
    image = tuple(tensors[0].shape[2:]) if tensors[0].dim() == 4 and tensors[0].is_floating_point() else ()
    attempts = [other_shapes(tensors, image)] if image else []
    attempts.append(other_shapes(tensors))
    attempts += [(tensors, shapes) for _, shapes in attempts]  # where the larger sizes take another branch
    attempts.append((tensors, [{} for _ in tensors]))
    failure: Exception | None = None
    for example, shapes in attempts:
        try:
            exported = _export_at(model, key, example, shapes)
            sizes = sizes_of(exported)
            sizes.check(tree_leaves(rebuild(key, tensors)), small=False)
            _drop_traces(exported)
            _try_small(model, exported, sizes, rebuild(key, tensors), tree_leaves(rebuild(key, example)))
            return exported, sizes
        except Exception as error:  # torch.export and the model at another size raise many kinds
            failure = failure or error
    raise QuantizationError(f"{type(model).__name__} cannot be exported: {failure}") from failure


def _export_at(model: nn.Module, key: Any, tensors: list[Tensor], shapes: list[dict[int, Any]]) -> ExportedProgram:
    args, kwargs = rebuild(key, tensors)
    spec_args, spec_kwargs = rebuild(key, shapes)  # type: ignore[arg-type]
    dynamic: Any = {name: _spec(s) for name, s in spec_kwargs.items()} if kwargs else tuple(_spec(s) for s in spec_args)
    with torch.no_grad(), quiet():
        _capture_blocks(model, args, kwargs)
        for _ in range(_ROUNDS):
            operators = {name: Operators(block) for name, block in find_blocks(model).items()}
            exported = _trace(model, tuple(args), kwargs, dynamic, operators)
            unknown = [o for o in operators.values() if o.unknown]
            for o in unknown:
                o.capture_unknown()
            if not unknown:
                break
    _drop_unused(exported)
    return exported


def _try_small(model: nn.Module, exported: ExportedProgram, sizes: Sizes, call: Any, larger: list[Any]) -> None:
    """Compare program and model where sizes are 1 or 0, of which `torch.export` assumes nothing that it writes down."""
    leaves, structure = tree_flatten(call)
    program = lowered(exported)

    def agrees(arguments: list[Any]) -> bool:
        args, kwargs = tree_unflatten(arguments, structure)
        found = tree_leaves(program(*args, **kwargs))
        expected = tree_leaves(model(*args, **kwargs))
        return agree(found, expected) or agree(found, expected, ROUNDING)

    with torch.no_grad():
        try_small(sizes, leaves, larger, agrees)


def _trace(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic: Any, operators: Mapping[str, Operators]
) -> ExportedProgram:
    token = stand_ins.set(operators)
    try:
        return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic, strict=False)
    finally:
        stand_ins.reset(token)


def _spec(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    return [_spec(item) for item in value] if isinstance(value, (tuple, list)) else None


def _capture_blocks(model: nn.Module, args: Any, kwargs: Any) -> None:
    known: dict[str, int] = {}
    for _ in range(_ROUNDS):
        model(*args, **kwargs)
        found = {name: len(block.variants) for name, block in find_blocks(model).items()}
        if found == known or all(found.values()):
            return
        known = found


class Operators:
    """What a block computes once its graphs are rewritten, operator by operator, which `torch.export` can see.

    Traced, Transformers asks for other variants of a block than in a call (a mask even where nothing is hidden); those it meets are
    `unknown` until `capture_unknown` has captured them on made-up values.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self.known: dict[Any, Any] = {}
        self.unknown: dict[Any, list[tuple[tuple[int, ...], torch.dtype]]] = {}
        for key in block.variants:
            bound = block.bound(key)
            self.known[key] = bound and (run_passes(bound[0], REWRITES), bound[1])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Trace a call."""
        try:
            key, tensors = flatten(args, kwargs)
        except NotCapturable:
            return self.block.original(*args, **kwargs)
        if self.known.get(key) is None or not self.block.holds(key, tensors):
            if key not in self.known and not self.block.opened:
                self.unknown[key] = [(tuple(_size(n) for n in x.shape), x.dtype) for x in tensors]
            return self.block.original(*args, **kwargs)
        graph, output = self.known[key]
        return rebuild_output(output, graph(*tensors))

    def capture_unknown(self) -> None:
        """Capture the variants that were met, as a first call does."""
        for key, shapes in self.unknown.items():
            tensors = [_values(shape, dtype) for shape, dtype in shapes]
            args, kwargs = rebuild(key, tensors)
            self.block(*args, **kwargs)


def _size(size: Any) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def _values(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return torch.ones(shape, dtype=dtype)


def _drop_unused(exported: ExportedProgram) -> None:
    """Weights that nothing reads: the modules' own, where a block holds them merged."""
    nodes = {node.name: node for node in exported.graph.find_nodes(op="placeholder")}
    specs = exported.graph_signature.input_specs
    for spec in [s for s in specs if s.kind in _STORED and not nodes[s.arg.name].users]:
        exported.graph.erase_node(nodes[spec.arg.name])
        specs.remove(spec)
    kept = {spec.target for spec in specs}
    for table in (exported.state_dict, exported.constants):
        for name in [name for name, value in table.items() if isinstance(value, Tensor) and name not in kept]:
            del table[name]
    exported.graph_module.recompile()


def _drop_traces(exported: ExportedProgram) -> None:
    """What has no place in the file: the user's data, lines and paths of the source, and guards, which torch keeps as code; `Sizes` holds them as data."""
    exported.example_inputs = None
    exported._guards_code = []
    for node in exported.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
            node.meta.pop(key, None)


def _write(exported: ExportedProgram, sizes: Sizes, target: Path, model: str) -> None:
    about = {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "model": model,
        "torch": torch.__version__,
        "optimum_int8": __version__,
        "sizes": sizes.to_json(),
    }
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.absolute().parent) as folder:
            scratch = Path(folder) / target.name  # the archive repeats its name inside
            torch.export.save(exported, scratch, extra_files={EXTRA: json.dumps(about)})
            scratch.replace(target)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"cannot save to {str(target)!r}: {error}") from error
