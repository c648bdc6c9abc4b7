"""The second form of a weight's panels that some instruction sets multiply faster (AVX2: csrc/isa/clamped_avx2.h), made once per weight."""

from __future__ import annotations

import torch
from torch import Tensor

from .library import library

_ATTRIBUTE = "_optimum_int8_prepared"
_AS_PACKED = "as packed"


def prepared_weight(panels: Tensor, isa: int) -> Tensor | None:
    """What the instruction set `isa` reads beside `panels` (int8, as `packing.pack` and `pack_conv` make them), or None.

    It is kept on the tensor, and made anew after the tensor was written to.
    """
    kept = getattr(panels, _ATTRIBUTE, None)
    if kept is _AS_PACKED:
        return None
    state = (
        isa,
        panels.data_ptr(),
        None if panels.is_inference() else panels._version,
    )  # a deep copy copies what is kept
    if kept is not None and kept[0] == state:
        return kept[1]
    prepared = _prepare(panels, isa)
    setattr(panels, _ATTRIBUTE, (state, prepared))
    return prepared


def used_once(panels: Tensor) -> Tensor:
    """`panels`, marked as not worth a second form."""
    setattr(panels, _ATTRIBUTE, _AS_PACKED)
    return panels


def _prepare(panels: Tensor, isa: int) -> Tensor | None:
    loaded = library()
    if loaded is None:
        return None
    arguments = isa, panels.data_ptr(), panels.shape[0], panels.shape[1]
    size = loaded.prepare_weight(*arguments, None)
    if not size:
        return None
    out = torch.zeros(size, dtype=torch.uint8)
    loaded.prepare_weight(*arguments, out.data_ptr())
    return out
