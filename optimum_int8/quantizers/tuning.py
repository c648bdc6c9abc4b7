"""What a quantizer does when `accuracy_budget` is set: tune by the task's own metric, and keep what was found."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import evaluate
from torch import nn

from ..config import Int8Config
from ..errors import ConfigError
from ..evaluation.data import take
from ..evaluation.metrics import compute_metric, load_metric

if TYPE_CHECKING:
    from ..tune import TuneResult
    from .base import Quantizer

logger = logging.getLogger(__name__)

RANKING_EXAMPLES = 32
"""Examples of the evaluation data on which a dynamic model without calibration data ranks its sites."""


def metric_function(
    quantizer: Quantizer, dataset: datasets.Dataset, metric: str | evaluate.EvaluationModule | None, batch_size: int
) -> Callable[[nn.Module], float]:
    """Model to the task's metric on `dataset`, which is prepared once.

    Raises:
        ConfigError, DataError: as `Quantizer.evaluate` raises them.
    """
    module = load_metric(quantizer.metric if metric is None else metric)
    references, features = quantizer.references(dataset), quantizer.preprocess(dataset)

    def measure(model: nn.Module) -> float:
        predictions = quantizer.predictions(model, features, batch_size, "measuring")
        return float(compute_metric(module, predictions, references)[1])

    return measure


def tune_quantizer(
    quantizer: Quantizer,
    config: Int8Config,
    batches: Iterable[Any] | None,
    evaluation_dataset: Any,
    metric: str | evaluate.EvaluationModule | None,
    batch_size: int,
    save_directory: str | Path | None,
) -> TuneResult:
    """Tune `quantizer.model`; the log of trials is beside the folder to save into: `<save_directory>.trials.json`.

    Raises:
        ConfigError: no `evaluation_dataset`.
    """
    from ..evaluation.data import load_dataset
    from ..tune import tune

    if evaluation_dataset is None:
        raise ConfigError(
            f"accuracy_budget is {config.accuracy_budget} and there is nothing to measure it on; pass evaluation_dataset=..."
        )
    data = load_dataset(evaluation_dataset)
    measure = metric_function(quantizer, data, metric, batch_size)
    if batches is None:
        batches = quantizer.calibration_batches(take(data, RANKING_EXAMPLES, seed=0), batch_size)
    log = None if save_directory is None else Path(f"{Path(save_directory)}.trials.json")
    return tune(quantizer.model, config, batches, measure, greater_is_better=quantizer.greater_is_better, log=log)


def sensitivity_files(result: TuneResult | None) -> dict[str, bytes]:
    """Page and picture by name; nothing where no site was measured, or matplotlib is missing."""
    from ..tune.page import PAGE, PICTURE, render_page

    if result is None or not result.sensitivity:
        return {}
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning("no sensitivity report: it needs matplotlib (pip install 'optimum-int8[report]')")
        return {}
    page, picture = render_page(result.sensitivity, "What INT8 costs each site", result.report)
    return {PAGE: page.encode(), PICTURE: picture}
