"""OpenVINO with INT8 from NNCF: `nncf.quantize` (for transformers, or as it is for images), latency hint, and its own choice of BF16 for the rest.

Where shapes are fixed the model is compiled for each: that measured up to a fifth faster than dynamic shapes.
"""

from __future__ import annotations

from typing import Any

import torch

from ..models import Call, Inputs, Job, Loaded, is_image_model

NAME = "openvino_int8"
TITLE = "OpenVINO INT8"
REQUIRES = ("openvino", "nncf")
LIMIT = 0.15
FILE = "model_int8.xml"


def prepare(job: Job) -> None:
    """Convert, calibrate, quantize."""
    if (job.folder / FILE).exists():
        return
    import nncf
    import openvino

    model = job.fp32()
    batches = job.calibration()
    converted = openvino.convert_model(model, example_input=batches[0])
    data = nncf.Dataset(batches, lambda batch: {name: value.numpy() for name, value in batch.items()})
    if is_image_model(
        model.config
    ):  # NNCF's own advice for activations other than ReLU; the default lost a fifth of YOLO's output
        how: dict[str, Any] = {"preset": nncf.QuantizationPreset.MIXED}
    else:
        how = {"model_type": nncf.ModelType.TRANSFORMER}
    quantized = nncf.quantize(converted, data, subset_size=len(batches), **how)
    openvino.save_model(quantized, job.folder / "partial.xml")
    (job.folder / "partial.bin").rename(job.folder / "model_int8.bin")
    (job.folder / "partial.xml").rename(job.folder / FILE)


def load(job: Job) -> Loaded:
    """Compile for dynamic shapes, or leave it to `bind`."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": job.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}

    def compile_model(inputs: Inputs | None) -> Any:
        model = core.read_model(job.folder / FILE)
        if inputs is not None:
            model.reshape({node.any_name: list(inputs[node.any_name].shape) for node in model.inputs})
        return core.compile_model(model, "CPU", settings)

    dynamic = None if job.fixed_shapes else compile_model(None)

    def bind(inputs: Inputs) -> Call:
        request = (dynamic or compile_model(inputs)).create_infer_request()
        feed = {name: value.numpy() for name, value in inputs.items()}
        return lambda: request.infer(feed, share_inputs=True, share_outputs=True)

    return Loaded(bind, lambda result: torch.as_tensor(result[0].copy()))
