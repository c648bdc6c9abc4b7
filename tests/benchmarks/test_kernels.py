"""Every operator has a line in `python -m benchmarks kernels`, and its arguments fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import kernel_timings
from benchmarks.__main__ import main
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


@pytest.mark.skipif(library() is None, reason="without the native library there is nothing to time")
def test_kernels_are_checked_timed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["kernels", "--op", "add", "--isa", "portable"]
    assert main([*arguments, "--check"]) == 0
    assert "1 kernels equal numerics on portable" in " ".join(capsys.readouterr().out.split())
    assert main([*arguments, "--seconds", "0.001", "--json", str(tmp_path / "kernels.json")]) == 0
    (timing,) = json.loads((tmp_path / "kernels.json").read_text())["timings"]
    assert (timing["op"], timing["isa"]) == ("add", "portable") and timing["repetitions"] >= 3


@pytest.mark.skipif(library() is None, reason="without the native library there is nothing to time")
def test_a_kernel_that_differs_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = kernel_timings.run_as_program
    monkeypatch.setattr(kernel_timings, "run_as_program", lambda op, *args: right(op, *args) + 1)
    assert main(["kernels", "--op", "add", "--isa", "portable"]) == 1
    assert "not equal to numerics, so not timed" in capsys.readouterr().err
