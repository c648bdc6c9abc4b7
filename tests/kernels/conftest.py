"""Fixtures of the kernel tests."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from optimum_int8.kernels import native as library


@pytest.fixture
def forget_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The package as it is before the library is loaded, looking for it in the folder that this returns."""
    monkeypatch.setattr(library, "__file__", str(tmp_path / "native.py"))
    monkeypatch.setattr(library, "_load", functools.cache(library._load.__wrapped__))
    monkeypatch.setattr(library, "_default_isa", functools.cache(library._default_isa.__wrapped__))
    yield tmp_path


@pytest.fixture
def without_library(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Call it to go on as if the library had not been built."""

    def forget() -> None:
        request.getfixturevalue("forget_library")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            assert library.library() is None

    return forget
