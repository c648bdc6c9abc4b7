"""What is fed to a model: batch and length, full or ragged."""

from __future__ import annotations

import re
from dataclasses import dataclass

IMAGE_TYPES = ("resnet", "yolo-v2")
"""Model types whose shapes are batch and pixels."""


@dataclass(frozen=True)
class Shape:
    """`batch` sequences padded to `length` tokens.

    Args:
        shortest: lengths are spread evenly from this to `length`; None means that all are full.

    Example:
        >>> Shape.parse("32x8-128")
        Shape(batch=32, length=128, shortest=8)
        >>> str(Shape(1, 16)), Shape(4, 40, 10).lengths()
        ('1x16', [10, 20, 30, 40])
    """

    batch: int
    length: int
    shortest: int | None = None

    @classmethod
    def parse(cls, text: str) -> Shape:
        """`8x128`, or `32x8-128` for a ragged batch. Raises ValueError for anything else."""
        match = re.fullmatch(r"(\d+)x(?:(\d+)-)?(\d+)", text.strip())
        if match is None:
            raise ValueError(
                f"{text!r} is not a shape; expected BATCHxTOKENS or BATCHxSHORTEST-LONGEST, as 8x128 or 32x8-128"
            )
        batch, shortest, length = (int(part) if part else None for part in match.groups())
        if not batch or not length or shortest == 0 or (shortest or 0) > length:
            raise ValueError(f"{text!r} has a size of 0, or a shortest sequence that is longer than the longest")
        return cls(batch, length, shortest)

    def __str__(self) -> str:
        return f"{self.batch}x{self.length}" if self.shortest is None else f"{self.batch}x{self.shortest}-{self.length}"

    def full(self) -> Shape:
        """The same batch without padding."""
        return Shape(self.batch, self.length)

    def lengths(self) -> list[int]:
        """Real tokens of each sequence."""
        if self.shortest is None or self.batch == 1:
            return [self.length] * self.batch
        step = (self.length - self.shortest) / (self.batch - 1)
        return [round(self.shortest + i * step) for i in range(self.batch)]

    def tokens(self) -> int:
        """Real tokens of the batch."""
        return sum(self.lengths())
