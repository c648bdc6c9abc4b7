"""The one file that uses names which torch keeps to itself.

First come types and tools that torch's own documentation uses under private names. `is_watched` asks for state that no public function
gives. The rest makes `torch.export` cheap and quiet for one thread: `lean_export` only in versions of torch that it was written for
(`KNOWN`), in others exports take longer and give the same graphs. What has to stand in a module of torch asks which thread calls.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction, DisableTorchFunctionSubclass
from torch._C import _disabled_torch_function_impl as no_torch_function
from torch._ops import OpOverload
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from .lazy import when_imported

__all__ = [
    "KNOWN", "MODULE_CALL", "OUTER_MODULE_CALL", "DisableTorchFunction", "DisableTorchFunctionSubclass",
    "FakeTensor", "OpOverload", "TorchDispatchMode", "WeightNorm", "export_guards", "import_export",
    "int8_matmul", "is_known", "is_recorded", "is_watched", "lean_export", "make_wrapper_subclass",
    "no_torch_function", "only_export", "print_of_export", "tree_flatten", "tree_leaves", "tree_map",
    "tree_unflatten",
]  # fmt: skip

make_wrapper_subclass: Callable[..., Any] = Tensor._make_wrapper_subclass
int8_matmul: Callable[[Tensor, Tensor], Tensor] | None = getattr(torch, "_int_mm", None)
WeightNorm: type[nn.Module] | None = getattr(parametrizations, "_WeightNorm", None)
MODULE_CALL = nn.Module._call_impl.__code__
OUTER_MODULE_CALL = nn.Module._wrapped_call_impl.__code__
"""The code that runs when a module is called: `__call__` is the outer one, the other calls its hooks and its forward."""

KNOWN = ("2.13",)
"""Versions of torch whose tracing `lean_export` knows."""


def is_known(version: str = torch.__version__) -> bool:
    """Whether this is a version of torch whose tracing is known here."""
    return ".".join(version.split(".")[:2]) in KNOWN


try:
    from torch._C import _get_tracing_state, _len_torch_dispatch_stack, _len_torch_function_stack
    from torch._C._functorch import peek_interpreter_stack
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils._device import DeviceContext

    forward_ad._current_level  # noqa: B018 - whether there is one
except (ImportError, AttributeError):  # a torch that does not say: what calls a model may be watching it

    def is_recorded() -> bool:
        """Whether something records the operators of this thread: `torch.jit.trace`, or a dispatch mode."""
        return True

    def is_watched() -> bool:
        """Whether this thread records, transforms or watches operators."""
        return True

else:

    def is_recorded() -> bool:
        """Whether something records the operators of this thread: `torch.jit.trace`, or a dispatch mode."""
        return _get_tracing_state() is not None or bool(_len_torch_dispatch_stack())

    def is_watched() -> bool:
        """Whether this thread records, transforms or watches operators: `torch.jit.trace`, `make_fx`, `FakeTensorMode`, `torch.func`, modes.

        Where tensors are made (`torch.device` as a context, `torch.set_default_device`) is a mode that does not matter.
        """
        return bool(
            _get_tracing_state() is not None
            or _len_torch_dispatch_stack()
            or peek_interpreter_stack() is not None
            or forward_ad._current_level >= 0
            or (
                _len_torch_function_stack()
                and any(type(m) is not DeviceContext for m in _get_current_function_mode_stack())
            )
        )


def export_guards(exported: torch.export.ExportedProgram) -> Sequence[str]:
    """What an exported program assumes of the sizes of its inputs, as expressions of Python on `L`; nothing where torch does not tell."""
    return getattr(exported, "_guards_code", ())


def import_export() -> None:
    """What an export imports, a second."""
    if is_known():
        for name in ("_dynamo.config", "_dynamo.utils", "export._trace", "fx.experimental.proxy_tensor"):
            importlib.import_module(f"torch.{name}")


def print_of_export(function: Callable[..., None]) -> None:
    """What `torch.export` calls as `print`, in its own file alone. `function` has to print for threads that it does not know."""
    if is_known():
        from torch.export import _trace

        _trace.print = function  # type: ignore[attr-defined]


_lean_threads: dict[int, float] = {}
_in_lean_trace: set[int] = set()
_exports = threading.RLock()
_install = threading.Lock()


def _forget_other_threads() -> None:
    """A forked process has one thread."""
    global _exports, _install
    _exports = threading.RLock()
    _install = threading.Lock()
    _lean_threads.clear()
    _in_lean_trace.clear()


os.register_at_fork(after_in_child=_forget_other_threads)


@contextlib.contextmanager
def only_export(*, wait: bool) -> Iterator[bool]:
    """Within, exports of other threads wait: `torch.export` keeps what it is at in variables of the process. Yields whether none was there; with
    `wait` once that of another thread has ended."""
    if is_known():
        _watch_exports("torch.export._trace")
    lock = _exports
    free = lock.acquire(blocking=wait)
    try:
        yield free
    finally:
        if free:
            lock.release()


@contextlib.contextmanager
def lean_export(seconds: float = math.inf) -> Iterator[None]:
    """Within, exports of this thread leave out what torch records for every operator and this package never reads; sizes that happen to be
    equal (prompt and source) stay two sizes. After so much processor time the next operator raises TimeoutError."""
    if not is_known():
        yield
        return
    from torch._dynamo import config as dynamo_config
    from torch.fx.experimental import _config as shape_config

    with _install:
        _switch_modes()
        _switch_records()
        _switch_patches()
    thread = threading.get_ident()
    # both settings are of this thread; most keys of the cache occur once, and filling it computes each value twice
    with (
        only_export(wait=True),
        shape_config.patch(use_duck_shape=False),  # type: ignore[attr-defined]
        dynamo_config.patch(fake_tensor_cache_enabled=False),
    ):
        _lean_threads[thread] = time.thread_time() + seconds
        try:
            yield
        finally:
            _lean_threads.pop(thread, None)


@functools.cache
def _watch_exports(name: str) -> None:
    when_imported(name, _switch_exports)


def _switch_exports() -> None:
    from torch.export import _trace

    export = _trace._export

    @functools.wraps(export)
    def one_at_a_time(*args: Any, **kwargs: Any) -> Any:
        with _exports:
            return export(*args, **kwargs)

    _trace._export = one_at_a_time


@functools.cache
def _switch_modes() -> None:
    """torch keeps the modes of an export in one list for all threads, where whatever computes with sizes in another thread finds them."""

    class PerThread(torch._ops._ModeStackStateForPreDispatch, threading.local):
        """The list of each thread."""

    if torch._ops._mode_stack_state_for_pre_dispatch.count() == 0:
        torch._ops._mode_stack_state_for_pre_dispatch = PerThread()


@functools.cache
def _switch_records() -> None:
    """Layouts of each value, which cost a question to the shapes for every format of memory: not for lean threads."""
    from torch.fx.experimental import proxy_tensor

    extract = proxy_tensor._extract_tensor_metadata

    @functools.wraps(extract)
    def unless_lean(*args: Any, **kwargs: Any) -> Any:
        return None if threading.get_ident() in _lean_threads else extract(*args, **kwargs)

    proxy_tensor._extract_tensor_metadata = unless_lean


@functools.cache
def _switch_patches() -> None:
    """While it traces, torch.fx replaces `nn.Module.__call__` and `__getattr__` in the whole process, for names of modules in the
    graph.

    A lean thread needs none. Another thread that exports meanwhile replaces them for itself alone.
    """
    from torch.fx import _symbolic_trace as symbolic_trace

    patches = symbolic_trace._new_patcher

    @contextlib.contextmanager
    def of_one_thread() -> Iterator[Any]:
        thread = threading.get_ident()
        if thread in _lean_threads and thread not in _in_lean_trace:  # what is traced inside it may need its patches
            symbolic_trace._is_fx_tracing_flag = (
                False  # a trace that begins now, and ends later, puts back what it found
            )
            _in_lean_trace.add(thread)
            try:
                with _light_trace():
                    yield _NoPatches()
            finally:
                _in_lean_trace.discard(thread)
            return
        with patches() as patcher:
            if _lean_threads:
                patcher.patch_method = functools.partial(_patch_for_this_thread, patcher.patch_method)  # type: ignore[method-assign]
            yield patcher

    symbolic_trace._new_patcher = of_one_thread


class _NoPatches:
    """A patcher of torch.fx that leaves everything as it is."""

    def patch(self, *args: Any, **kwargs: Any) -> None:
        """See the class."""

    def patch_method(self, *args: Any, **kwargs: Any) -> None:
        """See the class."""

    def visit_once(self, thing: object) -> bool:
        """Whether to look for functions to replace in `thing`."""
        return False


def _patch_for_this_thread(
    patch_method: Callable[..., None], cls: type, name: str, new: Callable[..., Any], *args: Any, **kwargs: Any
) -> None:
    """`_Patcher.patch_method` of an export next to a lean one: the methods of other threads stay what they were."""
    thread = threading.get_ident()
    original = getattr(cls, name)

    @functools.wraps(new)
    def here(*args: Any, **kwargs: Any) -> Any:
        return (new if threading.get_ident() == thread else original)(*args, **kwargs)

    patch_method(cls, name, here, *args, **kwargs)


@contextlib.contextmanager
def _light_trace() -> Iterator[None]:
    """Within, the tracer and the mode of the export that this thread is in do less."""
    from torch._dynamo.utils import detect_fake_mode
    from torch.fx.experimental import proxy_tensor

    proxy_mode = proxy_tensor.get_proxy_mode()
    fake_mode = detect_fake_mode()
    if proxy_mode is None or fake_mode is None:
        yield
        return
    proxy_mode.tracer.record_stack_traces = False
    limit = _lean_threads.get(threading.get_ident(), math.inf)
    fake_mode.dispatch = functools.partial(_dispatch, fake_mode, fake_mode.dispatch, limit)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del fake_mode.dispatch  # it refers to the mode, which would wait for the collector


_BATCH_NORM = torch.ops.aten._native_batch_norm_legit_no_training.default


def _dispatch(mode: Any, run: Any, limit: float, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """`FakeTensorMode.dispatch` up to `limit`, in `time.thread_time`, with shapes of a batch norm's results at once: torch derives them
    from twenty operators, a tenth of a second with symbolic sizes."""
    if time.thread_time() > limit:
        raise TimeoutError(f"its sizes make an export too slow; it stopped at {func}")
    x: Any = args[0] if func is _BATCH_NORM else None
    if isinstance(x, FakeTensor) and any(type(size) is not int for size in x.shape):
        with mode:
            return torch.empty_like(x), x.new_empty(0), x.new_empty(0)
    return run(func, types, args, kwargs)
