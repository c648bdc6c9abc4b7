"""One file to deploy: a `.pt2` of `torch.export` that runs without the model's source."""

from .loading import load
from .saving import Save, save

__all__ = ["Save", "load", "save"]
