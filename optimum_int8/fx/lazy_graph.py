"""A graph whose Python is written where it is run, not after each change."""

from __future__ import annotations

from typing import Any

from torch import fx


class LazyGraph(fx.GraphModule):
    """A graph with its tensors and modules, whose Python is written when it is run for the first time, if ever: a program needs none."""

    def recompile(self) -> Any:
        """Note that the Python is not that of the graph."""
        type(self).forward = LazyGraph.forward  # type: ignore[method-assign]  # each graph has a class of its own

    def forward(self, *args: Any) -> Any:
        """The graph's first run. Whoever holds this method may have put another one in its place."""
        fx.GraphModule.recompile(self)
        return type(self).forward(self, *args)

    @property
    def code(self) -> str:
        """The Python."""
        if type(self).forward is LazyGraph.forward:
            fx.GraphModule.recompile(self)
        return super().code

    def __str__(self) -> str:
        return super().__str__() if self.code else ""

    def __reduce__(self) -> Any:
        return fx.GraphModule(self, self.graph).__reduce__()
