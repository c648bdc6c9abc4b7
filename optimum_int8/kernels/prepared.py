"""The second form of a weight's panels that some instruction sets multiply faster (AVX2: csrc/isa/clamped_avx2.h), built once per weight."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .native import library

# In a dictionary, not on the tensors: an attribute of a tensor is copied and pickled with it.
_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_ONCE = "used once"


def prepared_weight(panels: Tensor, isa: int) -> Tensor | None:
    """What the instruction set `isa` reads in addition to `panels` (int8, as `packing.pack` and `pack_conv` make them), or None.

    It is kept as long as the tensor lives, and built again after the tensor was written to.
    """
    state, prepared = _kept.get(panels, (None, None))
    if state is _ONCE:
        return None
    now = isa, panels.data_ptr(), None if panels.is_inference() else panels._version
    if state != now:
        prepared = _prepare(panels, isa)
        _kept[panels] = now, prepared
    return prepared


def used_once(panels: Tensor) -> Tensor:
    """`panels`, marked as not worth a second form."""
    _kept[panels] = _ONCE, None
    return panels


def forget_prepared() -> None:
    """Give back the second forms of all weights, but those that programs read; they are built again when they are needed."""
    for panels, (state, _) in list(_kept.items()):
        if state is not _ONCE:
            _kept.pop(panels, None)


def _prepare(panels: Tensor, isa: int) -> Tensor | None:
    loaded = library()
    if loaded is None:
        return None
    arguments = isa, panels.data_ptr(), panels.shape[0], panels.shape[1]
    size = loaded.prepare_weight(*arguments, None)
    if not size:
        return None
    out = torch.zeros(size, dtype=torch.uint8)
    used = loaded.prepare_weight(*arguments, out.data_ptr())
    return out[:used].clone() if used else None
