"""The memory that a model holds between calls, by what holds it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from ..fx.sources import tensors_read
from ..lowering.program_call import ProgramCall
from .blocks import find_blocks


@dataclass
class ResidentMemory:
    """Bytes that a model keeps between calls. What a call needs while it runs is not among them; `release_memory` gives it back.

    Attributes:
        model: of its parameters and buffers: INT8 weights in the order that kernels read them, which is their only copy, scales,
            biases and what stays FP32. A tensor that several modules share counts once.
        blocks: what captured blocks keep besides: constants of their programs, and the second form of a weight that an instruction
            set reads (AVX2: residuals of weights; AVX-512 and AMX read the model's own).
    """

    model: int
    blocks: int


def resident_memory(model: nn.Module) -> ResidentMemory:
    """Of a model as it is now: blocks are captured at its first call."""
    seen: set[int] = set()
    own = _bytes(itertools.chain(model.parameters(), model.buffers()), seen)
    return ResidentMemory(own, _bytes(_of_blocks(model), seen))


def _of_blocks(model: nn.Module) -> Iterator[Tensor]:
    for block in find_blocks(model).values():
        for variant in block.variants.values():
            if variant is None:
                continue
            yield from tensors_read(variant.graph)
            for module in variant.graph.modules():
                if isinstance(module, ProgramCall):
                    for program in module.built_programs:
                        yield from program.tensors()


def _bytes(tensors: Iterable[Tensor], seen: set[int]) -> int:
    """Of the storages that were not seen before; views of one storage count it once."""
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.nbytes() and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes()
    return total
