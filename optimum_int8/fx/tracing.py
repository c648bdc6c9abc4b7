"""`torch.export` at less cost: it leaves out what torch computes for every operator and this package never reads.

All of it but the sizes (`use_duck_shape`) is optional: what a release of torch does not have under this name costs time there, and nothing
else.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx
from torch._dynamo import config as dynamo_config
from torch._subclasses import fake_impls
from torch.fx import _symbolic_trace as symbolic_trace
from torch.fx.experimental import _config as shape_config
from torch.fx.experimental import proxy_tensor

_BATCH_NORM = torch.ops.aten._native_batch_norm_legit_no_training.default


@contextlib.contextmanager
def cheap_tracing() -> Iterator[None]:
    """Within, tracing records shapes and types of values only, and axes that happen to be equally long (prompt and source) stay two
    sizes."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(shape_config.patch(use_duck_shape=False))  # type: ignore[attr-defined]
        stack.enter_context(_no_collection())
        if hasattr(symbolic_trace, "_Patcher"):
            stack.enter_context(mock.patch.object(symbolic_trace._Patcher, "patch_method", _patch_for_one_thread))
        # most keys of this cache occur once, and filling it computes each value twice
        if hasattr(dynamo_config, "fake_tensor_cache_enabled"):
            stack.enter_context(dynamo_config.patch(fake_tensor_cache_enabled=False))
        if hasattr(fx.config, "do_not_emit_stack_traces"):
            stack.enter_context(mock.patch.object(fx.config, "do_not_emit_stack_traces", True))
        if hasattr(proxy_tensor, "_extract_tensor_metadata"):
            stack.enter_context(mock.patch.object(proxy_tensor, "_extract_tensor_metadata", lambda *_: None))
        fast = getattr(fake_impls, "FAST_OP_IMPLEMENTATIONS", None)
        if isinstance(fast, dict):
            fake_impls.get_fast_op_impls()  # fills the table at its first call
            stack.enter_context(mock.patch.dict(fast, {_BATCH_NORM: _batch_norm}))
        yield


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of short-lived objects make the collector look through all that lives, over and over."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_patch_method = symbolic_trace._Patcher.patch_method if hasattr(symbolic_trace, "_Patcher") else None


def _patch_for_one_thread(
    patcher: Any, cls: type, name: str, new: Callable[..., Any], *args: Any, **kwargs: Any
) -> None:
    """torch.fx replaces `nn.Module.__call__` and `__getattr__` for the whole process: those of other threads, also in other models,
    stay what they were."""
    thread, original = threading.get_ident(), getattr(cls, name)

    @functools.wraps(new)
    def here(*args: Any, **kwargs: Any) -> Any:
        return (new if threading.get_ident() == thread else original)(*args, **kwargs)

    assert _patch_method is not None
    _patch_method(patcher, cls, name, here, *args, **kwargs)


def _batch_norm(mode: Any, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes of a batch norm's results; torch derives them from twenty operators, a tenth of a second with symbolic sizes."""
    with mode:
        return torch.empty_like(x), x.new_empty(0), x.new_empty(0)
