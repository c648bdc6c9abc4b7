"""A block: a module whose `forward` runs a compiled graph where a guard allows it, and its own code everywhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, fx, nn

from .agree import agree, gives_same_bits
from .arguments import Key, NotCapturable, copies, flatten
from .caches import find_cache, layer_index
from .capture import capture, explain
from .compiler import Compiler, Variant
from .gate import GATE, Busy
from .guards import single_axes
from .observed import hooks_act, is_observed, why_own_code
from .own_run import OwnError, Ran, run_own
from .quiet import logger
from .sources import Sources
from .structure import is_stack, structure_key

VARIANTS = 16
SHORT = 256
"""Tokens up to which a stack of layers is one block: beyond, a call per layer costs nothing, and its weights may stay in the cache from one
group of tokens to the next."""
_UNKNOWN = object()
_RENEWALS = 3
"""Times that a block is compiled again because its tensors changed, before it waits for them to stop changing; each time longer, up to a minute."""

stand_ins: ContextVar[Mapping[str, Callable[..., Any]]] = ContextVar("stand_ins")
"""Set while a model is exported: by name of a block, what takes the place of the module's own code."""


class Block:
    """Stands in for `module.forward`; the module keeps its class, its hooks and its children.

    A variant is captured at the first call with a new guard key, checked against the module's own result, and compiled. In training,
    while something traces or watches the model, where an argument needs a gradient, when a module inside has hooks, with stateful arguments
    or beyond a few variants, the module's own code runs: always right, only slower. It also runs after any error of ours, and what it
    raises is what the user sees. A stack's own code then runs blocks of its layers, and so it does with many tokens.

    Each call checks whether the module still holds what its graphs were built from (`Sources`); if not, they are built again.
    """

    def __init__(self, name: str, module: nn.Module, compiler: Compiler) -> None:
        self.name, self.module, self.compiler = name, module, compiler
        self._start()
        module.forward = self

    def _start(self) -> None:
        self.misses: dict[str, int] = {}
        self._wrote = 0  # calls that changed the module
        self._renewals, self._renewed, self._rests_until = 0, 0.0, 0.0
        self._forget()

    def _forget(self) -> None:
        """Everything that was found out about the module."""
        self.variants: dict[Key, Variant | None] = {}
        self.sources: Sources | None = None
        self._hook_tables: list[dict[int, Any]] | None = None
        self._structure: tuple[Any, ...] | None = None
        self._layer: Any = _UNKNOWN
        self._is_stack: bool | None = None
        self.opened = False  # whether the layers of a stack are blocks too

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "module": self.module, "compiler": self.compiler}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy of the model starts from the beginning: it captures at its own first call."""
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
        except Exception as error:  # an argument of a kind that nobody thought of
            return self._pass(explain(error), args, kwargs)
        watched = why_own_code(tensors)
        if watched is not None:
            return self._pass(watched, args, kwargs)
        if self.is_stack and _is_long(tensors):
            return self._own(*args, **kwargs)
        if self.sources is not None and not self.sources.unchanged():
            self._renew()
        variant = self.variants.get(key, _UNKNOWN)
        if variant is _UNKNOWN:
            return self._first_call(key, tensors, args, kwargs)
        if variant is None:
            return self._own(*args, **kwargs)
        return self._serve(variant, key, tensors, args, kwargs)  # type: ignore[arg-type]

    def _serve(self, variant: Variant, key: Key, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        """Run a compiled graph if it is one for these sizes."""
        try:
            if tuple([t.shape for t in tensors]) in variant.served or self._admits(variant, key, tensors):
                if not variant.places:
                    return variant(tensors)
                return variant(tensors, find_cache([*args, *kwargs.values()]), self.layer)
        except Exception as error:
            return self._recover(error, key, args, kwargs)
        return self._pass("sizes that its graph does not hold for", args, kwargs)

    def _admits(self, variant: Variant, key: Key, tensors: list[Tensor]) -> bool:
        """Whether a compiled graph is one for these sizes; asked once for each."""
        if not variant.serves(tensors):
            return False
        known = variant.knows(tensors)
        if known or (known is None and self._try_single(variant, key, tensors)):
            variant.note_served(tensors)
            return True
        return False

    def _recover(self, error: Exception, key: Key, args: Any, kwargs: Any) -> Any:
        """Run own code after an error of ours. If it raises too, that is the user's error, and the graph stays."""
        result = self._own(*args, **kwargs)
        reason = f"its graph failed in a call where the module did not: {explain(error)}"
        self.variants[key] = None
        self._note(reason)
        self.misses[reason] = self.misses.get(reason, 0) + 1
        return result

    def _miss(self, reason: str, args: Any, kwargs: Any) -> Any:
        """Run own code, and smaller blocks from now on if this one never had a graph."""
        if any(isinstance(x, fx.Proxy) for x in (*args, *kwargs.values())):
            return self.original(*args, **kwargs)
        self.misses[reason] = self.misses.get(reason, 0) + 1
        if not self.variants:
            self._split(reason)
        return self._own(*args, **kwargs)

    def _pass(self, reason: str, args: Any, kwargs: Any) -> Any:
        """Run own code this time."""
        self.misses[reason] = self.misses.get(reason, 0) + 1
        return self._own(*args, **kwargs)

    def _own(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's own code; that of a stack on blocks of its layers."""
        with GATE.running():
            if self.is_stack and not self.opened:
                with self.compiler.lock:
                    self.compiler.install_below(self.module, self.name)
                    self.opened = True
            return self.original(*args, **kwargs)

    def _is_traced(self) -> bool:
        """Whether something traces or watches the model in this thread. torch's flag is global: where another thread captures a block, it
        says nothing about this one."""
        owner = GATE.owner
        if torch.compiler.is_compiling() and owner is None:
            return True  # dynamo cannot trace what follows
        return (owner is not None and owner == threading.get_ident()) or is_observed()

    def _hooks_act(self) -> bool:
        """Whether a hook inside wants its module to run."""
        if self._hook_tables is None:
            inner = [m for m in self.module.modules() if m is not self.module]
            self._hook_tables = [table for m in inner for table in (m._forward_hooks, m._forward_pre_hooks)]
        return any(self._hook_tables) and hooks_act(self._hook_tables, self.is_stack)

    def _renew(self) -> None:
        """Forget graphs of tensors and modules that are no longer there."""
        with self.compiler.lock:
            if self.sources is None or self.sources.same():  # another thread was here
                return
            now = time.monotonic()
            self._renewals = self._renewals + 1 if now - self._renewed < 60.0 else 1
            self._renewed = now
            if self._renewals > _RENEWALS:
                self._rests_until = now + min(60.0, 0.5 * 2.0 ** (self._renewals - _RENEWALS))
            self._forget()
            logger.debug("%s: its tensors or modules changed, so that its graphs are built again", self.name)

    def _first_call(self, key: Key, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        """Compile, and answer as later calls will: the compiled graph may round another way than the module does."""
        if not all(x.numel() for x in tensors) or time.monotonic() < self._rests_until:
            return self._own(*args, **kwargs)
        try:
            with GATE.capturing(), self.compiler.lock:
                if key not in self.variants and len(self.variants) < VARIANTS:
                    self.variants[key] = self._try_compile(key, copies(tensors))
        except (OwnError, Busy):  # nothing is known about the block
            return self._own(*args, **kwargs)
        except Ran as ran:
            self._wrote += 1
            if (
                self._wrote > 1 and not any(self.variants.values()) and self in self.compiler.blocks
            ):  # once: it may have filled a cache
                with self.compiler.lock:
                    self._split("its forward changes the module")
            return ran.result
        variant = self.variants.get(key)
        if variant is None:
            return self._own(*args, **kwargs)
        return self._serve(variant, key, tensors, args, kwargs)

    def _try_compile(self, key: Key, tensors: list[Tensor]) -> Variant | None:
        try:
            variant = self._compile(key, tensors)
            logger.debug("%s: captured", self.name)
            return variant
        except (OwnError, Ran):
            raise
        except Exception as error:  # the model's own code is always there to run
            reason = str(error) if isinstance(error, NotCapturable) else explain(error)
            self._note(reason)
            if not any(self.variants.values()):
                self._split(reason)
            return None

    def _note(self, reason: str) -> None:
        self.compiler.failures[self.name] = reason
        logger.debug("%s: %s", self.name, reason)

    def _run_own(self, key: Key, tensors: list[Tensor]) -> tuple[Any, list[Tensor]]:
        return run_own(self.module, self.original, key, tensors, self.layer)

    def _compile(self, key: Key, tensors: list[Tensor]) -> Variant:
        sources = self.sources or Sources(self.module)
        structure, results = self._run_own(key, tensors)
        self._structure = self._structure or structure_key(self.module)
        shared = (self._structure, key)
        with torch.no_grad():
            known = self.compiler.captured.get(shared)
            if known is not None and known.output == structure and known.image in (None, tensors[0].shape[2:]):
                graph = known.bind(self.module)
                if known.holds(tensors) and gives_same_bits(graph, tensors, results):
                    return self._keep(self.compiler.finish(graph, tensors, results, known, False, sources), sources)
            captured = capture(self.module, self.original, key, tensors)
            graph = captured.bind(self.module)
            if captured.output != structure or not captured.holds(tensors):
                raise NotCapturable("the captured graph does not hold for this call's sizes")
            if not agree(graph(*tensors), results):
                raise NotCapturable("the captured graph disagrees with the module at a second shape")
            self.compiler.captured[shared] = captured
            return self._keep(self.compiler.finish(graph, tensors, results, captured, True, sources), sources)

    def _keep(self, variant: Variant, sources: Sources) -> Variant:
        self.sources = sources
        return variant

    def _try_single(self, variant: Variant, key: Key, tensors: list[Tensor]) -> bool:
        """Compare a graph with its module at the first call with a batch or a length of 1, or without."""
        singles = single_axes(tensors)
        try:
            with GATE.capturing(), self.compiler.lock, torch.no_grad():
                if singles not in variant.singles:
                    tensors = copies(tensors)
                    _, results = self._run_own(key, tensors)
                    variant.singles[singles] = gives_same_bits(variant.captured.bind(self.module), tensors, results)
        except (OwnError, Busy, NotCapturable, Ran):
            return False
        return variant.singles[singles]

    def bound(self, key: Key) -> tuple[fx.GraphModule, Key] | None:
        """The captured graph of a variant, defined but before any pass, on this module's tensors; and the structure of its result."""
        variant = self.variants.get(key)
        if variant is None:
            return None
        graph = variant.captured.bind(self.module)
        if self.compiler.define is not None:
            self.compiler.define(graph)
        return graph, variant.output

    def holds(self, key: Key, tensors: list[Tensor]) -> bool:
        """Whether the graph of a variant is one for tensors of these sizes."""
        variant = self.variants.get(key)
        return variant is not None and variant.captured.holds(tensors)

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
