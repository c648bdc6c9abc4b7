"""How long a new process takes to its first result, and what memory it takes: with stored graphs, without them, in FP32."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .commands import ROOT
from .engines import missing
from .turns import EngineFailed

STORED, CAPTURED, FP32 = ENGINES = ("int8_stored", "int8_captured", "fp32")
TITLES = {STORED: "INT8, stored graphs", CAPTURED: "INT8, captured", FP32: "FP32"}
CLASSES = "classes"
STAGES = ("import", "load", "first")
"""What is summed. `CLASSES`, Transformers' own import of what all models need, stands beside it."""

PROGRAMS = "int8_programs.json"
MOMENTS = tuple(step / 2 for step in range(1, 121))
"""Seconds of processor time."""


@dataclass(frozen=True)
class Case:
    """A model of real size with random weights.

    Args:
        class_name: of Transformers.
        config: keys of its configuration.
        kind: what its first result is: a `vector`, of an `image`, or a `token` of `generate()`.
    """

    class_name: str
    config: dict[str, Any]
    kind: str


CASES = {
    "minilm": Case(
        "BertModel",
        {"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
        "vector",
    ),
    "bert-base": Case("BertModel", {"model_type": "bert"}, "vector"),
    "gpt2": Case("GPT2LMHeadModel", {"model_type": "gpt2"}, "token"),
    "t5-base": Case(
        "T5ForConditionalGeneration",
        {"model_type": "t5", "d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12,
         "decoder_start_token_id": 0},
        "token",
    ),
    "resnet-50": Case("ResNetForImageClassification", {"model_type": "resnet"}, "image"),
}  # fmt: skip


def prepare(case: Case, approach: str, folder: Path) -> dict[str, Path]:
    """Write the checkpoints of a case, one for each engine; what is there already is kept."""
    folders = {engine: folder / engine for engine in ENGINES}
    if all((path / "config.json").exists() for path in folders.values()):
        return folders
    import torch
    import transformers

    from optimum_int8 import Int8Config, OptimizedModel, quantize
    from optimum_int8.quantizers.steps.programs import call_examples

    from .startup_process import first_result, make_inputs

    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**case.config)
    model = getattr(transformers, case.class_name)(config).eval()
    model.save_pretrained(folders[FP32])
    inputs = make_inputs(case.kind)
    data = {**inputs, "decoder_input_ids": inputs["input_ids"]} if config.is_encoder_decoder else inputs
    int8 = quantize(model, Int8Config(approach=approach), [data] if approach == "static" else None, progress=False)
    first_result(int8, case.kind, inputs)
    if case.kind == "vector":
        call_examples(int8)  # as quantizers do: beyond 256 tokens too
    OptimizedModel.save_pretrained(int8, folders[STORED])
    shutil.copytree(folders[STORED], folders[CAPTURED], ignore=shutil.ignore_patterns(PROGRAMS))
    return folders


def start(process: str, *arguments: str, threads: int) -> Any:
    """What one new process prints as JSON. Raises EngineFailed with the end of what it printed besides."""
    command = [sys.executable, "-m", f"benchmarks.{process}", *arguments, str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    environment.pop(
        "PYTHONDONTWRITEBYTECODE", None
    )  # an installed package has its bytecode, and so has a checkout after one run
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if found.returncode:
        raise EngineFailed(f"{process} {' '.join(arguments)}: {found.stderr.strip()[-300:]}")
    return json.loads(found.stdout.splitlines()[-1])


def measure(
    models: Sequence[str], approach: str, rounds: int, threads: int, cache: Path, engines: Sequence[str] = ENGINES
) -> Iterator[dict[str, Any]]:
    """A row for each model and engine; the engines take turns in each round."""
    for name in models:
        case = CASES[name]
        folders = prepare(case, approach, cache / f"{name}-{approach}")
        found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
        for number in range(rounds + 1):
            for engine in engines:
                arguments = (str(folders[engine]), case.class_name, engine, case.kind)
                stages = start("startup_process", *arguments, threads=threads)
                if number:  # the first round leaves bytecode, and files in the system's cache
                    found[engine].append(stages)
        digests = {run["digest"] for engine, runs in found.items() if engine != FP32 for run in runs}
        if len(digests) > 1:
            raise EngineFailed(f"{name}: {len(digests)} different results of INT8 where one is expected")
        for engine, runs in found.items():
            yield {"model": name, "approach": approach, "engine": engine, "rounds": rounds, **summarize(runs)}


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians of each stage, and medians and quartiles of their sum."""
    row: dict[str, Any] = {
        stage: {key: statistics.median(run["stages"][stage][key] for run in runs) for key in runs[0]["stages"][stage]}
        for stage in (CLASSES, *STAGES, "second")
    }
    for key in ("wall_s", "processor_s", "memory_mb"):
        sums = sorted(sum(run["stages"][stage][key] for stage in STAGES) for run in runs)
        row[key] = {"median": statistics.median(sums), "least": sums[0], "most": sums[-1]}
    return row


def measure_encode(approach: str, count: int, rounds: int, threads: int, cache: Path) -> list[dict[str, Any]]:
    """Texts finished by processor time, cold: INT8 with stored graphs, and OpenVINO, in turns.

    Returns a row for each moment of `MOMENTS` that both reached: the medians of texts finished.
    """
    from .engines import openvino_int8
    from .models import Job

    if reason := missing(openvino_int8):
        raise EngineFailed(reason)
    folders = {STORED: prepare(CASES["minilm"], approach, cache / f"minilm-{approach}")[STORED]}
    folders[openvino_int8.NAME] = cache / "minilm-openvino"
    folders[openvino_int8.NAME].mkdir(exist_ok=True)
    openvino_int8.prepare(Job("minilm", folders[openvino_int8.NAME], threads))
    runs: dict[str, list[list[tuple[float, int]]]] = {engine: [] for engine in folders}
    for _ in range(rounds):
        for engine, folder in folders.items():
            runs[engine].append(start("encode_process", str(folder), engine, str(count), threads=threads))
    end = min(run[-1][0] for found in runs.values() for run in found)
    return [
        {
            "seconds": moment,
            **{engine: statistics.median(done(run, moment) for run in found) for engine, found in runs.items()},
        }
        for moment in MOMENTS
        if moment <= end
    ]


def done(run: Sequence[tuple[float, int]], moment: float) -> int:
    """Texts finished at a moment of processor time."""
    return max((texts for seconds, texts in run if seconds <= moment), default=0)
