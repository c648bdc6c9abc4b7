"""How a quantizer makes its INT8 model: quantized once, trained, or tuned, as the configuration says."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from transformers import PreTrainedModel

from ..config import Int8Config
from ..errors import CalibrationError, ConfigError
from .training import train_int8
from .tuning import tune_quantizer

if TYPE_CHECKING:
    from ..tune import TuneResult
    from .base import Quantizer

logger = logging.getLogger(__name__)


def make_int8(
    quantizer: Quantizer,
    config: Int8Config,
    calibration_dataset: Any,
    batch_size: int,
    *,
    training: tuple[Any, Any, Any],
    tuning: tuple[Any, Any, str | Path | None],
) -> tuple[PreTrainedModel, TuneResult | None]:
    """The INT8 version of `quantizer.model`, and how it was tuned.

    Args:
        calibration_dataset, batch_size: as `Quantizer.quantize` takes them.
        training: its `train_dataset`, `training_args`, `qat_settings`.
        tuning: its `evaluation_dataset`, `metric`, `save_directory`.

    Raises:
        ConfigError, CalibrationError: as `Quantizer.quantize` raises them.
    """
    from ..nn import bare_parameters
    from ..quantize import quantize  # brings the compiler; `import optimum_int8.quantizers` stays quick

    trained, tuned = config.approach == "qat", config.accuracy_budget is not None
    if trained and training[0] is None:
        raise ConfigError('the approach "qat" trains; pass train_dataset=... with labels, or use approach="static"')
    if trained and tuned:
        raise ConfigError('the approach "qat" trains and accuracy_budget tunes; expected one of them')
    wanted = config.needs_data and not (trained and calibration_dataset is None)
    if wanted and calibration_dataset is None:
        raise CalibrationError(
            f"the approach {config.approach!r} needs data to measure ranges on; pass calibration_dataset=... "
            f'(100 to 300 examples are enough), or use approach="dynamic"'
        )
    batches = None
    looked_for = config.approach == "dynamic" and bool(bare_parameters(quantizer.model))  # on an example
    if wanted or ((tuned or looked_for) and calibration_dataset is not None):
        batches = quantizer.calibration_batches(calibration_dataset, batch_size)
    elif calibration_dataset is not None:
        logger.info("the dynamic approach measures ranges at run time; the calibration dataset is not used")
    if trained:
        return train_int8(quantizer, config, training[0], batches, *training[1:]), None
    if tuned:
        result = tune_quantizer(quantizer, config, batches, *tuning[:2], batch_size, tuning[2])
        return cast(PreTrainedModel, result.model), result
    return cast(PreTrainedModel, quantize(quantizer.model, config, batches)), None
