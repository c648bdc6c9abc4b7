"""The limit on time inside a trial: a model that is called after its deadline stops its caller."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from torch import nn


class OutOfTime(Exception):
    """A model was called after its deadline."""


@contextlib.contextmanager
def stopping(model: nn.Module, deadline: float) -> Iterator[None]:
    """Within, a call of `model` after `deadline`, in `time.monotonic()`, raises `OutOfTime`; so does the end, where the caller went on."""
    late = False

    def check(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal late
        if time.monotonic() > deadline:
            late = True
            raise OutOfTime

    handle = model.register_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
    if late:
        raise OutOfTime
