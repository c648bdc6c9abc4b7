"""One file per engine, each with the same parts in the same order.

NAME              the name on the command line and in results; also the name of the file
TITLE             the name in tables
REQUIRES          distributions it needs beyond ours, as `pip install` takes them; where one is missing the engine is named as left out
BYTES_PER_WEIGHT  as it keeps the weights of linears in memory
load              convert the model into `job.folder` where it is not there yet, and make it ready in this process
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..models import Job, Loaded

BASELINE = "int8_dynamic"
"""Ours; every other engine takes turns with it."""

NAMES = (
    BASELINE,
    "int8_static",
    "eager_fp32",
    "ik_llama_q8",
    "llama_cpp_q8",
    "ctranslate2_int8",
    "openvino_genai_q8",
)


class Engine(Protocol):
    """The parts that an engine's module has."""

    NAME: str
    TITLE: str
    REQUIRES: tuple[str, ...]
    BYTES_PER_WEIGHT: float

    def load(self, job: Job) -> Loaded:
        """Convert and load. Raises EngineFailed for a model that the engine does not know."""


def find_engine(name: str) -> Engine:
    """The module of an engine; importing it imports none of what it requires."""
    return importlib.import_module(f"{__name__}.{name}")  # type: ignore[return-value]


def missing(engine: Engine, folders: Sequence[str] = ()) -> str | None:
    """Why the engine cannot run here, or None.

    Args:
        folders: where `pip install --target` put peers, looked into after the environment.
    """
    absent = [name for name in engine.REQUIRES if version(name, folders) is None]
    return f"not installed: pip install {' '.join(absent)}" if absent else None


def version(name: str, folders: Sequence[str] = ()) -> str | None:
    """Version of a distribution in this environment or in `folders`, or None."""
    found = importlib.metadata.distributions(name=name, path=[*sys.path, *folders])
    return next((distribution.version for distribution in found), None)
