"""A compiled graph without its tensors, from which that of a sibling is made: no pass runs, and nothing is lowered again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from ..fx.lazy_graph import SharedGraph
from ..fx.recipe import MOVED, Recipe
from .program_call import ProgramCall, Rebuild


@dataclass(frozen=True)
class Template:
    """See `fx.compiler.Template`.

    Attributes:
        graph: the compiled graph.
        programs: its programs by name.
        recipe: what passes found out from the tensors.
    """

    graph: SharedGraph
    programs: dict[str, Rebuild]
    recipe: Recipe

    @classmethod
    def of(cls, compiled: fx.GraphModule) -> Template | None:
        """That of a graph; None where a pass may have decided something by values, or a module is no program on rows."""
        recipe = Recipe.of(compiled)
        calls = {
            str(n.target): compiled.get_submodule(str(n.target)) for n in compiled.graph.find_nodes(op="call_module")
        }
        programs = {n: call.rebuild for n, call in calls.items() if isinstance(call, ProgramCall) and call.rebuild}
        if not recipe.is_complete or len(programs) != len(calls):
            return None
        return cls(SharedGraph(compiled.graph), programs, recipe)

    def bind(self, tensors: Mapping[str, Any]) -> fx.GraphModule | None:
        """See `fx.compiler.Template`."""
        followed = self.recipe.follow(tensors)
        if followed is None:
            return None
        found, moved = followed
        held = {str(node.target): found[str(node.target)] for node in self.graph.graph.find_nodes(op="get_attr")}
        programs = {name: rebuild(found.__getitem__) for name, rebuild in self.programs.items()}
        compiled = self.graph.bind({**held, **programs})
        compiled.meta[MOVED] = moved
        return compiled
