"""ONNX Runtime, static INT8: quantize_static in the QDQ format, uint8 activations, INT8 weights per channel.

Not fused before: quantizing ONNX Runtime's fused Attention leaves it in float between conversions, which measured twice
as slow. The session fuses norms, GELU and QDQ pairs itself.
"""

from __future__ import annotations

from ..models import Job, Loaded
from .onnx_model import as_arrays, export, loaded_session

NAME = "onnxruntime_static"
TITLE = "ONNX Runtime static"
REQUIRES = ("onnxruntime", "onnx")
LIMIT = 0.15
FILE = "model_int8.onnx"


def prepare(job: Job) -> None:
    """Export, calibrate, quantize."""
    if (job.folder / FILE).exists():
        return
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(map(as_arrays, job.calibration()))

        def get_next(self) -> dict[str, object] | None:
            return next(self.batches, None)

    export(job, job.folder / "model.onnx")
    quantize_static(
        job.folder / "model.onnx", job.folder / "partial.onnx", Reader(), quant_format=QuantFormat.QDQ,
        per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    (job.folder / "partial.onnx").rename(job.folder / FILE)


def load(job: Job) -> Loaded:
    """Open a session."""
    return loaded_session(job.folder / FILE, job)
