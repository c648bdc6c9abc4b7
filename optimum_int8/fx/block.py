"""A block: a module whose `forward` runs a compiled graph where a guard allows it, and its own code everywhere else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from transformers.cache_utils import Cache
from transformers.utils import output_capturing

from .agree import agree, rounding_tolerance
from .arguments import Key, NotCapturable, flatten, flatten_output, rebuild, rebuild_output
from .caches import find_cache, layer_index, store
from .capture import Captured, capture
from .program_call import compute_padding, whole_program
from .structure import candidates, is_stack, structure_key

Compile = Callable[[fx.GraphModule, list[Tensor], bool], fx.GraphModule]
Define = Callable[[fx.GraphModule], int]

VARIANTS = 16
SHORT = 256
"""Tokens up to which a stack of layers is one block: beyond, a call per layer costs nothing, and its weights may stay in the cache from one
group of tokens to the next."""
_UNKNOWN = object()
_CAPTURING = "transformers.utils.output_capturing"


stand_ins: ContextVar[Mapping[str, Callable[..., Any]]] = ContextVar("stand_ins")
"""Set while a model is exported: by name of a block, what takes the place of the module's own code."""


@dataclass
class Compiler:
    """What the blocks of one model share: how to compile, what was captured, what failed and why.

    `define` may change what a graph computes, once it was compared with its module; it returns 0 where it left it alone.
    """

    compile: Compile
    define: Define | None = None
    captured: dict[tuple[Any, ...], Captured] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    capturing: int | None = None  # the thread that is in torch.export, or asks a module what its own code says

    def install_below(self, module: nn.Module, name: str = "") -> None:
        """Make blocks of the largest candidates below `module`."""
        for path, child in candidates(module, name):
            if "forward" not in vars(child):
                self.blocks.append(Block(path, child, self))

    @contextlib.contextmanager
    def own_code(self) -> Iterator[None]:
        """Within, this thread's calls of blocks run their modules' own code."""
        self.capturing = threading.get_ident()
        try:
            yield
        finally:
            self.capturing = None

    def __getstate__(self) -> dict[str, Any]:
        kept = {"compile": self.compile, "define": self.define, "failures": self.failures}
        return kept  # graphs hold pointers into this model's tensors

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


@dataclass
class Variant:
    """One compiled graph of a block, the captured one it was made from, and how its results are put together."""

    graph: fx.GraphModule
    captured: Captured

    def __post_init__(self) -> None:
        self.output, self.image = self.captured.output, self.captured.image
        structure, self.places = self.output
        self.is_tensor = structure[0] == "tensor"
        self.whole = None if self.places else whole_program(self.graph)

    def serves(self, tensors: list[Tensor]) -> bool:
        """Whether the graph is one for images of this size."""
        return self.image is None or self.image == tensors[0].shape[2:]

    def __call__(self, tensors: list[Tensor], cache: Cache | None = None, layer: int | None = None) -> Any:
        """Run a call; what the graph computed for `cache` goes there."""
        results = self.graph.forward(*tensors) if self.whole is None else (self.whole(tensors),)
        if self.places:
            assert cache is not None and layer is not None
            store(cache, self.places, results[-2 * len(self.places) :], layer)
        return results[0] if self.is_tensor else rebuild_output(self.output, results)


class Block:
    """Stands in for `module.forward`; the module keeps its class, its hooks and its children.

    A variant is captured at the first call with a new guard key, checked against the module's own result, and compiled. In training,
    while something traces the model, when a module inside has hooks, with stateful arguments or beyond a few variants, the module's own
    code runs: always right, only slower. A stack's own code then runs blocks of its layers, and so it does with many tokens.
    """

    def __init__(self, name: str, module: nn.Module, compiler: Compiler) -> None:
        self.name, self.module, self.compiler = name, module, compiler
        self._start()
        module.forward = self  # type: ignore[method-assign, assignment]

    def _start(self) -> None:
        self.variants: dict[Key, Variant | None] = {}
        self.misses: dict[str, int] = {}
        self._hook_tables: list[dict[int, Any]] | None = None
        self._structure: tuple[Any, ...] | None = None
        self._layer: Any = _UNKNOWN
        self._is_stack: bool | None = None
        self.opened = False  # whether the layers of a stack are blocks too

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "module": self.module, "compiler": self.compiler}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy of the model starts anew: it captures at its own first call."""
        vars(self).update(state)
        self._start()
        self.compiler.blocks.append(self)

    @property
    def layer(self) -> int | None:
        """The module's place in a KV cache. Asked for at a call only: while a model is copied, its modules are not whole."""
        if self._layer is _UNKNOWN:
            self._layer = layer_index(self.module)
        return self._layer

    @property
    def is_stack(self) -> bool:
        """Whether the module runs a list of layers."""
        if self._is_stack is None:
            self._is_stack = is_stack(self.module)
        return self._is_stack

    @property
    def original(self) -> Callable[..., Any]:
        """The module's own forward."""
        return type(self.module).forward.__get__(self.module)

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """What `inspect.signature` reports."""
        return self.original

    @property
    def __code__(self) -> Any:
        """What torch.export and Transformers read of a forward."""
        return type(self.module).forward.__code__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a call."""
        if self.module.training or self._is_traced():
            exports = not torch.compiler.is_dynamo_compiling()  # dynamo cannot trace a ContextVar
            own = stand_ins.get({}).get(self.name, self.original) if exports else self.original
            return own(*args, **kwargs)
        if self._hooks_act():
            return self._own(*args, **kwargs)
        try:
            key, tensors = flatten(args, kwargs, self.layer)
        except NotCapturable as reason:
            return self._miss(str(reason), args, kwargs)
        if self.is_stack and _is_long(tensors):
            return self._own(*args, **kwargs)
        variant = self.variants.get(key, _UNKNOWN)
        if variant is _UNKNOWN:
            return self._first_call(key, tensors, args, kwargs)
        if variant is None or not variant.serves(tensors):  # type: ignore[attr-defined]
            return self._own(*args, **kwargs)
        return self._run(variant, tensors, args, kwargs)  # type: ignore[arg-type]

    def _run(self, variant: Variant, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        if not variant.places:
            return variant(tensors)
        return variant(tensors, find_cache([*args, *kwargs.values()]), self.layer)

    def _miss(self, reason: str, args: Any, kwargs: Any) -> Any:
        self.misses[reason] = self.misses.get(reason, 0) + 1
        if not self.variants:
            self._split(reason)
        return self._own(*args, **kwargs)

    def _own(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's own code; that of a stack on blocks of its layers."""
        if self.is_stack and not self.opened:
            with self.compiler.lock:
                self.compiler.install_below(self.module, self.name)
                self.opened = True
        return self.original(*args, **kwargs)

    def _is_traced(self) -> bool:
        """Whether something traces the model in this thread. torch's flag is global, and `torch.export` puts other tensors into a module
        while it runs: where another thread captures a block, wait for it."""
        capturing = self.compiler.capturing
        if capturing is not None and capturing == threading.get_ident():  # dynamo cannot trace the second
            return True
        if not torch.compiler.is_compiling():
            return False
        if capturing is None:
            return True
        with self.compiler.lock:
            return False

    def _hooks_act(self) -> bool:
        """Whether a hook inside wants its module to run. Those that Transformers leaves behind do while it collects attentions."""
        if self._hook_tables is None:
            inner = [m for m in self.module.modules() if m is not self.module]
            self._hook_tables = [table for m in inner for table in (m._forward_hooks, m._forward_pre_hooks)]
        if not any(self._hook_tables):
            return False
        hooks = [hook for table in self._hook_tables for hook in table.values()]
        if any(getattr(hook, "__module__", None) != _CAPTURING for hook in hooks):
            return True
        collected = output_capturing._active_collector.get()
        return bool(collected) and (self.is_stack or any(name != "hidden_states" for name in collected))

    def _first_call(self, key: Key, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        """Compile, and answer as later calls will: the compiled graph may round another way than the module does."""
        if not all(x.numel() for x in tensors):
            return self._own(*args, **kwargs)
        with self.compiler.lock:
            if key not in self.variants and len(self.variants) < VARIANTS:
                try:
                    self.variants[key] = self._compile(key, tensors)
                except NotCapturable as reason:
                    self.variants[key] = None
                    self.compiler.failures[self.name] = str(reason)
                    if not any(self.variants.values()):
                        self._split(str(reason))
        variant = self.variants.get(key)
        return self._own(*args, **kwargs) if variant is None else self._run(variant, tensors, args, kwargs)

    def _compile(self, key: Key, tensors: list[Tensor]) -> Variant:
        args, kwargs = rebuild(key, tensors, self.layer)
        with self.compiler.own_code():
            expected = self.original(*args, **kwargs)
        structure, results = flatten_output(expected, find_cache([*args, *kwargs.values()]), tensors, self.layer)
        self._structure = self._structure or structure_key(self.module)
        shared = (self._structure, key)
        with torch.no_grad():
            known = self.compiler.captured.get(shared)
            if known is not None and known.output == structure:
                graph = known.bind(self.module)
                if known.image in (None, tensors[0].shape[2:]) and agree(graph(*tensors), results):
                    return self._finish(graph, tensors, results, known, False)
            captured = self._capture(key, tensors)
            graph = captured.bind(self.module)
            if captured.output != structure or not agree(graph(*tensors), results):
                raise NotCapturable("the captured graph disagrees with the module at a second shape")
            self.compiler.captured[shared] = captured
            return self._finish(graph, tensors, results, captured, True)

    def bound(self, key: Key) -> tuple[fx.GraphModule, Key] | None:
        """The captured graph of a variant, defined but before any pass, on this module's tensors; and the structure of its result."""
        variant = self.variants.get(key)
        if variant is None:
            return None
        graph = variant.captured.bind(self.module)
        if self.compiler.define is not None:
            self.compiler.define(graph)
        return graph, variant.output

    def _capture(self, key: Key, tensors: list[Tensor]) -> Captured:
        with self.compiler.own_code():
            return capture(self.module, self.original, key, tensors)

    def _finish(
        self,
        graph: fx.GraphModule,
        tensors: list[Tensor],
        results: list[Tensor],
        captured: Captured,
        check: bool,
    ) -> Variant:
        everything = compute_padding.set(True)
        tolerance = rounding_tolerance(graph)
        try:
            if self.compiler.define is not None and self.compiler.define(graph):
                results = list(graph(*tensors))
            compiled = self.compiler.compile(graph, tensors, check)
            found = compiled(*tensors)
        except Exception as error:  # the model's own code is always there to run
            raise NotCapturable(f"compiling failed: {type(error).__name__}: {error}") from error
        finally:
            compute_padding.reset(everything)
        if not agree(found, results, tolerance):
            raise NotCapturable("the compiled graph disagrees with the module")
        return Variant(compiled, captured)

    def _split(self, reason: str) -> None:
        """Give up this block for the smaller ones inside it."""
        self.compiler.failures[self.name] = reason
        self.remove()
        self.compiler.blocks.remove(self)
        self.compiler.install_below(self.module, self.name)

    def remove(self) -> None:
        """Give the module its own forward back."""
        vars(self.module).pop("forward", None)


def _is_long(tensors: list[Tensor]) -> bool:
    return bool(tensors) and tensors[0].dim() == 3 and tensors[0].shape[0] * tensors[0].shape[1] > SHORT
