"""A block: a module whose `forward` runs a compiled graph where a guard allows it, and its own code everywhere else."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..torch_private import is_watched
from .arguments import Key, NotCapturable
from .build import Builder
from .caches import layer_index
from .call import Call
from .captured import explain
from .chain import run_on_cache, take
from .compiler import Compiler
from .gate import GATE, Busy
from .guards import single_axes
from .observed import Hooks, why_own_code
from .own_run import OwnError, Ran
from .silence import logger
from .sources import Sources
from .structure import candidates, is_stack
from .variants import Renewals, Variant, Variants

_UNKNOWN = object()

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
        self.name = name
        self.module = module
        self.compiler = compiler
        self._start()
        module.forward = self

    def _start(self) -> None:
        self.misses: Counter[str] = Counter()
        self._wrote = 0  # calls that changed the module
        self._renewals = Renewals()
        self._forget()

    def _forget(self) -> None:
        """Everything that was found out about the module."""
        self.variants = Variants()
        self.sources: Sources | None = None
        self.hooks = Hooks(self.module)
        self.compiler.epoch += 1
        self._builder: Builder | None = None
        self._layer: Any = _UNKNOWN
        self.follower: weakref.ref[Block] | None = None
        self.misses_ahead = 0
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
        ready = take(self, args, kwargs)
        if ready is not None:
            return ready
        if self.module.training or self._is_traced():
            exports = not torch.compiler.is_dynamo_compiling()  # dynamo cannot trace a ContextVar
            own = stand_ins.get({}).get(self.name, self.original) if exports else self.original
            return own(*args, **kwargs)
        if self.hooks.act(self.is_stack):
            return self._own(*args, **kwargs)
        try:
            call = Call(args, kwargs, self.layer)
        except NotCapturable as reason:
            return self._miss(str(reason), args, kwargs)
        except Exception as error:  # an argument of a kind that nobody thought of
            return self._pass(explain(error), args, kwargs)
        watched = why_own_code(call.tensors)
        if watched is not None:
            return self._pass(watched, args, kwargs)
        if self.is_stack and call.is_long:
            return self._own(*args, **kwargs)
        sources = self.sources  # read once: another thread may forget them
        if sources is not None and not sources.unchanged():
            self._renew()
            if self.hooks.act(self.is_stack):  # of a module that is new here
                return self._own(*args, **kwargs)
        variant: Any = self.variants.get(call.key, _UNKNOWN)
        if variant is _UNKNOWN:
            return self._first_call(call)
        if variant is None:
            return self._own(*args, **kwargs)
        return self._serve(variant, call)

    def _serve(self, variant: Variant, call: Call) -> Any:
        """Run a compiled graph if it is one for these sizes."""
        try:
            if tuple([t.shape for t in call.tensors]) in variant.served or self._admits(variant, call):
                compiler = self.compiler
                result = run_on_cache(self, variant, call, compiler.epoch, compiler.backend.together)
                return variant(call.with_states()) if result is None else result
        except Exception as error:
            return self._recover(error, call)
        return self._pass("sizes that its graph does not hold for", call.args, call.kwargs)

    def _admits(self, variant: Variant, call: Call) -> bool:
        """Whether a compiled graph is one for these sizes; asked once for each."""
        if not variant.serves(call.tensors):
            return False
        known = variant.knows(call.tensors)
        if known or (known is None and self._try_single(variant, call)):
            variant.note_served(call.tensors)
            return True
        return False

    def _recover(self, error: Exception, call: Call) -> Any:
        """Run own code after an error of ours. If it raises too, that is the user's error, and the graph stays."""
        result = self._own(*call.args, **call.kwargs)
        reason = f"its graph failed in a call where the module did not: {explain(error)}"
        self.variants[call.key] = None
        self.compiler.epoch += 1
        self._note(reason)
        self.misses[reason] += 1
        return result

    def _miss(self, reason: str, args: Any, kwargs: Any) -> Any:
        """Run own code, and smaller blocks from now on if this one never had a graph."""
        if any(isinstance(x, fx.Proxy) for x in (*args, *kwargs.values())):
            return self.original(*args, **kwargs)
        if not self.variants and not self.variants.has_graph:
            self._split(reason)
        return self._pass(reason, args, kwargs)

    def _pass(self, reason: str, args: Any, kwargs: Any) -> Any:
        """Run own code this time."""
        self.misses[reason] += 1
        return self._own(*args, **kwargs)

    def _own(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's own code; that of a stack on blocks of its layers."""
        with GATE.running():
            if self.is_stack and not self.opened:
                with self.compiler.lock:
                    install_below(self.compiler, self.module, self.name)
                    self.opened = True
            return self.original(*args, **kwargs)

    def _is_traced(self) -> bool:
        """Whether something traces or watches the model in this thread. torch's flag for exports is of the whole process: where another
        thread captures a block or exports a model, it says nothing about this one."""
        if torch.compiler.is_dynamo_compiling():
            return True  # dynamo cannot trace what follows
        owner = GATE.owner
        return (owner is not None and owner == threading.get_ident()) or is_watched()

    def _renew(self) -> None:
        """Forget graphs of tensors and modules that are no longer there."""
        with self.compiler.lock:
            if self.sources is None or self.sources.same():  # another thread was here
                return
            self._renewals.add()
            self._forget()
            logger.debug("%s: its tensors or modules changed, so that its graphs are built again", self.name)

    def _first_call(self, call: Call) -> Any:
        """Compile, and answer as later calls will: the compiled graph may round another way than the module does."""
        call.with_states()
        if not all(x.numel() for x in call.tensors) or self._renewals.rests:
            return self._own(*call.args, **call.kwargs)
        try:
            with GATE.capturing(), self.compiler.lock, self.compiler.notice:
                if call.key not in self.variants and not self.variants.is_full:
                    self.variants[call.key] = self._try_compile(call.key, call.tensors)
        except (OwnError, Busy):  # nothing is known about the block
            return self._own(*call.args, **call.kwargs)
        except Ran as ran:
            self._wrote += 1
            if self._wrote > 1 and not self.variants.has_graph:  # once: it may have filled a cache
                with self.compiler.lock:
                    if self in self.compiler.blocks:
                        self._split("its forward changes the module")
            return ran.result
        variant = self.variants.get(call.key)
        if variant is None:
            return self._own(*call.args, **call.kwargs)
        return self._serve(variant, call)

    def _try_compile(self, key: Key, tensors: list[Tensor]) -> Variant | None:
        try:
            variant = self._compile(key, tensors)
            logger.debug("%s: captured", self.name)
            return variant
        except (OwnError, Ran):
            raise
        except Exception as error:  # the model's own code is always there to run
            reason = explain(error)
            self._note(reason)
            if not self.variants.has_graph:
                self._split(reason)
            return None

    def _note(self, reason: str) -> None:
        self.compiler.failures[self.name] = reason
        logger.debug("%s: %s", self.name, reason)

    def _compile(self, key: Key, tensors: list[Tensor]) -> Variant:
        variant, self.sources = self._builds().build(key, tensors, self.sources)
        return variant

    def _builds(self) -> Builder:
        if self._builder is None:
            self._builder = Builder(self.name, self.module, self.original, self.layer, self.compiler)
        return self._builder

    def _try_single(self, variant: Variant, call: Call) -> bool:
        """Compare a graph with its module at the first call with a batch or a length of 1, or without."""
        call.with_states()
        singles = single_axes(call.tensors)
        try:
            with GATE.capturing(), self.compiler.lock, torch.no_grad():
                if singles not in variant.singles:
                    variant.singles[singles] = self._builds().same_bits(variant, call)
        except (OwnError, Busy, NotCapturable, Ran):
            return False
        return variant.singles[singles]

    def bound(self, key: Key) -> tuple[fx.GraphModule, Key] | None:
        """The captured graph of a variant, defined but before any pass, on this module's tensors; and the structure of its result."""
        variant = self.variants.get(key)
        if variant is None:
            return None
        return self.compiler.bind(variant.captured, self.module), variant.output

    def holds(self, key: Key, tensors: list[Tensor]) -> bool:
        """Whether the graph of a variant is one for tensors of these sizes."""
        return (variant := self.variants.get(key)) is not None and variant.captured.holds(tensors)

    def _split(self, reason: str) -> None:
        """Give up this block for the smaller ones inside it."""
        self.compiler.failures[self.name] = reason
        self.remove()
        self.compiler.blocks.remove(self)
        install_below(self.compiler, self.module, self.name)

    def release(self) -> None:
        """See `Installed`."""
        self.variants = self.variants.without_graphs()
        self.compiler.epoch += 1
        self.sources = None

    def remove(self) -> None:
        """Give the module its own forward back."""
        vars(self.module).pop("forward", None)
        self.compiler.epoch += 1


def install_below(compiler: Compiler, module: nn.Module, name: str = "") -> None:
    """Make blocks of the largest candidates below `module`."""
    for path, child in candidates(module, name):
        if "forward" not in vars(child):
            compiler.blocks.append(Block(path, child, compiler))
