"""Builds a task's INT8 model: quantized once, trained, or tuned, as the configuration says."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from transformers import PreTrainedModel

from ...config import Int8Config
from ...errors import CalibrationError, ConfigError
from .task import Task
from .training import TrainingRequest, train_int8
from .tuning import TuningRequest, tune_task

if TYPE_CHECKING:
    from ...tuning import TuneResult

logger = logging.getLogger(__name__)


class Int8Result(NamedTuple):
    """An INT8 model.

    Args:
        model: the model.
        tuning: how it was found, when an accuracy budget was set.
    """

    model: PreTrainedModel
    tuning: TuneResult | None = None


def build_int8(
    task: Task,
    config: Int8Config,
    calibration_dataset: Any,
    batch_size: int,
    *,
    training: TrainingRequest,
    tuning: TuningRequest,
) -> Int8Result:
    """The INT8 version of `task.model`, which stays as it is.

    Args:
        calibration_dataset, batch_size: as `Quantizer.quantize` takes them.

    Raises:
        ConfigError, CalibrationError: as `Quantizer.quantize` raises them.
    """
    from ...quantization import quantize  # brings the compiler; `import optimum_int8.quantizers` stays quick

    trained = config.approach == "qat"
    tuned = config.accuracy_budget is not None
    if trained and training.dataset is None:
        raise ConfigError('the approach "qat" trains; pass train_dataset=... with labels, or use approach="static"')
    if trained and tuned:
        raise ConfigError('the approach "qat" trains and accuracy_budget tunes; expected one of them')
    batches = _calibration_batches(task, config, calibration_dataset, batch_size)
    if trained:
        return Int8Result(train_int8(task, config, training, batches))
    if tuned:
        result = tune_task(task, config, batches, tuning, batch_size)
        return Int8Result(cast(PreTrainedModel, result.model), result)
    return Int8Result(cast(PreTrainedModel, quantize(task.model, config, batches)))


def _calibration_batches(task: Task, config: Int8Config, dataset: Any, batch_size: int) -> Iterable[Any] | None:
    """Batches of `dataset` where they are used. Raises `CalibrationError` where they are needed and `dataset` is None."""
    from ...sites import bare_parameters

    needed = config.needs_data and not (config.approach == "qat" and dataset is None)
    if dataset is None:
        if not needed:
            return None
        raise CalibrationError(
            f"the approach {config.approach!r} needs data to measure ranges on; pass calibration_dataset=... "
            f'(100 to 300 examples are enough), or use approach="dynamic"'
        )
    # Sites outside of modules are found by tracing an example.
    traced = config.approach == "dynamic" and bool(bare_parameters(task.model))
    if needed or traced or config.accuracy_budget is not None:
        return task.calibration_batches(dataset, batch_size)
    logger.info("the dynamic approach measures ranges at run time; the calibration dataset is not used")
    return None
