"""Saving, loading and sharing INT8 checkpoints."""

from . import tasks
from .card import CardInfo, render_card
from .legacy import convert_legacy
from .modeling import OptimizedModel
from .plugin import register
from .push import Pushed, push_folder, push_to_hub
from .save import save_pretrained
from .tasks import *  # noqa: F403

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
