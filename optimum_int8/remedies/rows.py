"""What flows into linears during calibration: a fair sample of rows and the largest magnitude of each channel, in constant memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..calibration import counted_rows, run_batch
from ..errors import CalibrationError

ROWS = 256
"""Rows kept of each input: enough to rank candidates, 3 MB for 3072 channels."""

Hook = Callable[[nn.Module, tuple[Any, ...], Any], Any]


class Inputs:
    """Rows of one tensor, batch after batch.

    Args:
        count: rows kept; each row that was seen has the same chance to be among them.

    Attributes:
        rows: float32 `[at most count, channels]`.
        absmax: float32 `[channels]`, over every row that was seen.
    """

    def __init__(self, count: int = ROWS, seed: int = 0) -> None:
        self.count = count
        self.rows = torch.empty(0)
        self.absmax = torch.empty(0)
        self._lots = torch.empty(0)
        self._draw = torch.Generator().manual_seed(seed)

    def add(self, rows: Tensor) -> None:
        """Count rows `[n, channels]`."""
        if not rows.numel():
            return
        rows = rows.detach().float()
        largest = rows.abs().amax(0)
        lots = torch.rand(len(rows), generator=self._draw)
        if self.rows.numel():
            largest = torch.maximum(largest, self.absmax)
            rows = torch.cat([self.rows, rows])
            lots = torch.cat([self._lots, lots])
        keep = lots.topk(min(self.count, len(lots))).indices
        self.rows = rows[keep].clone()
        self._lots = lots[keep]
        self.absmax = largest


def collect_inputs(
    model: nn.Module, names: Iterable[str], data: Iterable[Any], *, count: int = ROWS, progress: bool = True
) -> dict[str, Inputs]:
    """A sample of what flows into the modules `names`; padding does not count. Those that no batch reached are absent.

    Raises:
        CalibrationError: there is no batch.
    """
    found = {name: Inputs(count) for name in names}

    def hook(name: str) -> Hook:
        return lambda module, inputs, output: found[name].add(counted_rows(inputs[0]))

    run_watched(model, {name: hook(name) for name in found}, data, "sampling inputs", progress)
    return {name: inputs for name, inputs in found.items() if inputs.rows.numel()}


def run_watched(
    model: nn.Module, hooks: Mapping[str, Hook], data: Iterable[Any], description: str, progress: bool = True
) -> None:
    """Run `model` over batches of calibration data with forward hooks on the modules they are named after.

    Raises:
        CalibrationError: there is no batch.
    """
    batches = 0
    with evaluating(model), contextlib.ExitStack() as stack:
        for name, hook in hooks.items():
            stack.callback(_returning_nothing(model.get_submodule(name), hook).remove)
        for batch in tqdm(data, desc=description, unit="batch", disable=None if progress else True, delay=2):
            run_batch(model, batch)
            batches += 1
    if not batches:
        raise CalibrationError("the calibration data holds no batch; expected at least one")


def _returning_nothing(module: nn.Module, hook: Hook) -> Any:
    def watch(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        hook(module, inputs or tuple(named.values()), output)

    return module.register_forward_hook(watch, with_kwargs=True)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode returns afterwards."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in training.items():
            module.training = mode
