"""Install fine-grained FX on a model, and remove it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from ..cache import make_int8_caches, make_own_caches
from ..fx import Backend, Block, Compiler, install_below
from ..kernels import library
from ..lowering import (
    StepsOnCache,
    Template,
    computing_padding,
    program_tensors,
    whole_program,
    whole_step,
)
from .pipeline import keep_residuals_int8, no_grad_compile


def install(model: nn.Module, residuals: str = "float32") -> Compiler:
    """Make blocks of the largest modules that hold INT8 modules. They are captured at their first call.

    Args:
        residuals: see `Int8Config`.
    """
    remove(model)
    define = keep_residuals_int8 if residuals == "int8" else None
    backend = Backend(
        no_grad_compile,
        define,
        program_tensors,
        _direct,
        computing_padding,
        together=StepsOnCache,
        template=Template.of,
    )
    compiler = Compiler(backend)
    install_below(compiler, model)
    if library() is not None:
        make_int8_caches(model)
    return compiler


def _direct(graph_module: fx.GraphModule) -> Callable[[list[Tensor]], tuple[Any, ...]] | None:
    return whole_program(graph_module) or whole_step(graph_module)


def remove(model: nn.Module) -> None:
    """Give every block its own forward back: the same results, slower."""
    for block in find_blocks(model).values():
        block.remove()
    make_own_caches(model)


def find_blocks(model: nn.Module) -> dict[str, Block]:
    """Blocks by qualified name."""
    return {name: vars(m)["forward"] for name, m in model.named_modules() if isinstance(vars(m).get("forward"), Block)}
