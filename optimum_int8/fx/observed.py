"""Whether something watches a call that a compiled graph would hide from it: a tracer, a mode, a transformation, autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.utils import output_capturing

_CAPTURING = "transformers.utils.output_capturing"
_PLAIN = (Tensor, nn.Parameter)


def why_own_code(tensors: Sequence[Tensor]) -> str | None:
    """Why only the module's own code can answer for these tensors; None where a compiled graph can."""
    gradients = torch.is_grad_enabled()
    for tensor in tensors:
        if type(tensor) not in _PLAIN:
            return f"an argument is a {type(tensor).__name__}"
        if not tensor.is_cpu:
            return f"an argument is on the device {tensor.device.type}"
        if tensor.layout is not torch.strided or tensor.is_nested:
            return "an argument is a sparse or a nested tensor"
        if gradients and tensor.requires_grad:
            return "an argument needs a gradient"
    return None


class Hooks:
    """The hooks of the modules inside `module`, which are looked for at a call: while a model is copied, its modules are not whole."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._tables: list[dict[int, Any]] | None = None
        self._none_until = -1

    def act(self, is_stack: bool) -> bool:
        """Whether one of them wants its module to run. Those that Transformers leaves behind do while it collects attentions, or of
        a stack anything.

        Each hook that is registered anywhere takes torch's next number: while that stands still, no table that was empty has one.
        """
        number = RemovableHandle.next_id
        if number == self._none_until:
            return False
        if self._tables is None:
            inner = [m for m in self._module.modules() if m is not self._module]
            self._tables = [table for m in inner for table in (m._forward_hooks, m._forward_pre_hooks)]
        hooks = [hook for table in self._tables for hook in table.values()]
        if not hooks:
            self._none_until = number
            return False
        if any(getattr(hook, "__module__", None) != _CAPTURING for hook in hooks):
            return True
        collected = output_capturing._active_collector.get()
        return bool(collected) and (is_stack or any(name != "hidden_states" for name in collected))
