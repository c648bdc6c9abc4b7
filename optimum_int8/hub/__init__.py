"""Saving, loading and sharing INT8 checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_attributes
from .registration import register

if TYPE_CHECKING:
    from .card import CardInfo, render_card
    from .legacy import convert_legacy
    from .modeling import OptimizedModel
    from .push import Pushed, push_folder, push_to_hub
    from .save import save_pretrained
    from .tasks import *  # noqa: F403

__all__ = [  # noqa: F405
    "CardInfo",
    "OptimizedModel",
    "OptimizedModelForCausalLM",
    "OptimizedModelForFeatureExtraction",
    "OptimizedModelForImageClassification",
    "OptimizedModelForMaskedLM",
    "OptimizedModelForMultipleChoice",
    "OptimizedModelForObjectDetection",
    "OptimizedModelForQuestionAnswering",
    "OptimizedModelForSeq2SeqLM",
    "OptimizedModelForSequenceClassification",
    "OptimizedModelForTokenClassification",
    "Pushed",
    "convert_legacy",
    "push_folder",
    "push_to_hub",
    "register",
    "render_card",
    "save_pretrained",
]

_PLACES = {
    **dict.fromkeys((name for name in __all__ if name.startswith("OptimizedModelFor")), "tasks"),
    **dict.fromkeys(["Pushed", "push_folder", "push_to_hub"], "push"),
    "CardInfo": "card",
    "OptimizedModel": "modeling",
    "convert_legacy": "legacy",
    "render_card": "card",
    "save_pretrained": "save",
}
"""Imported at first use: this package is imported with `optimum_int8`, to register the plug-in."""

__getattr__ = lazy_attributes(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
