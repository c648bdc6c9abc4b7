"""`CoreCaller`: base of attention modules of ours that ask Transformers' attention interface for their core."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

FLOAT_IMPLEMENTATION = "sdpa"
"""The float attention core, by its name in Transformers' attention interface."""


class CoreCaller(nn.Module):
    """Base of the unpacked modules.

    Attributes:
        attention: name of the core in Transformers' attention interface.
    """

    attention: str = FLOAT_IMPLEMENTATION

    @property
    def core(self) -> Callable[..., tuple]:
        """The core in use."""
        return ALL_ATTENTION_FUNCTIONS[self.attention]
