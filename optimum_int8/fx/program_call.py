"""A native program as a node of a graph."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, fx

from ..kernels import as_rows, empty_rows
from ..kernels.emit import Rows
from ..kernels.program import Program

compute_padding: ContextVar[bool] = ContextVar("compute_padding", default=False)
"""Set while a compiled block is compared with its module: padding is computed too, as the module does."""


class ProgramCall(torch.nn.Module):
    """A program as a node: takes its input tensors (and the attention mask last), allocates and returns its results.

    Args:
        squeezed: of each result, whether its one column is no axis of the tensor.
        whole: an input that has all leading axes, and whether it has no axis besides them (ids).
        keys: an input of the keys' length, where they have one of their own (they come from a cache, or from the encoder); else None.
    """

    def __init__(
        self,
        program: Program,
        outputs: list[Rows],
        squeezed: list[bool],
        has_mask: bool,
        whole: tuple[int, bool],
        keys: int | None = None,
    ) -> None:
        super().__init__()
        self.program, self.outputs, self.squeezed = program, outputs, squeezed
        self.has_mask, self.whole, self.keys = has_mask, whole, keys

    def forward(self, *tensors: Any) -> Any:
        """See the class."""
        mask = tensors[-1] if self.has_mask else None
        inputs = [as_rows(t) for t in (tensors[:-1] if self.has_mask else tensors)]
        position, is_ids = self.whole
        lead = inputs[position].shape if is_ids else inputs[position].shape[:-1]
        results = [empty_rows(lead, r.columns, r.dtype) for r in self.outputs]
        length = lead[1] if len(lead) == 2 else lead.numel()
        key_length = None if self.keys is None else inputs[self.keys].shape[1]
        skip = mask is not None and key_length is None and not compute_padding.get()
        self.program.run(lead[0] if len(lead) == 2 else 1, length, inputs + results, mask, key_length, skip)
        results = [t.squeeze(-1) if s else t for t, s in zip(results, self.squeezed, strict=True)]
        return results[0] if len(results) == 1 else tuple(results)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{len(self.program)} instructions"


def whole_program(graph_module: fx.GraphModule) -> Callable[[list[Tensor]], Any] | None:
    """A graph that is nothing but one program with one result, as a function of the call's tensors: saves running the graph."""
    nodes = [n for n in graph_module.graph.nodes if n.op != "placeholder"]
    places = {n: i for i, n in enumerate(graph_module.graph.find_nodes(op="placeholder"))}
    if [n.op for n in nodes] != ["call_module", "output"] or nodes[1].args[0] != (nodes[0],):
        return None
    call = graph_module.get_submodule(nodes[0].target)
    if not isinstance(call, ProgramCall) or not all(a in places for a in nodes[0].args):
        return None
    order = [places[a] for a in nodes[0].args]
    return lambda tensors: call.forward(*[tensors[i] for i in order])


def runs_natively(graph_module: fx.GraphModule) -> int:
    """Instructions that the programs of a lowered graph hold."""
    return sum(len(m.program) for m in graph_module.modules() if isinstance(m, ProgramCall))
