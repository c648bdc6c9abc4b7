"""What passes found out from the tensors of a module, so that what they made of its graph can be made for a sibling without running them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

_RECIPE = "recipe"
MOVED = "moved"
"""Keys in a graph's `meta`. The second: pairs of addresses of tensors that its passes gave another storage, with the same values, before
and after."""

Moved = list[tuple[int, int]]


class Derived(NamedTuple):
    """A tensor that a pass computed from others of the graph, by their names."""

    name: str
    compute: Callable[..., Tensor]
    sources: tuple[str, ...]


class Compared(NamedTuple):
    """Two tensors of the graph of which a pass asked whether they are equal, and the answer."""

    first: str
    second: str
    equal: bool


@dataclass
class Recipe:
    """In order, each use that passes made of the values of a graph's tensors.

    Attributes:
        is_complete: whether that is all of it. A pass that looked at a tensor in another way (`rewrite.tensor_of`) may have decided anything.
    """

    steps: list[Derived | Compared] = field(default_factory=list)
    is_complete: bool = True

    @classmethod
    def of(cls, graph_module: fx.GraphModule) -> Recipe:
        """That of a graph; it begins with the first pass."""
        found: Recipe = graph_module.meta.setdefault(_RECIPE, cls())
        return found

    def follow(self, tensors: Mapping[str, Any]) -> tuple[dict[str, Any], Moved] | None:
        """The tensors that the passes would have had with others to begin with, and what moved; None where they would have decided otherwise.

        Args:
            tensors: by name, those of the captured graph.
        """
        found = dict(tensors)
        moved: Moved = []
        for step in self.steps:
            if isinstance(step, Compared):
                if same_values(found[step.first], found[step.second]) is not step.equal:
                    return None
                continue
            found[step.name], more = derive(step.compute, [found[name] for name in step.sources])
            moved += more
        return found, moved


def derive(compute: Callable[..., Tensor], sources: Sequence[Tensor]) -> tuple[Tensor, Moved]:
    """A tensor from others, and which of those have another storage then."""
    before = [source.data_ptr() for source in sources]
    made = compute(*sources)
    after = [source.data_ptr() for source in sources]
    return made, [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal in shape, dtype and every value."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a, b))
