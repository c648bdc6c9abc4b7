"""One file per engine, each with the same parts in the same order.

NAME      the name on the command line and in results; also the name of the file
TITLE     the name in tables
REQUIRES  distributions it needs beyond ours; where one is missing the engine is skipped with a word
LIMIT     largest relative error of the output against FP32; an engine beyond it is not timed
prepare   convert the model into `job.folder`; runs once, what is there already is kept
load      make the model ready in this process
"""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..models import Job, Loaded

BASELINE = "int8_static"
"""Ours; every other engine takes turns with it."""

NAMES = (
    BASELINE,
    "int8_dynamic",
    "eager_fp32",
    "eager_channels_last",
    "eager_bf16",
    "torch_compile",
    "torch_dynamic",
    "onnxruntime_dynamic",
    "onnxruntime_static",
    "openvino_int8",
    "ctranslate2_int8",
)


class Engine(Protocol):
    """The parts that an engine's module has."""

    NAME: str
    TITLE: str
    REQUIRES: tuple[str, ...]
    LIMIT: float

    def prepare(self, job: Job) -> None:
        """Convert."""

    def load(self, job: Job) -> Loaded:
        """Load."""


def find_engine(name: str) -> Engine:
    """The module of an engine; importing it imports none of what it requires."""
    return importlib.import_module(f"{__name__}.{name}")  # type: ignore[return-value]


def missing(engine: Engine) -> str | None:
    """Why the engine cannot run here, or None."""
    absent = [name for name in engine.REQUIRES if not version(name)]
    return f"{', '.join(absent)} not installed (pip install optimum-int8[benchmark])" if absent else None


def version(name: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def cache_folder(root: Path, engine: Engine, model: str) -> Path:
    """Where an engine's conversions of a model lie: another version of a converter has another folder."""
    versions = "-".join(f"{name}_{version(name)}" for name in ("torch", "transformers", *engine.REQUIRES))
    return root / model.replace("/", "_") / f"{engine.NAME}-{versions}"
