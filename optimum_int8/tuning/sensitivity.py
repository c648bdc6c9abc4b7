"""Which site costs the model its accuracy: the error of each site on its own, and how much it changes the model's outputs.

Two numbers per site, both relative root-mean-square errors. `site_error` compares the site's own output with and without
quantization, each channel relative to its own spread, so that a channel of outliers cannot hide the loss of all others.
`model_error` is that of the model's outputs when this site alone is quantized: it includes what the rest of the model does with the error.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..calibration import counted_rows, run_batch
from ..prepare import Prepared
from ..remedies.flow import tensors_of
from ..sites import SiteKind
from .counterparts import Compute, Counterparts
from .distribution import Distribution

ALONE_BATCHES = 4
"""Batches on which every site is quantized alone: one run of the model per site and batch."""


@dataclass
class Sensitivity:
    """One site.

    Attributes:
        name, kind: as in `Sites`.
        site_error: see the file.
        model_error: see the file; None when time ran out before it was measured.
        macs: share of the model's multiply-adds on the data.
        distributions: input (`"input"`, or `"query"`, `"key"`, `"value"`) to its histogram and range.
    """

    name: str
    kind: str
    site_error: float
    model_error: float | None
    macs: float
    distributions: dict[str, Distribution] | None = None

    @property
    def error(self) -> float:
        """What ranks sites: the model's error, or the site's own."""
        return self.site_error if self.model_error is None else self.model_error

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON types, without the distributions."""
        return {k: v for k, v in asdict(self).items() if k != "distributions"}


def measure_sensitivity(
    prepared: Prepared,
    data: Sequence[Any],
    *,
    alone: bool = True,
    distributions: bool = False,
    deadline: float = float("inf"),
    progress: bool = True,
) -> list[Sensitivity]:
    """Measure every site; the worst first. The model is left as it was.

    Args:
        data: calibration batches; one streaming pass over all of them, then `ALONE_BATCHES` for the errors of the model.
        alone: whether to measure `model_error`.
        distributions: whether to keep histograms of the inputs.
        deadline: `time.monotonic()` after which no further batch is begun, the first one aside.
    """
    counterparts = Counterparts(prepared)
    counts = {name: _Counts(kind) for name, kind in counterparts.kinds.items()}
    if distributions:
        for name, count in counts.items():
            count.distributions = Distribution.of_site(prepared, name)

    def compare(name: str, inputs: tuple[Any, ...], output: Tensor, int8: Compute, exact: Compute) -> None:
        counts[name].add(prepared.model.get_submodule(name), inputs, output, int8())

    with counterparts.visited(compare):
        for batch in _timed(data, "comparing sites", deadline, progress):
            run_batch(prepared.model, batch)
    errors = _alone(counterparts, data[:ALONE_BATCHES], deadline, progress) if alone else {}
    work = sum(count.macs for count in counts.values()) or 1
    rows = [
        Sensitivity(name, c.kind.name, c.error(), errors.get(name), c.macs / work, c.distributions or None)
        for name, c in counts.items()
    ]
    return sorted(rows, key=lambda row: -row.error)


def _alone(counterparts: Counterparts, data: Sequence[Any], deadline: float, progress: bool) -> dict[str, float]:
    """Relative error of the model's outputs with one site quantized, over the batches that time allowed."""
    model = counterparts.model
    chosen = ""

    def swap(name: str, inputs: tuple[Any, ...], output: Tensor, int8: Compute, exact: Compute) -> Tensor | None:
        return int8() if name == chosen else None

    errors = dict.fromkeys(counterparts.kinds, 0.0)
    energy = 0.0
    bar = tqdm(
        total=len(data) * len(errors), desc="quantizing each site alone", disable=None if progress else True, delay=2
    )
    with counterparts.visited(swap), bar:
        for batch in data:
            chosen = ""
            found = dict.fromkeys(errors, 0.0)
            expected = main_outputs(run_batch(model, batch))
            for chosen in found:
                if time.monotonic() > deadline:
                    return {n: (e / energy) ** 0.5 for n, e in errors.items()} if energy else {}
                given = main_outputs(run_batch(model, batch))
                found[chosen] = sum(_square(a - b, batch) for a, b in zip(given, expected, strict=True))
                bar.update()
            energy += sum(_square(tensor, batch) for tensor in expected)
            errors = {name: errors[name] + found[name] for name in errors}
    return {name: (error / energy) ** 0.5 for name, error in errors.items()} if energy else {}


def main_outputs(outputs: Any) -> list[Tensor]:
    """The logits of a model's outputs, or else its first tensor of floats; as float32."""
    if isinstance(outputs, Mapping):
        logits = [v for k, v in outputs.items() if "logits" in k and isinstance(v, Tensor)]
        if logits:
            return [tensor.float() for tensor in logits]
    return [next(tensor for tensor in tensors_of(outputs) if tensor.is_floating_point()).float()]


def _square(tensor: Tensor, batch: Any) -> float:
    """Sum of squares over what is no padding."""
    for name in ("attention_mask", "decoder_attention_mask") if isinstance(batch, Mapping) else ():
        mask = batch.get(name)
        if isinstance(mask, Tensor) and mask.shape == tensor.shape[:2]:
            tensor = tensor[mask.bool()]
            break
    return float(tensor.square().sum(dtype=torch.float64))


class _Counts:
    """Sums over the calls of one site."""

    def __init__(self, kind: SiteKind[Any]) -> None:
        self.kind = kind
        self.rows = 0
        self.macs = 0
        self.sums: list[Any] = [0, 0, 0]
        self.distributions: dict[str, Distribution] = {}

    def add(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor, int8: Tensor) -> None:
        """Count one call: the float output and the INT8 one."""
        self.macs += self.kind.multiply_adds(module, inputs, output)
        exact, given = (counted_rows(self.kind.output_rows(module, t)).float().double() for t in (output, int8))
        self.rows += len(exact)
        added = (given - exact).square().sum(0), exact.sum(0), exact.square().sum(0)
        self.sums = [total + part for total, part in zip(self.sums, added, strict=True)]
        if self.distributions:
            rows = self.kind.rows(module, inputs).values()
            for distribution, x in zip(self.distributions.values(), rows, strict=False):
                distribution.add(counted_rows(x))

    def error(self) -> float:
        """Root of the mean over channels of squared error over variance."""
        if not self.rows:
            return 0.0
        squared, first, second = self.sums
        spread = second - first.square() / self.rows
        alive = spread > 1e-9 * second.clamp(min=1e-30)
        return float((squared[alive] / spread[alive]).mean().sqrt()) if bool(alive.any()) else 0.0


def _timed(data: Iterable[Any], description: str, deadline: float, progress: bool) -> Iterable[Any]:
    for number, batch in enumerate(
        tqdm(data, desc=description, unit="batch", disable=None if progress else True, delay=2)
    ):
        if number and time.monotonic() > deadline:
            return
        yield batch
