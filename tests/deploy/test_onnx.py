"""An export to ONNX ends with one error of ours, which names the way that there is."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

from optimum_int8 import Int8Config, QuantizationError, quantize

X = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))
MODELS: dict[str, tuple[Any, Any]] = {
    "linears": (lambda: nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)), X),
    "a convolution": (lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()), torch.randn(2, 8, 9, 9)),
    "attention": (lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), X),
    "a table": (lambda: nn.Sequential(nn.Embedding(64, 16), nn.Linear(16, 4)), torch.randint(0, 64, (2, 6))),
}


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("name", MODELS)
def test_the_exporter_that_traces(name: str, fuse: bool) -> None:
    make, example = MODELS[name]
    int8 = quantize(make().eval(), Int8Config(fuse=fuse), progress=False)
    with pytest.raises(QuantizationError, match=r"cannot be exported to ONNX.*optimum_int8.save\(model, 'model.pt2'"):
        torch.onnx.export(int8, (example,), io.BytesIO(), dynamo=False)
    torch.jit.trace(int8, (example,), check_trace=False)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("name", MODELS)
def test_the_exporter_that_exports(name: str, fuse: bool) -> None:
    """It needs onnxscript, and wraps whatever stops it in an error of its own."""
    pytest.importorskip("onnxscript")
    make, example = MODELS[name]
    int8 = quantize(make().eval(), Int8Config(fuse=fuse), progress=False)
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match=r"optimum_int8.save\(model, 'model.pt2'") as caught:
        torch.onnx.export(int8, (example,), io.BytesIO(), dynamo=True)
    assert isinstance(caught.value.__cause__, QuantizationError)


@pytest.mark.parametrize("name", MODELS)
def test_operators_stop_an_export(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the exporter through `torch.export` meets, without the packages that it needs."""
    make, example = MODELS[name]
    int8 = quantize(make().eval(), Int8Config(), progress=False)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    with pytest.raises(QuantizationError, match="cannot be exported to ONNX"):
        torch.export.export(int8, (example,), strict=False)
