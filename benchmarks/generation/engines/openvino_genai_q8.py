"""OpenVINO GenAI, which reads the same GGUF file as the llama.cpp family; decoders only."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ...turns import EngineFailed
from ..gguf_file import prepare_gguf
from ..models import Generated, Job, Loaded, make_inputs
from ..rows import Row

NAME = "openvino_genai_q8"
TITLE = "OpenVINO GenAI Q8_0"
REQUIRES = ("openvino-genai", "openvino", "gguf")
BYTES_PER_WEIGHT = 34 / 32  # 32 weights and a scale in half precision


def load(job: Job) -> Loaded:
    """Open the file. Raises EngineFailed where OpenVINO refuses it."""
    import openvino_genai

    path = prepare_gguf(job)
    try:
        pipeline = openvino_genai.LLMPipeline(str(path), "CPU", INFERENCE_NUM_THREADS=job.threads)
    except (RuntimeError, IndexError) as error:
        raise EngineFailed(f"does not read the GGUF file: {error}") from error
    return OpenVinoDecoder(pipeline, job.config())


class OpenVinoDecoder:
    """Prompts of tokens to tokens; it tells when the first one came."""

    def __init__(self, pipeline: Any, config: Any) -> None:
        self.pipeline, self.config = pipeline, config

    def run(self, row: Row) -> Generated:
        """One call."""
        import openvino
        import openvino_genai

        inputs = {name: values.numpy() for name, values in make_inputs(self.config, row.batch, row.context).items()}
        tensors = [openvino.Tensor(np.ascontiguousarray(inputs[name])) for name in ("input_ids", "attention_mask")]
        options = openvino_genai.GenerationConfig()
        options.max_new_tokens = options.min_new_tokens = row.new
        options.num_beams = row.beams
        options.do_sample = False
        options.ignore_eos = True
        start = time.perf_counter()
        found = self.pipeline.generate(openvino_genai.TokenizedInputs(*tensors), options)
        total = (time.perf_counter() - start) * 1e3
        first = found.perf_metrics.get_ttft().mean if row.beams == 1 else None
        return Generated([list(tokens) for tokens in found.tokens], total, first)
