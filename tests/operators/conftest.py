"""Fixtures of the operator tests: those of the kernels."""

from tests.kernels.conftest import forget_library, without_library  # noqa: F401
