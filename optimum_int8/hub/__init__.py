"""Saving, loading and sharing INT8 checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_attributes
from . import tasks
from .modeling import OptimizedModel
from .registration import register
from .tasks import *  # noqa: F403

if TYPE_CHECKING:
    from .card import CardInfo, render_card
    from .legacy import convert_legacy
    from .push import Pushed, push_folder, push_to_hub
    from .save import save_pretrained

__all__ = [
    "CardInfo",
    "OptimizedModel",
    "Pushed",
    "convert_legacy",
    "push_folder",
    "push_to_hub",
    "register",
    "render_card",
    "save_pretrained",
]

__all__ += tasks.__all__

_PLACES = {
    **dict.fromkeys(["Pushed", "push_folder", "push_to_hub"], "push"),
    "CardInfo": "card",
    "convert_legacy": "legacy",
    "render_card": "card",
    "save_pretrained": "save",
}
"""Imported at first use: this package is imported with `optimum_int8`, to register the plug-in."""

__getattr__ = lazy_attributes(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
