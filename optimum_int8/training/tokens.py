"""Credentials stay in memory: what a trainer writes holds none."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def without_tokens(args: Any) -> Iterator[None]:
    """Within, every field of `args` named like a token (`hub_token`, `push_to_hub_token`) is None."""
    names = [f.name for f in dataclasses.fields(args) if f.name == "token" or f.name.endswith("_token")]
    kept = {name: getattr(args, name) for name in names if isinstance(getattr(args, name), str)}
    for name in kept:
        setattr(args, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(args, name, value)
