"""Which operators of a graph become one program: those that a domain takes, that follow each other, with nothing between that reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import fx

from ..fx.rewrite import is_constant, named
from ..fx.roles import called
from ..operators import Operator

WEIGHTS = ("panels", "packed", "weight_sum", "weight_scale", "weight", "bias", "table", "row_scale")
"""Arguments that a program holds pointers to: they have to be tensors of the module."""


@dataclass
class Segment:
    """Operators that become one program, and nodes that only read a value of it in another way.

    Attributes:
        nodes, aliases: in the order of the graph; keys alone count.
        lead: leading axes of what the operators compute, as the domain tells them.
    """

    lead: tuple[Any, ...]
    nodes: dict[fx.Node, None] = field(default_factory=dict)
    aliases: dict[fx.Node, None] = field(default_factory=dict)

    def contains(self, node: Any) -> bool:
        """Whether the program computes `node`."""
        return node in self.nodes or node in self.aliases

    def ordered(self, graph: fx.Graph) -> list[fx.Node]:
        """Operators and aliases in the order of the graph."""
        return [node for node in graph.nodes if self.contains(node)]


class Domain(Protocol):
    """What tells programs on rows from programs on images."""

    name: str
    """`operators.ROWS` or `operators.IMAGES`."""

    def lead(self, graph_module: fx.GraphModule, node: fx.Node, operator: Operator) -> tuple[Any, ...] | None:
        """Leading axes of what `node` computes; None where it cannot be part of a program."""

    def joins(self, segment: Segment, node: fx.Node, operator: Operator) -> bool:
        """Whether `node`, of the segment's leading axes, can be part of the same program."""

    def is_alias(self, node: fx.Node) -> bool:
        """Whether a node only reads a value in another way, which a program does for nothing."""


def segments(graph_module: fx.GraphModule, domain: Domain) -> list[Segment]:
    """The segments of a graph, in order."""
    done: list[Segment] = []
    current: Segment | None = None
    for node in list(graph_module.graph.nodes):
        operator = called(node)
        lead = None
        if operator is not None and domain.name in operator.domains and _holds_weights(node):
            lead = domain.lead(graph_module, node, operator)
        if operator is not None and lead is not None:
            if current is not None and not (lead == current.lead and domain.joins(current, node, operator)):
                done.append(current)
                current = None
            current = current or Segment(lead)
            current.nodes[node] = None
        elif current is not None and domain.is_alias(node) and current.contains(node.args[0]):
            current.aliases[node] = None
        elif current is not None and any(current.contains(used) for used in node.all_input_nodes):
            done.append(current)
            current = None
    return done if current is None else [*done, current]


def _holds_weights(node: fx.Node) -> bool:
    given = named(node)
    return all(given[name] is None or is_constant(given[name]) for name in WEIGHTS if name in given)


def is_value(graph_module: fx.GraphModule, operator: Operator, name: str, argument: fx.Node) -> bool:
    """Whether an argument is a value of a program, not a constant that its instructions hold."""
    return name in operator.values and not (is_constant(argument) and argument.meta["val"].dim() == 0)
