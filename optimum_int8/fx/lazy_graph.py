"""A graph whose Python is written where it is run, not after each change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx


class SharedGraph:
    """A graph for several modules that hold tensors and modules of the same names. Its nodes and its Python are there once."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = copy_graph(graph)
        self._forward: Callable[..., Any] | None = None

    def bind(self, held: Mapping[str, Any]) -> LazyGraph:
        """A module that runs the graph; nobody may change it."""
        made = LazyGraph(dict(held), self.graph)
        made.shared = self
        self.graph.owning_module = None  # it would be kept alive, with its tensors
        return made

    def forward_of(self, graph_module: LazyGraph) -> Callable[..., Any]:
        """The function that runs the graph of any of the modules."""
        if self._forward is None:
            fx.GraphModule.recompile(graph_module)
            self._forward = type(graph_module).forward
        return self._forward


def copy_graph(graph: fx.Graph) -> fx.Graph:
    """A graph that belongs to no module, without what fx keeps of nodes that were erased."""
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph, {}))
    return copy


class LazyGraph(fx.GraphModule):
    """A graph with its tensors and modules, whose Python is written when it is run for the first time, if ever: a program needs none."""

    shared: SharedGraph | None = None

    def recompile(self) -> Any:
        """Note that the Python is not that of the graph, nor that of others."""
        self.shared = None
        type(self).forward = LazyGraph.forward  # type: ignore[method-assign]  # each graph has a class of its own

    def forward(self, *args: Any) -> Any:
        """The graph's first run. Whoever holds this method may have put another one in its place."""
        if self.shared is None:
            fx.GraphModule.recompile(self)
        else:
            type(self).forward = self.shared.forward_of(self)  # type: ignore[method-assign]
        return type(self).forward(self, *args)

    @property
    def code(self) -> str:
        """The Python."""
        if type(self).forward is LazyGraph.forward or "_code" not in vars(self):
            fx.GraphModule.recompile(self)
        return super().code

    def __str__(self) -> str:
        return super().__str__() if self.code else ""

    def __reduce__(self) -> Any:
        return fx.GraphModule(self, self.graph).__reduce__()
