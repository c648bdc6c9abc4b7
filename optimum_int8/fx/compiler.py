"""What the blocks of one model share, and what makes their graphs fast."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor, fx, nn

from ..errors import KernelError, QuantizationError
from ..heap import trim
from .agreement import ROUNDED, agree, rounding_tolerance, run_once
from .arguments import Key, NotCapturable, SliceDiffers
from .captured import Captured, explain
from .guards import single_axes
from .notice import Notice
from .recipe import MOVED
from .silence import logger
from .sources import Sources, count_uses, uses_by_name
from .variants import Run, Variant


class Compile(Protocol):
    """Makes a captured graph fast, in place or not; with `check` it compares what each of its steps gives for the tensors."""

    def __call__(self, graph: fx.GraphModule, tensors: list[Tensor], *, check: bool) -> fx.GraphModule:
        """See the class."""


class Template(Protocol):
    """A compiled graph, to be made for modules with other tensors of the same names, shapes and dtypes."""

    def bind(self, tensors: Mapping[str, Any]) -> fx.GraphModule | None:
        """What compiling the captured graph on these tensors would give; None where values of theirs may decide otherwise."""


def _no_template(graph: fx.GraphModule) -> Template | None:
    return None


def _no_tensors(graph: fx.GraphModule) -> Iterable[Tensor]:
    return ()


def _no_run(graph: fx.GraphModule) -> Run | None:
    return None


@dataclass(frozen=True)
class Backend:
    """What compiles graphs, and what only it knows of the graphs it made. A copy of a model keeps it: its functions are not copied.

    Attributes:
        define: may change what a graph computes, once it was compared with its module; it returns 0 where it left it alone.
        tensors: the tensors that modules of a compiled graph read in place, besides those of the graph itself.
        direct: a compiled graph as a function of the call's tensors to its results, where that saves running the graph.
        together: see `chain.Make`.
        comparing: within, a compiled graph computes all that its module does, also what nobody reads (padding).
        template: of a compiled graph, where siblings need not be compiled again.
    """

    compile: Compile
    define: Callable[[fx.GraphModule], int] | None = None
    tensors: Callable[[fx.GraphModule], Iterable[Tensor]] = _no_tensors
    direct: Callable[[fx.GraphModule], Run | None] = _no_run
    comparing: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    together: Callable[[Sequence[Any]], Any] | None = None
    template: Callable[[fx.GraphModule], Template | None] = _no_template


class Reusable(NamedTuple):
    """What a captured graph was compiled to, for siblings.

    Attributes:
        uses: how often operators of the captured graph, once defined, read each of its tensors.
    """

    template: Template
    uses: dict[str, int]


class _Made(NamedTuple):
    """A compiled graph, for one module.

    Attributes:
        uses: see `Reusable`.
        is_defined: whether it computes something else than was captured, see `Backend.define`.
        agrees: whether it gives what the module gives, within rounding.
    """

    graph: fx.GraphModule
    direct: Run | None
    uses: dict[str, int]
    is_defined: bool
    agrees: bool


class Bound:
    """A captured graph on the tensors of one module.

    Attributes:
        tensors: those that the graph reads, by name.
    """

    def __init__(self, captured: Captured, module: nn.Module) -> None:
        self.captured = captured
        self.tensors = captured.tensors(module)
        self._module = module

    @property
    def graph(self) -> fx.GraphModule:
        """The graph as one to be compiled, a new one each time."""
        return self.captured.bind(self._module)

    def run(self, tensors: Sequence[Tensor]) -> list[Any]:
        """What the graph gives for a call's tensors."""
        return self.captured.run(self.tensors, tensors)


class Candidate(Protocol):
    """A graph of a block that was captured before, in another process."""

    def bind(
        self,
        key: Key,
        structure: Key,
        tensors: list[Tensor],
        results: list[Tensor],
        run_own: Callable[[list[Tensor]], tuple[Any, list[Tensor]]],
        calls: Any,
    ) -> Bound | None:
        """The graph on the module's tensors, if it gives what the module's own code gives; else None.

        Args:
            results: of the own code, for `tensors`.
            run_own: structure and tensors of its results for others.
            calls: of the own code, for `tensors` (`Stored.watching`).

        Raises:
            NotCapturable: none can be captured.
        """


class Stored(Protocol):
    """Where graphs are that were captured before."""

    def find(self, module: nn.Module, shared: tuple[Any, ...]) -> Candidate | None:
        """The one for a module and what siblings have in common (`Block`)."""

    def watching(self, module: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Within, calls of operators in this thread are noted, for `Candidate.bind`."""


class Installed(Protocol):
    """A block, as its model's compiler lists it."""

    name: str

    def release(self) -> None:
        """Forget the graphs. A call that runs one of them now keeps it until it is done."""

    def remove(self) -> None:
        """Give the module its own forward back."""


_alive: weakref.WeakSet[Compiler] = weakref.WeakSet()
_alive_lock = threading.Lock()


@dataclass(eq=False)
class Compiler:
    """What the blocks of one model share: how to compile, what was captured, what failed and why.

    Attributes:
        epoch: rises when a block forgets a graph, or what its graphs were built from.
        captured, refused: by `Builder.shared`; of what was refused no graph can be captured, whatever the data.
    """

    backend: Backend
    captured: dict[tuple[Any, ...], Captured] = field(default_factory=dict)
    refused: dict[tuple[Any, ...], None] = field(default_factory=dict)
    blocks: list[Installed] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    notice: Notice = field(default_factory=Notice)
    stored: Stored | None = None
    epoch: int = 0

    def __post_init__(self) -> None:
        with _alive_lock:
            _alive.add(self)

    def release(self) -> None:
        """Forget all graphs: blocks capture again at their next call. Waits for one that is being captured."""
        with self.lock:
            self.captured.clear()
            self.refused.clear()
            for block in list(self.blocks):
                block.release()

    def finish(
        self,
        bound: Bound,
        tensors: list[Tensor],
        results: list[Tensor],
        sources: Sources,
        *,
        check: bool,
    ) -> Variant:
        """Compile a graph that gave `results` for `tensors`; `sources` then watches what it copied.

        Raises:
            NotCapturable: with what failed; `SliceDiffers` where other tensors may pass.
        """
        captured = bound.captured
        addresses = {name: x.data_ptr() for name, x in bound.tensors.items() if isinstance(x, Tensor)}
        try:
            with self.backend.comparing():
                made = self._make(bound, tensors, results, check)
        except Exception as error:  # the model's own code is always there to run
            may_be_sizes = isinstance(error, (KernelError, QuantizationError))
            kind = SliceDiffers if may_be_sizes else NotCapturable
            raise kind(f"compiling failed: {type(error).__name__}: {error}") from error
        if not made.agrees and not captured.rounded:
            if not check:  # of its siblings the passes rounded less
                return self.finish(bound, tensors, results, sources, check=True)
            raise SliceDiffers("the compiled graph disagrees with the module")
        if captured.reusable is None and not captured.rounded and not made.is_defined:
            template = self.backend.template(made.graph)
            captured.reusable = None if template is None else Reusable(template, made.uses)
        uses: Counter[int] = Counter()
        for name, address in addresses.items():
            uses[address] += made.uses.get(name, 0)
        moved = getattr(made.graph, "meta", {}).get(MOVED, ())
        read = [bound.tensors[name] for name in addresses]
        sources.add_copied(read, uses, count_uses(made.graph, self.backend.tensors(made.graph)), moved)
        variant = Variant(made.graph, captured, made.direct)
        variant.singles[single_axes(tensors)] = True
        trim()
        return variant

    def _make(self, bound: Bound, tensors: list[Tensor], results: list[Tensor], check: bool) -> _Made:
        """The compiled graph, run once."""
        backend = self.backend
        captured = bound.captured
        compiled = None if check else self._from_sibling(bound)
        is_defined = False
        if compiled is not None:
            uses = captured.reusable.uses
        else:
            graph = bound.graph
            is_defined = backend.define is not None and backend.define(graph) > 0
            results = run_once(graph, tensors) if is_defined else results
            uses = uses_by_name(graph.graph)
            compiled = self._compile(graph, bound, tensors, check)
            captured.rounded = bool(getattr(compiled, "meta", {}).get(ROUNDED))
        direct = backend.direct(compiled)
        found = compiled(*tensors) if direct is None else direct(tensors)
        agrees = agree(found, results, rounding_tolerance(captured.graph))
        return _Made(compiled, direct, uses, is_defined, agrees)

    def _from_sibling(self, bound: Bound) -> fx.GraphModule | None:
        """The compiled graph, made as that of a sibling was; None where it has to be compiled."""
        captured = bound.captured
        if captured.reusable is None or captured.rounded:
            return None
        try:
            made: fx.GraphModule | None = captured.reusable.template.bind(bound.tensors)
        except Exception as error:  # compiling tells what is wrong, if anything
            logger.debug("a sibling is compiled by itself: %s", explain(error))
            return None
        return made

    def _compile(self, graph: fx.GraphModule, bound: Bound, tensors: list[Tensor], check: bool) -> fx.GraphModule:
        if check or not bound.captured.rounded:
            return self.backend.compile(graph, tensors, check=check)
        graph.meta[ROUNDED] = True
        try:
            return self.backend.compile(graph, tensors, check=False)
        except QuantizationError:  # rounding of several passes together
            graph = bound.graph
            if self.backend.define is not None:
                self.backend.define(graph)
            return self.backend.compile(graph, tensors, check=True)

    def bind(self, captured: Captured, module: Any) -> fx.GraphModule:
        """A captured graph on the tensors of `module`, defined but before any pass."""
        graph = captured.bind(module)
        if self.backend.define is not None:
            self.backend.define(graph)
        return graph

    def __getstate__(self) -> dict[str, Any]:
        return {"backend": self.backend, "failures": self.failures}  # graphs hold pointers into this model's tensors

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def compilers() -> list[Compiler]:
    """Those of all models with blocks that are alive."""
    with _alive_lock:
        return list(_alive)
