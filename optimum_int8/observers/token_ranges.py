"""`TokenRanges`: how much narrower the ranges of single tokens are than the one range of the whole tensor."""

from __future__ import annotations

import math

from torch import Tensor

from .base import SMALLEST_SPAN


class TokenRanges:
    """The mean of the binary logarithms of the tokens' own ranges, each widened to hold 0.0, in constant memory.

    A few tokens with values 20 times larger than all others', as BERT's feed-forward layers have them (Bondarenko et al. 2021,
    "Understanding and Overcoming the Challenges of Efficient Transformer Quantization"), take bits from every other token that shares
    their range, and cannot be clipped: the model relies on them.

    Attributes:
        tokens, examples: how many were seen; an example is an entry of the first axis.

    Example:
        >>> import torch
        >>> tokens = TokenRanges()
        >>> tokens.observe(torch.tensor([[-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0], [-8.0, 8.0]]))
        >>> tokens.lost_bits(-8.0, 8.0)
        2.25
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.examples = 0
        self._logarithms = 0.0

    def observe(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Count the tokens of `x` `[..., channels]`; `mask` as in `Observer.observe`. A token that is zero throughout has no range."""
        rows = x.detach() if mask is None else x.detach()[mask.expand(x.shape[:-1])]
        rows = rows.reshape(-1, x.shape[-1]).float()
        spans = rows.amax(-1).clamp(min=0.0) - rows.amin(-1).clamp(max=0.0)
        spans = spans[spans > SMALLEST_SPAN]
        self.tokens += len(spans)
        self.examples += x.shape[0]
        self._logarithms += float(spans.double().log2().sum())

    def lost_bits(self, low: float, high: float) -> float:
        """How many bits of its resolution the average token loses when `[low, high]` takes the place of its own range."""
        return math.log2(high - low) - self._logarithms / self.tokens if self.tokens else 0.0
