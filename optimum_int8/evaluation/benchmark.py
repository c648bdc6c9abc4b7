"""Speed of an architecture with random weights: eager FP32, BF16 and INT8, in turns within one run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..config import Int8Config
from .architectures import example_inputs, random_model
from .latency import PairedLatency, advice, paired_latency
from .machine import describe_machine

if TYPE_CHECKING:
    from rich.table import Table

Shape = tuple[int, int]
"""(batch, sequence length)."""

TITLES = {"fp32": "FP32", "bf16": "BF16", "int8_static": "INT8 static", "int8_dynamic": "INT8 dynamic"}


@dataclass(frozen=True)
class BenchmarkReport:
    """Median milliseconds of every model at every shape.

    Args:
        architecture: `model_type`, class and sizes of the model.
        rows: one per shape: `batch`, `sequence`; by model name `latency_ms` and its quartiles `quartiles_ms`, `speedup` over FP32
            (None where it was not measurable) and its quartiles `speedup_quartiles`; `load`, the load average before timing.
        machine: `describe_machine()`.
    """

    architecture: dict[str, Any]
    rows: list[dict[str, Any]]
    machine: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {"architecture": self.architecture, "rows": self.rows, "machine": self.machine}

    def table(self) -> Table:
        """The report as a `rich` table: milliseconds, and how many times faster than FP32."""
        from rich.table import Table

        machine = self.machine
        title = (
            f"{self.architecture['class']}, {self.architecture['parameters'] / 1e6:.1f} M parameters, random weights"
        )
        caption = (
            f"medians of alternating calls, their quartiles, and how many times faster than FP32; "
            f"{machine['cpu']}, {machine['isa_used']}, {machine['threads']} threads{_load_text(self.rows)}"
        )
        if any(None in row["speedup"].values() for row in self.rows):
            caption += f"\n{advice(_highest_load(self.rows), machine.get('cores'))}"
        table = Table(title=title, caption=caption)
        table.add_column("batch x tokens")
        names = list(self.rows[0]["latency_ms"])
        for name in names:
            table.add_column(TITLES[name], justify="right")
        for row in self.rows:
            table.add_row(f"{row['batch']} x {row['sequence']}", *(_cell(row, name) for name in names))
        return table


def _cell(row: dict[str, Any], name: str) -> str:
    """Of the table: the latency, its quartiles, and how many times faster than FP32 it is."""
    lines = [f"{row['latency_ms'][name]:.2f} ms"]
    quartiles = row.get("quartiles_ms")
    ratio = row["speedup"][name]
    if quartiles:
        lines.append("{:.2f} to {:.2f}".format(*quartiles[name]))
    if name != "fp32":
        lines.append("not measurable" if ratio is None else f"{ratio:.2f}x")
    return "\n".join(lines)


def _highest_load(rows: Sequence[dict[str, Any]]) -> float | None:
    return max((row["load"] for row in rows if row.get("load") is not None), default=None)


def _load_text(rows: Sequence[dict[str, Any]]) -> str:
    load = _highest_load(rows)
    return "" if load is None else f"; load average {load:.1f} before timing"


def benchmark(
    config: PreTrainedConfig,
    shapes: Sequence[Shape] = ((1, 16), (1, 128)),
    approaches: Sequence[str] = ("static", "dynamic"),
    *,
    bf16: bool = True,
    rounds: int = 20,
    max_seconds: float = 60.0,
) -> BenchmarkReport:
    """Time one architecture.

    Args:
        shapes: (batch, tokens) pairs; images have the size that the configuration says.
        approaches: which INT8 models to make; static ones are calibrated on random inputs of the same shapes.
        bf16: whether to time bfloat16 too.
        rounds: timed calls per model and shape.
        max_seconds: time limit per shape.

    Raises:
        ConfigError: sizes or shapes that the model cannot have.
        QuantizationError: nothing to quantize in it.
    """
    model = random_model(config)
    inputs = [example_inputs(model, batch, sequence) for batch, sequence in shapes]
    models = make_variants(model, inputs, approaches, bf16=bf16)
    rows = []
    for (batch, sequence), values in zip(shapes, inputs, strict=True):
        calls = {name: _caller(variant, values) for name, variant in models.items()}
        with torch.inference_mode():
            times = paired_latency(calls, rounds=rounds, max_seconds=max_seconds, description=f"{batch} x {sequence}")
        rows.append({"batch": batch, "sequence": sequence, **latency_row(times)})
    return BenchmarkReport(describe_architecture(model), rows, describe_machine())


def latency_row(times: PairedLatency) -> dict[str, Any]:
    """What a row of a report says of the times: see `BenchmarkReport`."""
    names = list(times.milliseconds)
    return {
        "latency_ms": times.medians(),
        "quartiles_ms": {name: list(times.quartiles(name)) for name in names},
        "speedup": {name: times.speedup("fp32", name) for name in names},
        "speedup_quartiles": {name: list(times.ratio_quartiles("fp32", name)) for name in names},
        "load": times.load,
    }


def make_variants(
    model: PreTrainedModel, inputs: Sequence[dict[str, torch.Tensor]], approaches: Sequence[str], *, bf16: bool
) -> dict[str, PreTrainedModel]:
    """FP32, BF16 and INT8 copies of one model, by the names in `TITLES`."""
    from ..quantization import quantize

    models = {"fp32": model}
    if bf16:
        models["bf16"] = copy.deepcopy(model).to(torch.bfloat16)
    for approach in approaches:
        data = None if approach == "dynamic" else list(inputs)
        models[f"int8_{approach}"] = quantize(model, Int8Config(approach=approach), data, progress=False)
    return models


def describe_architecture(model: PreTrainedModel) -> dict[str, Any]:
    """Type, class, number of parameters, and the sizes that most configurations have."""
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    return {
        "model_type": model.config.model_type,
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **{name: getattr(model.config, name) for name in sizes if hasattr(model.config, name)},
    }


def _caller(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> Callable[[], Any]:
    values = {name: v.to(model.dtype) if v.is_floating_point() else v for name, v in inputs.items()}
    return lambda: model(**values)
