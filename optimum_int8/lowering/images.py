"""Lowering of images: consecutive operators on `[batch, height, width, channels]` become one spatial program.

The sizes of the values follow from those of the inputs, so a program is built for each size of image that comes, at its first call.
"""

from __future__ import annotations

import functools
import operator as python_operator
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import KernelError
from ..fx.rewrite import attribute, is_call
from ..fx.roles import broadcasts
from ..kernels import as_rows, empty_rows
from ..kernels.emission import KeptRows, Rows, row_bytes
from ..kernels.program import Program
from ..operators import IMAGES, Operator, operator_of
from .plan import Plan, Reference, Step, emit_steps, plan, read_constants, references_in
from .program_call import ProgramCall
from .replace import replace_segment
from .segments import Segment, segments

_MOST_SIZES = 16
_CHAINED = 2
"""Steps for which a value that nobody reads any more keeps its place: steps that are computed together (csrc/ops/conv_chain.h) may still."""


def lower_images(graph_module: fx.GraphModule) -> int:
    """Needs: operators in their final form. Leaves: consecutive operators on images as spatial programs. Preserves: bits."""
    found = [s for s in segments(graph_module, ImageDomain()) if any(_only_on_images(node) for node in s.nodes)]
    for count, segment in enumerate(found):
        made = plan(graph_module, segment, releases_items=True)
        inputs = [given.node for given in made.inputs]
        constants = read_constants(made.steps, functools.partial(attribute, graph_module))
        replace_segment(graph_module, segment, f"images_{count}", ImagesCall(made, constants), inputs, made.results)
    return len(found)


def _only_on_images(node: fx.Node) -> bool:
    operator = operator_of(node.target)
    return operator is not None and operator.domains == (IMAGES,)


class ImageDomain:
    """Programs that compute images; their values have sizes of their own."""

    name = IMAGES

    def lead(self, graph_module: fx.GraphModule, node: fx.Node, operator: Operator) -> tuple[Any, ...] | None:
        """See `Domain`."""
        if broadcasts(node):
            return None
        value = node.meta["val"]
        first = value[0] if isinstance(value, tuple) else value
        source = node.all_input_nodes[0].meta["val"]
        return () if len(first.shape) == 4 and source.dtype in (torch.float32, torch.uint8) else None

    def joins(self, segment: Segment, node: fx.Node, operator: Operator) -> bool:
        """See `Domain`."""
        return True

    def is_alias(self, node: fx.Node) -> bool:
        """See `Domain`: an item of several results."""
        return is_call(node, python_operator.getitem)


class _Emission:
    """An `ImageEmission` into a spatial program, whose results are local unless the graph outside needs them."""

    def __init__(self) -> None:
        self.program = Program(spatial=True)
        self.keys = 1
        self.size = (0, 0)
        self.external: list[bool] = []  # of the next results

    def keep(self, rows: Rows, heads: int, scale: Tensor | None) -> KeptRows | None:
        """None: images have no cache."""
        return None

    def is_outside(self, rows: Rows) -> bool:
        """Nothing is."""
        return False

    def new(self, columns: int, dtype: torch.dtype, after: Rows | None = None) -> Rows:
        """A value of `size`, never `after` others. Local images of bytes have no gaps: a row of a kernel is then one span of memory."""
        outside = self.external.pop(0)
        pixels = self.size[0] * self.size[1]
        if outside:
            return Rows(self.program.external(row_bytes(columns, dtype), rows=pixels), columns, dtype, size=self.size)
        value = self.program.local(columns * dtype.itemsize, pixels)
        return Rows(value, columns, dtype, size=self.size)


class ImagesCall(ProgramCall):
    """Spatial programs as a node, one for each size of the inputs; takes them channels-last, allocates and returns the results."""

    def __init__(self, made: Plan, constants: dict[str, Tensor]) -> None:
        torch.nn.Module.__init__(self)
        self.steps = made.steps
        self.constants = constants
        self.results = [result.reference.whole for result in made.results]
        self.built: dict[tuple[Any, ...], tuple[Program, list[Rows]]] = {}

    @property
    def program(self) -> list[Step]:  # type: ignore[override]
        """What `inspect` counts."""
        return self.steps

    @property
    def built_programs(self) -> list[Program]:
        """See `ProgramCall`."""
        return [program for program, _ in list(self.built.values())]

    def forward(self, *tensors: Tensor) -> Any:
        """See the class."""
        inputs = [as_rows(t) for t in tensors]
        if any(0 in t.shape[1:] for t in inputs):
            raise KernelError("an image without pixels or channels; expected at least one of each")
        key = tuple([t.shape[1:] for t in inputs])
        known = self.built.get(key)
        program, outputs = known or self._build(key, inputs)
        batch = inputs[0].shape[0]
        results = [empty_rows((batch, *r.size), r.columns, r.dtype) for r in outputs]
        program.run(batch, 1, inputs + results)
        return results[0] if len(results) == 1 else tuple(results)

    def _build(self, key: tuple[Any, ...], inputs: list[Tensor]) -> tuple[Program, list[Rows]]:
        emission = _Emission()
        values: dict[Reference, Rows] = {}
        for position, tensor in enumerate(inputs):
            size = (tensor.shape[1], tensor.shape[2])
            columns = tensor.shape[3]
            value = emission.program.external(row_bytes(columns, tensor.dtype), rows=size[0] * size[1])
            values[Reference(-1, position)] = Rows(value, columns, tensor.dtype, size=size)

        def before(step: Step, known: dict[Reference, Rows]) -> None:
            emission.size = known[next(references_in(step.arguments)).whole].size
            emission.external = list(step.external)

        emit_steps(self.steps, values, emission, before, _CHAINED, self.constants)
        if len(self.built) >= _MOST_SIZES:
            self.built.pop(next(iter(self.built)))
        self.built[key] = emission.program, [values[result] for result in self.results]
        return self.built[key]

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{len(self.steps)} instructions, {len(self.built)} sizes"
