"""Gated activations: one half of a projection times the activation of the other (SwiGLU, GeGLU)."""

from __future__ import annotations

from torch import Tensor

from .activations import activate


def gated(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """`activation(gate) * up`, of a name of `ACTIVATIONS`: the activation's own steps, then one product."""
    return activate(gate, activation) * up
