"""The compiler on one screen: what happens to a captured graph, in this order, and why there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, fx

from ..errors import QuantizationError
from ..fx import ROUNDED, ROUNDING, agree, rounding_tolerance
from ..fx.lazy_graph import copy_graph
from ..fx.rewrite import drop_dead
from ..kernels import library
from ..lowering import lower_images, lower_rows
from .average_pools import average_pools
from .channels_last import channels_last
from .drop_flattening import drop_flattening
from .drop_noops import drop_noops
from .fold_batch_norm import fold_batch_norm
from .fold_scale import fold_scale
from .fuse_activation import fuse_activation
from .fuse_appended import fuse_appended
from .fuse_attention import fuse_attention
from .fuse_cached_attention import fuse_cached_attention
from .fuse_conv import fuse_conv
from .fuse_embedding import fuse_embedding
from .fuse_gated import fuse_gated
from .fuse_head_norm import fuse_head_norm
from .fuse_norm import fuse_norm
from .fuse_rotary import fuse_rotary
from .fuse_written_attention import fuse_written_attention
from .int8_residuals import int8_residuals
from .merge_projections import merge_projections
from .quantize_before_pool import quantize_before_pool
from .quantize_in_pool import quantize_in_pool
from .quantize_in_producer import quantize_in_producer
from .quantize_in_sum import quantize_in_sum
from .rounding import Run, only_rounds
from .share_quantization import share_quantization
from .split_heads import split_heads


class Pass(NamedTuple):
    """A rewrite: changes the graph in place and returns how often it did. One that does not `rounds` promises equal bits."""

    run: Callable[[fx.GraphModule], int]
    rounds: bool = False


REWRITES = (
    Pass(drop_noops),  # first: dropouts and casts stand between everything that belongs together
    Pass(drop_flattening),  # early: what is merged or becomes a program shares its axes
    Pass(fold_batch_norm, rounds=True),  # before layouts: it stands between a convolution and its transpose
    Pass(average_pools, rounds=True),  # before layouts: its transposes cancel with those of the convolutions
    Pass(channels_last),  # before sharing: two readers of a value then read one transpose of it
    Pass(quantize_in_sum),  # before sharing: the parts of a concatenation get quantizations that others may have too
    Pass(share_quantization),  # before merging: it makes q, k and v read one quantized value
    Pass(split_heads),  # before merging: it wants heads of one linear
    Pass(fold_scale, rounds=True),  # before merging: the weight of one of several is scaled
    Pass(fuse_gated, rounds=True),  # before merging: torch's activations round columns of a merged linear otherwise
    Pass(merge_projections),  # before activations are folded: only plain linears merge
    Pass(fuse_activation, rounds=True),
    Pass(fuse_conv, rounds=True),
    Pass(fuse_embedding),  # before norms: they take the last sum
    Pass(fuse_head_norm, rounds=True),  # before the other norms, which would take it on heads
    Pass(fuse_norm, rounds=True),
    Pass(fuse_rotary),  # after the norms of heads, before attention: it wants queries and keys on rows
    Pass(fuse_written_attention, rounds=True),  # before what wants cores on rows
    Pass(fuse_attention),  # after merging: it wants the three projections in one linear
    Pass(fuse_cached_attention),
    Pass(fuse_appended),  # after it: it wants keys and values as rows
    Pass(quantize_before_pool),  # before producers: a convolution is one of the value before the pooling
    Pass(quantize_in_producer),  # last of the rewrites: the producers have their final form
    Pass(quantize_in_pool),  # after producers: what no view separates from its pooling is done
)
LOWERING = (
    Pass(lower_images),  # before `lower_rows`, which would take the quantizations at its ends
    Pass(lower_rows),  # operators to programs
)
PASSES = (*REWRITES, *LOWERING)

_LAST_ROUNDING = max(i for i, step in enumerate(PASSES) if step.rounds)
ROUNDING_PASSES = PASSES[: _LAST_ROUNDING + 1]
EXACT_PASSES = PASSES[_LAST_ROUNDING + 1 :]
"""Quantizations of the captured graph are nodes of their own until these move them into other operators."""

_SHOW = "OPTIMUM_INT8_SHOW_GRAPHS"


def keep_residuals_int8(graph_module: fx.GraphModule) -> int:
    """What a block computes where sums between convolutions read INT8, in place; before any other pass, which all keep it.

    Returns how many sums do; the others stay as they were captured, and without any the graph does.
    """
    drop_noops(graph_module)  # stands between what belongs together
    count = int8_residuals(graph_module)
    drop_dead(graph_module.graph)
    graph_module.recompile()
    return count


def compile_graph(graph_module: fx.GraphModule, tensors: list[Tensor], *, check: bool) -> fx.GraphModule:
    """Run all passes over one captured graph, in place.

    Without the native library the graph stays as it was captured, and defined by `keep_residuals_int8`: it runs the definition.

    Args:
        graph_module: one that is known to round another way (`ROUNDED` in its `meta`) is compared even without `check`, but twice instead
            of after every pass.
        tensors: of a real call; with `check` the result of every pass is compared with the one before it.

    Raises:
        QuantizationError: a pass broke its promise; names the pass.
    """
    if library() is None:
        return graph_module
    rounds = bool(graph_module.meta.pop(ROUNDED, False))
    groups: list[tuple[Pass, ...]] = [PASSES]
    if check:
        groups = [(step,) for step in PASSES]
    elif rounds:
        groups = [ROUNDING_PASSES, EXACT_PASSES]
    checked = _Checked(graph_module, tensors) if check or rounds else None
    for group in groups:
        counts = [_apply(step, graph_module) for step in group]
        if checked is not None and any(counts):
            graph_module.graph.lint()
            checked.compare(group)
    graph_module.delete_all_unused_submodules()
    graph_module.graph = copy_graph(graph_module.graph)
    return graph_module


def _apply(step: Pass, graph_module: fx.GraphModule) -> int:
    count = step.run(graph_module)
    if count:
        drop_dead(graph_module.graph)
        if os.environ.get(_SHOW):
            print(f"--- after {step.run.__name__} ({count} rewrites)\n{graph_module.graph}")
    return count


class _Checked:
    """A graph that gives what it gave before: to the bit, or but for rounding."""

    def __init__(self, graph_module: fx.GraphModule, tensors: list[Tensor]) -> None:
        self.graph_module = graph_module
        self.tensors = tensors
        self.tolerance = rounding_tolerance(graph_module)
        self.run = Run(graph_module)
        self.before = list(self.run.run(*tensors))  # writing Python for each pass's graph would take longer
        self.first = self.before

    def compare(self, passes: tuple[Pass, ...]) -> None:
        """Run the graph after `passes`. Raises `QuantizationError` where they broke their promise.

        Differences of several passes add up: what one does within the tolerance counts as rounding from one quantization to the next where all
        together are beyond it.
        """
        previous = self.run
        self.run = Run(self.graph_module)
        after = list(self.run.run(*self.tensors))
        rounds = any(step.rounds for step in passes)
        tolerance = self.tolerance if rounds else 0.0
        adds_up = rounds and not agree(after, self.first, tolerance)
        if adds_up or not agree(after, self.before, tolerance):
            rounded, results = only_rounds(self.graph_module, self.tensors, previous.quantized)
            if not (rounds and rounded and agree(results, self.before, ROUNDING)):
                names = ", ".join(step.run.__name__ for step in passes)
                raise QuantizationError(
                    f"pass {names} changed what a block computes: its modules run, right but slower; please report this model"
                )
            self.graph_module.meta[ROUNDED] = True
        self.before = after


def run_passes(graph_module: fx.GraphModule, passes: tuple[Pass, ...]) -> fx.GraphModule:
    """Some of the passes over a graph that is known to compute what it should, in place."""
    if library() is None:
        return graph_module
    with torch.no_grad():
        for step in passes:
            if step.run(graph_module):
                drop_dead(graph_module.graph)
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return graph_module


def no_grad_compile(graph: fx.GraphModule, tensors: list[Tensor], *, check: bool) -> fx.GraphModule:
    """`compile_graph` without autograd."""
    with torch.no_grad():
        return compile_graph(graph, tensors, check=check)
