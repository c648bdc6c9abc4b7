"""The packages of the extra `evaluate`, imported by what needs them: `from .extra import datasets`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    import datasets as datasets
    import evaluate as evaluate

PACKAGES = ("datasets", "evaluate")
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
"""Import names that differ from what is installed."""


def missing(name: str) -> ConfigError:
    """What to raise where the package that is imported as `name` is not installed."""
    package = DISTRIBUTIONS.get(name, name)
    return ConfigError(
        f"reading datasets and computing metrics need the package {package}, which is not installed: "
        f"pip install 'optimum-int8[evaluate]'"
    )


def __getattr__(name: str) -> Any:
    """One of `PACKAGES`. Raises `ConfigError` where it is not installed."""
    if name not in PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise missing(error.name or name) from error
