"""A block: a module whose `forward` runs a compiled graph where a guard allows it, and its own code everywhere else."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..torch_private import is_watched
from .agreement import agree, gives_same_bits
from .arguments import Key, NotCapturable, SliceDiffers, copies
from .caches import layer_index
from .call import Call
from .captured import capture, explain
from .compiler import Bound, Compiler
from .gate import GATE, Busy
from .guards import single_axes
from .observed import Hooks, why_own_code
from .own_run import OwnError, Ran, run_own
from .silence import logger
from .slices import between, slice_call
from .sources import Sources
from .structure import candidates, is_stack, structure_key
from .trial import try_own
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
        self._hooks = Hooks(self.module)
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
        if self._hooks.act(self.is_stack):
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
            if self._hooks.act(self.is_stack):  # of a module that is new here
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
                return variant(call)
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
        if not all(x.numel() for x in call.tensors) or self._renewals.rests:
            return self._own(*call.args, **call.kwargs)
        try:
            with GATE.capturing(), self.compiler.lock:
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

    def _run_own(self, key: Key, tensors: list[Tensor]) -> tuple[Any, list[Tensor]]:
        return run_own(self.module, self.original, key, tensors, self.layer)

    def _compile(self, key: Key, tensors: list[Tensor]) -> Variant:
        sources = self.sources or Sources(self.module)
        variant = self._compile_slice(key, tensors, sources)
        if variant is None:
            sources = self.sources or Sources(self.module)
            tensors = copies(tensors)
            structure, results = self._run_own(key, tensors)
            with torch.no_grad():
                known = self._known(key, tensors, structure, results)
                bound = known or self._capture(key, tensors, structure, results)
                variant = self.compiler.finish(bound, tensors, results, sources, check=known is None)
        self.sources = sources
        return variant

    def _compile_slice(self, key: Key, tensors: list[Tensor], sources: Sources) -> Variant | None:
        """A variant for a call that was checked on a slice of it; None where only the whole call can tell."""
        small = slice_call(key, tensors, self.layer)
        ran = None if small is None else try_own(self.module, self.original, key, small, self.layer)
        if small is None or ran is None:
            return None
        shared = self.shared(key)
        earlier = self.compiler.captured.get(shared)
        if earlier is not None and earlier.holds(tensors) and not earlier.holds(small):
            return None
        try:
            with torch.no_grad():
                known = self._known(key, small, *ran)
                if known is not None and not known.captured.holds(tensors):
                    known = None
                bound = known or self._capture(key, small, *ran, tensors)
                if between(bound.captured.assumed, small, tensors) and not self._same_on(bound, key, tensors):
                    raise SliceDiffers("its graph holds for a slice of the call")
                return self.compiler.finish(bound, small, ran[1], sources, check=known is None)
        except SliceDiffers as error:
            logger.debug("%s: on a slice %s", self.name, error)
        if earlier is None:
            self.compiler.captured.pop(shared, None)
        return None

    def _same_on(self, bound: Bound, key: Key, tensors: list[Tensor]) -> bool:
        whole = copies(tensors)
        _, results = self._run_own(key, whole)
        return gives_same_bits(bound.graph, whole, results)

    def shared(self, key: Key) -> tuple[Any, ...]:
        """What siblings that may have one graph have in common."""
        self._structure = self._structure or structure_key(self.module)
        return self._structure, key

    def _known(self, key: Key, tensors: list[Tensor], structure: Key, results: list[Tensor]) -> Bound | None:
        """A sibling's graph, if it gives the same on this module's tensors."""
        known = self.compiler.captured.get(self.shared(key))
        if known is None or known.output != structure or known.image not in (None, tensors[0].shape[2:]):
            return None
        graph = known.bind(self.module)
        return Bound(known, graph) if known.holds(tensors) and gives_same_bits(graph, tensors, results) else None

    def _capture(
        self,
        key: Key,
        tensors: list[Tensor],
        structure: Key,
        results: list[Tensor],
        whole: list[Tensor] | None = None,
    ) -> Bound:
        """A graph that gives the same on these tensors and holds for the sizes of `whole`."""
        captured = capture(self.module, self.original, key, tensors)
        if captured.output != structure or not captured.holds(tensors) or not captured.holds(whole or tensors):
            raise SliceDiffers("the captured graph does not hold for this call's sizes")
        graph = captured.bind(self.module)
        if not agree(graph(*tensors), results):
            raise NotCapturable("the captured graph disagrees with the module at a second shape")
        self.compiler.captured[self.shared(key)] = captured
        return Bound(captured, graph)

    def _try_single(self, variant: Variant, call: Call) -> bool:
        """Compare a graph with its module at the first call with a batch or a length of 1, or without."""
        singles = single_axes(call.tensors)
        try:
            with GATE.capturing(), self.compiler.lock, torch.no_grad():
                if singles not in variant.singles:
                    tensors, results = self._ran(variant, call)
                    variant.singles[singles] = gives_same_bits(variant.captured.bind(self.module), tensors, results)
        except (OwnError, Busy, NotCapturable, Ran):
            return False
        return variant.singles[singles]

    def _ran(self, variant: Variant, call: Call) -> tuple[list[Tensor], list[Tensor]]:
        """Tensors of a slice of the call, or of all of it, and what the module's own code gives for them."""
        small = slice_call(call.key, call.tensors, self.layer)
        captured = variant.captured
        if small is not None and captured.holds(small) and not between(captured.assumed, small, call.tensors):
            ran = try_own(self.module, self.original, call.key, small, self.layer)
            if ran is not None:
                return small, ran[1]
        whole = copies(call.tensors)
        return whole, self._run_own(call.key, whole)[1]

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
        self.sources = None

    def remove(self) -> None:
        """Give the module its own forward back."""
        vars(self.module).pop("forward", None)


def install_below(compiler: Compiler, module: nn.Module, name: str = "") -> None:
    """Make blocks of the largest candidates below `module`."""
    for path, child in candidates(module, name):
        if "forward" not in vars(child):
            compiler.blocks.append(Block(path, child, compiler))
