"""`find_routers`: the linears and bare parameters whose result chooses experts, which stay FP32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from torch import nn
from transformers.modeling_utils import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ...nn.expert_weight import Experts
from .choices import Choices, may_choose, methods
from .source_weights import find_experts

ROUTER = "a router: an INT8 step could choose another expert"


def find_routers(model: nn.Module) -> set[str]:
    """Qualified names of linears and of bare parameters whose result goes into `topk` or `argmax` and so chooses experts.

    The choice may be made by the module of the weight, or by the one that holds that module; one of the two also holds the experts: stacks of
    matrices, a list of modules that the choice picks from, or what its code calls experts.
    """
    found: set[str] = set()
    modules = dict(model.named_modules())
    for path, module in modules.items():
        cls = type(module)
        if isinstance(module, PreTrainedModel) or cls.__module__.startswith("torch.") or not _may_choose(cls):
            continue
        weighted = frozenset(name for name, child in module.named_children() if _multiplies(child))
        choices = _choices(
            cls, weighted, frozenset(n for n, p in module._parameters.items() if p is not None and p.dim() == 2)
        )
        parent = modules.get(path.rpartition(".")[0]) if path else None
        if choices.chosen_with and (_has_experts(module, choices) or (parent is not None and _holds_experts(parent))):
            prefix = f"{path}." if path else ""
            for name in choices.chosen_with:
                found.update(prefix + below for below in _weights(module, name))
    return found


_may_choose: Callable[..., bool] = functools.cache(may_choose)
_choices: Callable[..., Choices] = functools.cache(Choices)


def _multiplies(module: nn.Module) -> bool:
    """Whether a module or one below it holds a matrix."""
    matrices = any(p.dim() > 1 and len(p) > 1 for p in module.parameters())
    return matrices or any(isinstance(m, (nn.Linear, Experts)) for m in module.modules())


def _has_experts(module: nn.Module, choices: Choices) -> bool:
    """Whether the module that chooses holds the experts, or speaks of them."""
    return _holds_experts(module) or bool(choices.called_by_choice) or _names_experts(type(module))  # type: ignore[arg-type]


@functools.cache
def _names_experts(cls: type[nn.Module]) -> bool:
    codes = [function.__code__ for function in methods(cls).values()]
    return any("expert" in name.lower() for code in codes for name in (*code.co_names, *code.co_varnames))


def _holds_experts(module: nn.Module) -> bool:
    if isinstance(module, PreTrainedModel):
        return False
    if _has_stack(module):
        return True
    for name, child in module.named_children():
        named = "expert" in name.lower() or "expert" in type(child).__name__.lower()
        if _may_choose(type(child)):  # a mixture itself, whose router is its own
            continue
        if _has_stack(child) or (named and "shared" not in name.lower() and _multiplies(child)):
            return True
    return False


def _has_stack(module: nn.Module) -> bool:
    """Whether a module's own code multiplies by one matrix of a stack at a time."""
    stacks = any(isinstance(child, Experts) for child in module._modules.values())
    return stacks or any("." not in name for name in find_experts(module))


def _weights(module: nn.Module, name: str) -> Iterator[str]:
    """The linears and matrices at and below an attribute of `module`; none where experts lie there too."""
    if (parameter := module._parameters.get(name)) is not None:
        if parameter.dim() == 2:
            yield name
        return
    child = module._modules.get(name)
    if child is None or isinstance(child, PreTrainedModel) or any(_has_stack(m) for m in child.modules()):
        return
    for below, part in child.named_modules():
        path = f"{name}.{below}" if below else name
        if isinstance(part, (nn.Linear, Conv1D)):
            yield path
        elif not type(part).__module__.startswith("torch.nn."):
            yield from (f"{path}.{n}" for n, p in part._parameters.items() if p is not None and p.dim() == 2)
