"""How a kernel moves over an image: the geometry of convolutions and poolings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import KernelError

MAX_POSITIONS = 2**23
"""Largest window (height by width) whose sum of uint8 values int32 holds, 255 * 2**23 < 2**31."""


class Window(NamedTuple):
    """How a kernel moves over an image: its size, its steps, the padding of each side, the distance of its taps."""

    height: int
    width: int
    stride_y: int = 1
    stride_x: int = 1
    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    dilation_y: int = 1
    dilation_x: int = 1

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return self.height * self.width

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result for an image of this size."""
        rows = height + self.top + self.bottom - self.dilation_y * (self.height - 1) - 1
        columns = width + self.left + self.right - self.dilation_x * (self.width - 1) - 1
        return rows // self.stride_y + 1, columns // self.stride_x + 1


Sizes = int | Sequence[int]
"""A number for all axes, or one for each: as torch takes them."""


def pair(value: Sizes) -> tuple[int, int]:
    """Height and width."""
    numbers = (value,) if isinstance(value, int) else value
    return numbers[0], numbers[-1]


def pool_window(
    kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes = 1, ceil_mode: bool = False, axes: int = 2
) -> Window | None:
    """The window of torch's pooling over one axis (an image of height 1) or two.

    `ceil_mode` is as much more padding behind as one step leaves over; None where torch would drop a last window that lies in the padding,
    which depends on the size of the image.
    """
    kernel, stride, padding, dilation = (pair(v) for v in (kernel, stride, padding, dilation))
    if axes == 1:
        kernel = (1, kernel[1])
        stride = (1, stride[1])
        padding = (0, padding[1])
    reach = [d * (k - 1) + 1 - p for k, d, p in zip(kernel, dilation, padding, strict=True)]
    more = [s - 1 if ceil_mode else 0 for s in stride]
    if any(m and m >= r for m, r in zip(more, reach, strict=True)):
        return None
    behind = (padding[0] + more[0], padding[1] + more[1])
    return Window(*kernel, *stride, *padding, *behind, *dilation)


def averaged_window(window: Sequence[int] | None, height: int, width: int) -> Window:
    """The window of an average over an image of this size; None is the whole image.

    Raises:
        KernelError: its sum can overflow int32.
    """
    found = Window(height, width) if window is None else Window(*window)
    if found.taps > MAX_POSITIONS:
        raise KernelError(
            f"an average over {found.taps} positions can overflow int32; expected at most {MAX_POSITIONS}"
        )
    return found
