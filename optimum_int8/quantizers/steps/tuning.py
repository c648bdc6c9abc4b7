"""Tunes a task's INT8 model to an accuracy budget by the task's own metric, and shows what was found."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ...config import Int8Config
from ...errors import ConfigError
from ...evaluation.data import load_dataset, take
from .task import Task

if TYPE_CHECKING:
    import datasets
    import evaluate

    from ...tuning import TuneResult

logger = logging.getLogger(__name__)

RANKING_EXAMPLES = 32
"""Examples of the evaluation data on which a dynamic model without calibration data ranks its sites."""


@dataclass(frozen=True)
class TuningRequest:
    """What to keep an accuracy budget by.

    Args:
        dataset: what the metric is measured on, as `Quantizer.evaluate` takes it.
        metric: None takes the task's.
        save_directory: where the model will be saved; the log of trials is next to it, `<save_directory>.trials.json`.
    """

    dataset: Any = None
    metric: str | evaluate.EvaluationModule | None = None
    save_directory: str | Path | None = None


def metric_function(
    task: Task, dataset: datasets.Dataset, metric: str | evaluate.EvaluationModule | None, batch_size: int
) -> Callable[[nn.Module], float]:
    """Model to the task's metric on `dataset`, which is prepared once.

    Raises:
        ConfigError, DataError: as `Quantizer.evaluate` raises them.
    """
    from ...evaluation.metrics import compute_metric, load_metric

    module = load_metric(task.metric if metric is None else metric)
    references = task.references(dataset)
    features = task.preprocess(dataset)

    def measure(model: nn.Module) -> float:
        predictions = task.predictions(model, features, batch_size, "measuring")
        return compute_metric(module, predictions, references).value

    return measure


def tune_task(
    task: Task, config: Int8Config, batches: Iterable[Any] | None, request: TuningRequest, batch_size: int
) -> TuneResult:
    """Tune `task.model`.

    Args:
        batches: to calibrate on; None takes a few examples of the request's dataset to rank sites by.

    Raises:
        ConfigError: the request has no dataset.
    """
    from ...tuning import tune

    if request.dataset is None:
        raise ConfigError(
            f"accuracy_budget is {config.accuracy_budget} and there is nothing to measure it on; pass evaluation_dataset=..."
        )
    data = load_dataset(request.dataset)
    measure = metric_function(task, data, request.metric, batch_size)
    if batches is None:
        batches = task.calibration_batches(take(data, RANKING_EXAMPLES, seed=0), batch_size)
    folder = request.save_directory
    log = None if folder is None else Path(f"{Path(folder)}.trials.json")
    return tune(task.model, config, batches, measure, greater_is_better=task.greater_is_better, log=log)


def sensitivity_files(result: TuneResult | None) -> dict[str, bytes]:
    """Page and picture by name; nothing where no site was measured, or matplotlib is missing."""
    from ...tuning.page import PAGE, PICTURE, render_page

    if result is None or not result.sensitivity:
        return {}
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning("no sensitivity report: it needs matplotlib (pip install 'optimum-int8[report]')")
        return {}
    page, picture = render_page(result.sensitivity, "What INT8 costs each site", result.report)
    return {PAGE: page.encode(), PICTURE: picture}
