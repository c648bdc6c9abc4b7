"""A counter that moves whenever a module that a block watches gets another tensor or another child."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

from torch import nn
from torch.nn.modules import module as torch_module


class Changes:
    """`count` is compared at each call of a block: where it stands still, no watched module was assigned to, registered with, loaded or
    cast. Others do not count: decoders make a new `ModuleList` of their layers at every call.
    """

    count = 0
    _watched: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()

    @classmethod
    def watch(cls, module: nn.Module) -> None:
        """Count what is registered with this module from now on."""
        cls._watched[id(module)] = module

    @classmethod
    def note(cls) -> None:
        """Say that something changed."""
        cls.count += 1

    @classmethod
    def note_registration(cls, module: nn.Module, *_: Any) -> None:
        """A registration hook of torch, which leaves what is registered as it is."""
        if cls._watched.get(id(module)) is module:
            cls.count += 1


torch_module.register_module_parameter_registration_hook(Changes.note_registration)
torch_module.register_module_buffer_registration_hook(Changes.note_registration)
torch_module.register_module_module_registration_hook(Changes.note_registration)
