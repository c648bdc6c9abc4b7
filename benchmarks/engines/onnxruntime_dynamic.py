"""ONNX Runtime, dynamic INT8: attention, GELU and norms fused by its optimizer, then quantize_dynamic."""

from __future__ import annotations

from ..models import Job, Loaded
from .onnx_model import export, loaded_session

NAME = "onnxruntime_dynamic"
TITLE = "ONNX Runtime dynamic"
REQUIRES = ("onnxruntime", "onnx")
LIMIT = 0.15
FILE = "model_int8.onnx"


def prepare(job: Job) -> None:
    """Export, fuse, quantize."""
    if (job.folder / FILE).exists():
        return
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    config = job.config()
    export(job, job.folder / "model.onnx")
    fused = optimize_model(
        str(job.folder / "model.onnx"), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
    )
    fused.save_model_to_file(str(job.folder / "fused.onnx"))
    # The type has to be told: shape inference does not know the fused operators.
    types = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic(
        job.folder / "fused.onnx", job.folder / "partial.onnx", weight_type=QuantType.QInt8, extra_options=types
    )
    (job.folder / "partial.onnx").rename(job.folder / FILE)


def load(job: Job) -> Loaded:
    """Open a session."""
    return loaded_session(job.folder / FILE, job)
