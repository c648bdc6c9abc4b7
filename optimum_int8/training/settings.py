"""`QatSettings`: how fake-quantized training treats ranges and the FP32 teacher; what it trains is in `TrainingArguments`."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Int8Config, check_choice, check_number

RANGES = ("learnable", "moving_average")


@dataclass(frozen=True)
class QatSettings:
    """Settings of quantization-aware training that are neither in `Int8Config` nor in `TrainingArguments`.

    Args:
        ranges: `"learnable"` trains the scale of every activation (LSQ's gradient, on the logarithm); `"moving_average"` follows the
            extremes of each step. Weights always have the scale of their largest value, as inference gives them.
        averaging_constant: weight of a new step in the moving average, in (0, 1].
        freeze_ranges_at: share of the training steps after which ranges stay as they are, so that weights converge to fixed scales;
            0 keeps the calibrated ranges, 1 never freezes.
        range_learning_rate: of learnable ranges, relative change per step; scheduled like the learning rate.
        distillation_weight: share of the loss that is the distance to the FP32 model's logits, in [0, 1]; 0 needs no teacher.
        temperature: divides the logits of both before they are compared (Hinton et al. 2015, arXiv:1503.02531).
        calibration_samples: examples of the training data that the ranges start from, where no calibration data is given.

    Raises:
        ConfigError: a value outside what is listed here.
    """

    ranges: str = "learnable"
    averaging_constant: float = Int8Config.averaging_constant
    freeze_ranges_at: float = 0.5
    range_learning_rate: float = 1e-2
    distillation_weight: float = 0.0
    temperature: float = 2.0
    calibration_samples: int = 128

    def __post_init__(self) -> None:
        check_choice("ranges", self.ranges, RANGES)
        check_number("averaging_constant", self.averaging_constant, 1e-6, 1.0)
        check_number("freeze_ranges_at", self.freeze_ranges_at, 0.0, 1.0)
        check_number("range_learning_rate", self.range_learning_rate, 0.0, 1.0)
        check_number("distillation_weight", self.distillation_weight, 0.0, 1.0)
        check_number("temperature", self.temperature, 0.01, 1000.0)
        check_number("calibration_samples", self.calibration_samples, 1, 1_000_000)

    @property
    def learnable(self) -> bool:
        """Whether ranges are parameters."""
        return self.ranges == "learnable"
