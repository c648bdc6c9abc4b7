"""The per-op recipe: calibrate in a block, save a JSON, edit it, convert."""

from .conf import QuantConf, calibrate
from .conversion import convert
from .op import Op

__all__ = ["Op", "QuantConf", "calibrate", "convert"]
