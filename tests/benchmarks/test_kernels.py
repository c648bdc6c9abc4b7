"""Every operator has a line in `scripts/bench_kernels`, and its arguments fit."""

from __future__ import annotations

import pytest
import torch

from benchmarks.kernels import KERNELS
from optimum_int8.kernels import library
from optimum_int8.operators import REGISTRY, run_as_program


def test_every_operator_is_timed() -> None:
    assert {kernel.op for kernel in KERNELS} == set(REGISTRY)
    assert len({(kernel.op, kernel.shape) for kernel in KERNELS}) == len(KERNELS)


@pytest.mark.slow
@pytest.mark.skipif(library() is None, reason="without the native library there is nothing to time")
def test_the_arguments_fit_and_torch_computes_the_same_shape() -> None:
    torch.manual_seed(0)
    for kernel in KERNELS:
        result = run_as_program(kernel.op, *kernel.make())
        if kernel.torch is not None:
            first = result if isinstance(result, torch.Tensor) else result[0]
            assert kernel.torch()().permute(0, 2, 3, 1).shape == first.shape, kernel.shape
