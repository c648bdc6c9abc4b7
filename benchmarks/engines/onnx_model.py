"""What the two ONNX Runtime engines share: the ONNX file, and a session for it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models import Call, Inputs, Job, Loaded, make_inputs
from ..shapes import Shape

INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("last_hidden_state", "pooler_output")


class _Positional(nn.Module):
    """The exporter passes tensors by position, and Transformers takes them by name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        result = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return result.last_hidden_state, result.pooler_output


def export(job: Job, path: Path) -> None:
    """Write the FP32 model. The older exporter with eager attention: ONNX Runtime's fusions know its patterns."""
    model = job.fp32()
    model.set_attn_implementation("eager")
    inputs = make_inputs(model.config, Shape(2, 16))
    axes = {name: {0: "batch", 1: "sequence"} for name in (*INPUTS, OUTPUTS[0])} | {OUTPUTS[1]: {0: "batch"}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Positional(model).eval(), tuple(inputs[name] for name in INPUTS), str(path), dynamo=False,
            opset_version=17, input_names=list(INPUTS), output_names=list(OUTPUTS), dynamic_axes=axes,
        )  # fmt: skip


def as_arrays(inputs: Inputs) -> dict[str, np.ndarray[Any, Any]]:
    """NumPy arrays by the names of the ONNX file."""
    return {name: inputs[name].numpy() for name in INPUTS}


def loaded_session(path: Path, job: Job) -> Loaded:
    """A session with `job.threads` threads and all of ONNX Runtime's optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def bind(inputs: Inputs) -> Call:
        feed: Mapping[str, Any] = as_arrays(inputs)
        return lambda: session.run(None, feed)

    return Loaded(bind, lambda result: torch.as_tensor(result[0]))
