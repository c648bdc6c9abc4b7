"""A native program as a node of a graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ..errors import KernelError
from ..fx.rewrite import is_call, named
from ..kernels import as_rows, empty_rows
from ..kernels.emission import KeptRows, Rows
from ..kernels.growing import grown
from ..kernels.program import KeysOfCall, Program

_compute_padding: ContextVar[bool] = ContextVar("compute_padding", default=False)


@contextlib.contextmanager
def computing_padding() -> Iterator[None]:
    """While a compiled block is compared with its module: padding is computed too, as the module does."""
    everything = _compute_padding.set(True)
    try:
        yield
    finally:
        _compute_padding.reset(everything)


class CallKeys(NamedTuple):
    """Keys of one kind, as attention cores of a program read them.

    Attributes:
        position: an input of their length, where they have one of their own (they come from a cache, or from the encoder).
        appended: whether those of the tokens come after them.
        has_mask: whether a call has a mask for them.
    """

    position: int | None
    appended: bool
    has_mask: bool

    def length(self, inputs: Sequence[Tensor], more: int) -> int | None:
        """How many there are with `more` tokens; None where as many as tokens. Inputs are rows, or heads."""
        if self.position is None:
            return None
        return inputs[self.position].shape[-2] + (more if self.appended else 0)


Rebuild = Callable[[Callable[[str], Tensor]], "ProgramCall"]


class CacheProgram(NamedTuple):
    """A program that appends to keys and values which a cache keeps in INT8.

    Attributes:
        inputs, outputs: of each input and result of the `ProgramCall`, the place of its address; nothing is read or written at those of the
            float keys and values.
        appended: keys and values that it appends to.
        fixed: keys and values, in turn, that it only reads.
    """

    program: Program
    inputs: list[int]
    outputs: list[int]
    appended: list[KeptRows]
    fixed: list[KeptRows]


class ProgramCall(torch.nn.Module):
    """A program as a node: takes its input tensors (and the masks of its keys last), allocates and returns its results.

    Args:
        squeezed: of each result, whether its one column is no axis of the tensor.
        whole: an input that has all leading axes, and whether it has no axis besides them (ids).
        keys: the kinds of keys that its attention cores read, in order.
        after: of the results that begin with the rows of an input, and go on with those of the tokens, that input.
        on_cache: the same on a cache in INT8, where there are such results.

    Attributes:
        rebuild: builds the program with other constants, by name, for a sibling; None where it cannot be.
    """

    rebuild: Rebuild | None = None

    def __init__(
        self,
        program: Program,
        outputs: list[Rows],
        squeezed: list[bool],
        whole: tuple[int, bool],
        keys: Sequence[CallKeys] = (),
        after: Mapping[int, int] = MappingProxyType({}),
        on_cache: CacheProgram | None = None,
    ) -> None:
        super().__init__()
        self.program = program
        self.outputs = outputs
        self.squeezed = squeezed
        self.masks = sum(kind.has_mask for kind in keys)
        self.whole = whole
        self.keys = tuple(keys)
        self.after = dict(after)
        self._may_skip = self.masks == len(keys) == 1 and keys[0].position is None
        self.on_cache = on_cache

    @property
    def built_programs(self) -> list[Program]:
        """Those that are there now: the one, or those of images that were made for the sizes met so far."""
        return [self.program]

    def forward(self, *tensors: Any) -> Any:
        """See the class."""
        count = len(tensors) - self.masks
        inputs = [as_rows(t) for t in tensors[:count]]
        position, is_ids = self.whole
        lead = inputs[position].shape if is_ids else inputs[position].shape[:-1]
        results = [
            empty_rows(lead, r.columns, r.dtype) if i not in self.after else grown(inputs[self.after[i]], lead[1])
            for i, r in enumerate(self.outputs)
        ]
        lengths = [kind.length(inputs, lead[-1]) for kind in self.keys]
        self.run(inputs, results, lead, lengths, tensors[count:])
        results = [t.squeeze(-1) if s else t for t, s in zip(results, self.squeezed, strict=True)]
        return results[0] if len(results) == 1 else tuple(results)

    def run(
        self,
        inputs: list[Tensor],
        results: list[Tensor],
        lead: torch.Size,
        lengths: Sequence[int | None],
        masks: Sequence[Tensor],
    ) -> None:
        """Run on rows as they lie in memory.

        Args:
            lead: leading axes of what is computed.
            lengths: of each kind of keys, where they have one of their own.
            masks: of the kinds that have one.

        Raises:
            KernelError: another number of sequences of keys than of queries.
        """
        batch = lead[0] if len(lead) == 2 else 1
        length = lead[1] if len(lead) == 2 else lead.numel()
        read: list[KeysOfCall] = []
        place = 0
        for kind, own_length in zip(self.keys, lengths, strict=True):
            if kind.position is not None and inputs[kind.position].shape[0] != lead[0]:
                raise KernelError(  # the kernels read as many sequences of keys as there are of queries
                    f"an attention core has {lead[0]} sequences of queries and {inputs[kind.position].shape[0]} of "
                    "keys; expected as many"
                )
            mask = masks[place] if kind.has_mask else None
            place += kind.has_mask
            read.append(KeysOfCall(mask, length if own_length is None else own_length))
        first = read[0] if read else KeysOfCall(None, length)
        skip = self._may_skip and not _compute_padding.get()
        self.program.run(batch, length, inputs + results, first.mask, first.length, skip, read[1:])

    def __call__(self, *tensors: Any) -> Any:
        """`forward`: nothing hooks on to a program, and a call of a module takes two steps more, in cold caches."""
        return self.forward(*tensors)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{len(self.program)} instructions"


def whole_program(graph_module: fx.GraphModule) -> Callable[[list[Tensor]], tuple[Any, ...]] | None:
    """A graph that is nothing but one program with one result, as a function of the call's tensors to a tuple of it: saves running the graph.

    Images may be permuted on their way in and out.
    """
    *nodes, output = [n for n in graph_module.graph.nodes if n.op != "placeholder"]
    calls = [n for n in nodes if n.op == "call_module"]
    if len(calls) != 1 or len(output.args[0]) != 1:
        return None
    call = graph_module.get_submodule(calls[0].target)
    inputs = [_permuted(a) for a in calls[0].args]
    result, after = _permuted(output.args[0][0])
    places = {n: i for i, n in enumerate(graph_module.graph.find_nodes(op="placeholder"))}
    seen = {calls[0], *calls[0].args, *output.args[0]}
    if not isinstance(call, ProgramCall) or result is not calls[0] or not all(n in seen for n in nodes):
        return None
    if not all(n in places for n, _ in inputs):
        return None
    steps = [(places[n], order) for n, order in inputs]

    def run(tensors: list[Tensor]) -> tuple[Any, ...]:
        found = call.forward(*[tensors[i] if order is None else tensors[i].permute(order) for i, order in steps])
        return (found if after is None else found.permute(after),)

    return run


def _permuted(node: Any) -> tuple[Any, list[int] | None]:
    """What is permuted, and how; or the node itself."""
    if is_call(node, torch.ops.aten.permute.default):
        given = named(node)
        return given["self"], given["dims"]
    return node, None


def program_tensors(graph_module: fx.GraphModule) -> Iterator[Tensor]:
    """The tensors that the programs of a lowered graph read in place, as often as they do."""
    for call in graph_module.modules():
        if isinstance(call, ProgramCall) and isinstance(
            call.program, Program
        ):  # those of images are made for each size
            yield from call.program.tensors()


def runs_natively(graph_module: fx.GraphModule) -> int:
    """Instructions that the programs of a lowered graph hold."""
    return sum(len(m.program) for m in graph_module.modules() if isinstance(m, ProgramCall))
