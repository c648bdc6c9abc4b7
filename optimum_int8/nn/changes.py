"""A counter that moves whenever a module anywhere in the process gets another tensor or another child."""

from __future__ import annotations

from typing import Any

from torch.nn.modules import module as torch_module


class Changes:
    """`count` is compared at each call of a block: where it stands still, no module was assigned to, registered with, loaded or cast."""

    count = 0

    @classmethod
    def note(cls, *_: Any) -> None:
        """Say that something changed; also a registration hook of torch, which leaves what is registered as it is."""
        cls.count += 1


torch_module.register_module_parameter_registration_hook(Changes.note)
torch_module.register_module_buffer_registration_hook(Changes.note)
torch_module.register_module_module_registration_hook(Changes.note)
