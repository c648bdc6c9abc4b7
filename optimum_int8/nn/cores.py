"""Which attention modules of a Transformers model can run on a core of ours, and the implementation that each part of it gets.

A part is what shares one configuration object: Transformers makes the masks of a model as its configuration's attention
implementation wants them, so that all modules that read these masks must run functions of one kind.
"""

from __future__ import annotations

import ast
import dis
import functools
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PretrainedConfig
from transformers.modeling_utils import PreTrainedModel

from .attention import uses_attention_interface
from .core_caller import CoreCaller
from .eager import KNOWN, eager_function, eager_name, is_eager


@dataclass
class Part:
    """What shares one configuration.

    Attributes:
        cores: name to attention module that asks the attention interface.
        owners: of each, the innermost Transformers model that it lies in.
    """

    config: PretrainedConfig
    cores: dict[str, nn.Module] = field(default_factory=dict)
    owners: dict[str, PreTrainedModel] = field(default_factory=dict)


def core_obstacles(model: nn.Module) -> dict[str, str]:
    """By name of each attention module that must keep its own function and mask, the reason."""
    found: dict[str, str] = {}
    for part in _parts(model):
        reasons = {
            name: reason for name, module in part.cores.items() if (reason := _obstacle(part.owners[name], module))
        }
        first = next(iter(reasons.items()), None)
        for name in part.cores if first else ():
            found[name] = reasons.get(name) or f"its masks are those of {first[0]!r}, of which: {first[1]}"  # type: ignore[index]
    return found


def choose_implementations(model: nn.Module, implementation: str) -> list[tuple[PretrainedConfig, str | None]]:
    """The configurations of `model` for which `set_attn_implementation(implementation)` is not the right choice, with what is.

    Parts with an obstacle keep what they have, and with them all that holds no core but may make masks for one; parts that run eager in
    FP32, or whose code asks for `sdpa` by its name, get the eager form of the implementation.
    """
    kept = core_obstacles(model)
    chosen: list[tuple[PretrainedConfig, str | None]] = []
    for part in _parts(model):
        before = part.config._attn_implementation
        if kept.keys() & part.cores.keys() or (not part.cores and (kept or is_eager(before))):
            chosen.append((part.config, before))
        elif part.cores and (is_eager(before) or _asks_by_name(part)):
            chosen.append((part.config, eager_name(implementation)))
    return chosen


def _parts(model: nn.Module) -> list[Part]:
    parts: dict[int, Part] = {}
    for name, module, owner in _with_owners(model):
        if isinstance(module, PreTrainedModel):
            parts.setdefault(id(module.config), Part(module.config))
        if owner is not None and not isinstance(module, CoreCaller) and uses_attention_interface(module):
            own = getattr(module, "config", None)
            config = own if isinstance(own, PretrainedConfig) else owner.config
            part = parts.setdefault(id(config), Part(config))
            part.cores[name] = module
            part.owners[name] = owner
    return list(parts.values())


def _with_owners(model: nn.Module) -> Iterator[tuple[str, nn.Module, PreTrainedModel | None]]:
    """Modules with the innermost Transformers model that they lie in."""
    owners: dict[str, PreTrainedModel | None] = {}
    for name, module in model.named_modules():
        above = owners.get(name.rpartition(".")[0]) if name else None
        owners[name] = module if isinstance(module, PreTrainedModel) else above
        yield name, module, owners[name]


def _obstacle(owner: PreTrainedModel, module: nn.Module) -> str:
    if _refuses_sdpa(type(owner)):  # type: ignore[arg-type]
        return f"{type(owner).__name__} does not support sdpa: it keeps its own eager attention"
    unknown = next((n for n, path in explicit_arguments(type(module)) if _value(module, path) is not None), None)  # type: ignore[arg-type]
    if unknown is not None:
        return f"{type(module).__name__} gives its attention {unknown!r}, which INT8 attention does not know"
    code = getattr(eager_function(module), "__code__", None)
    if code is not None and any("sink" in name for name in code.co_names):
        return f"the attention of {type(module).__name__} has sinks, which INT8 attention does not know"
    return ""


@functools.cache
def _refuses_sdpa(cls: type) -> bool:
    """Whether a model's class says that it does not support sdpa; what it leaves unsaid is no refusal."""
    said = next((c for c in cls.__mro__ if "_supports_sdpa" in vars(c)), PreTrainedModel)
    return said.__module__ != PreTrainedModel.__module__ and not vars(said)["_supports_sdpa"]


@functools.cache
def explicit_arguments(cls: type[nn.Module]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Arguments beyond those known that the class's `forward` names when it calls the attention function: each with the attribute of the
    module that it passes (`("scale", "cap")` for `self.scale.cap`), or nothing where the value is computed."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(cls.forward))))
    except (OSError, TypeError, SyntaxError):
        return ()
    functions = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and "ALL_ATTENTION_FUNCTIONS" in ast.dump(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    functions |= {  # annotated: `attention_interface: Callable = ALL_ATTENTION_FUNCTIONS...`
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
    }
    found = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in functions:
            for keyword in call.keywords:
                is_none = isinstance(keyword.value, ast.Constant) and keyword.value.value is None
                if keyword.arg is not None and keyword.arg not in KNOWN and not is_none:
                    found.append((keyword.arg, _attribute(keyword.value)))
    return tuple(found)


def _attribute(node: ast.expr) -> tuple[str, ...]:
    """The path below `self` of an attribute that is read, or nothing."""
    path: list[str] = []
    while isinstance(node, ast.Attribute):
        path.insert(0, node.attr)
        node = node.value
    return tuple(path) if isinstance(node, ast.Name) and node.id == "self" else ()


def _value(module: nn.Module, path: tuple[str, ...]) -> Any:
    """What an attribute of the module holds; not None where the value is computed."""
    if not path:
        return path
    value: Any = module
    for name in path:
        value = getattr(value, name, None)
    return value


def _asks_by_name(part: Part) -> bool:
    """Whether code of a part's models or attention modules looks for the name `sdpa`: it would take ours for something else."""
    classes = {type(m) for m in (*part.owners.values(), *part.cores.values())}
    return any(_compares_name(c) for cls in classes for c in cls.__mro__ if c.__module__ != PreTrainedModel.__module__)


@functools.cache
def _compares_name(cls: type) -> bool:
    functions = [inspect.unwrap(f) for f in vars(cls).values() if inspect.isfunction(f)]
    return any("_attn_implementation" in f.__code__.co_names and _compares_with(f, "sdpa") for f in functions)


def _compares_with(function: Callable[..., Any], name: str) -> bool:
    """Whether a function compares something with a string, or looks for something among several that hold it."""
    steps = list(dis.get_instructions(function))
    return any(
        then.opname in ("COMPARE_OP", "CONTAINS_OP")
        and (step.argval == name or (isinstance(step.argval, (tuple, frozenset)) and name in step.argval))
        for step, then in itertools.pairwise(steps)
    )
