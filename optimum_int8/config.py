"""`Int8Config`: every setting of a quantization, its default and its check, in one place."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError

FORMAT_VERSION = 1
"""Version of the checkpoint layout that this package writes; newer ones are refused."""

QUANT_METHOD = "optimum_int8"
"""Value of `quantization_config["quant_method"]` in `config.json`."""

APPROACHES = ("dynamic", "static", "qat")
OBSERVERS = ("minmax", "moving_average", "percentile", "mse", "entropy")
GRANULARITIES = ("per_channel", "per_tensor")
ATTENTIONS = ("int8", "bfloat16", "float32")
"""From the coarsest to the finest."""

RESIDUALS = ("int8", "float32")
WEIGHT_RANGES = ("absmax", "search")
SMOOTHINGS = ("off", "fixed", "search")


@dataclass(frozen=True)
class Int8Config:
    """What to quantize, and how. Immutable; JSON in both directions (`to_dict`, `from_dict`, `save`, `load`).

    Args:
        approach: `"dynamic"` measures each token's range at run time and needs no data; `"static"` calibrates one range
            per tensor; `"qat"` starts from static and trains with fake quantization.
        max_lost_bits: static only: a linear whose tokens would lose more than so many of their 8 bits on average to the one range of
            the whole tensor, because a few tokens are outliers, measures a range per token at run time instead. None never does.
        observer: how calibration turns values into a range: `"minmax"`, `"moving_average"`, `"percentile"`, `"mse"`
            (least squared error over a histogram) or `"entropy"` (least Kullback-Leibler divergence).
        percentile: share of values, in percent, that the `"percentile"` observer keeps inside the range.
        averaging_constant: weight of a new batch in the `"moving_average"` observer, in (0, 1].
        histogram_bins: number of bins of the histogram observers; a power of two.
        weight_granularity: one weight scale per output channel, or one per tensor.
        weight_range: `"absmax"` takes a channel's largest weight as the end of its range; `"search"` clips it where the error of the
            channel's output is least.
        smooth_quant: `"fixed"` and `"search"` move outliers of activations into the weights (SmoothQuant), with one `smooth_alpha`
            or with the best one of each block; needs calibration data in the dynamic approach too.
        smooth_alpha: how much of the difficulty `smooth_quant="fixed"` moves, from 0 (none) to 1 (all).
        bias_correction: take the mean error that quantization makes on the calibration data out of the biases; static only.
        activation_bits: levels of a static activation, as a power of two: 8 (256 levels) or fewer, to study models
            under stress. The kernels stay those of 8 bits, so fewer save nothing; attention probabilities keep 8.
        attention: `"int8"` runs the attention core on INT8 queries, keys and values; `"bfloat16"` rounds them to bfloat16, which keeps
            outliers and is fast where the processor multiplies it; `"float32"` rounds nothing.
        residuals: static only: `"int8"` lets a sum between convolutions read a value from the bytes that the next convolution reads, which
            rounds it once more; `"float32"` does not. Sums of other layers, and a shortcut that is only added, stay float32.
        quantize_embeddings: store `nn.Embedding` tables as INT8 rows.
        exclude: qualified names of modules that stay FP32, with all that is below them. Exact names, never patterns.
        exclude_attention: qualified names of attention modules whose core stays float32, while their linears do not.
        exclude_types: class names (`"Linear"`, `"BertPooler"`) of modules that stay FP32, with all that is below them.
        accuracy_budget: largest relative loss of the task's metric, 0.01 for 1 %; a quantizer then tunes until it is kept. None
            quantizes once.
        max_trials: models that tuning may make and measure.
        timeout: seconds after which tuning stops, in the middle of a trial but for the first; None sets no limit.
        fuse: run fine-grained FX. Without it a model is slower and equal up to rounding: blocks sum the rows of norms in another order,
            compute activations and attention that a model writes out by polynomials, sum average pools as integers and fold batch norms and
            factors into scales, so that here and there an INT8 value is the next of its steps. Either that moves the result of a block of
            up to 16 INT8 layers by at most 2 % of its size (a deeper one's by more, as the root of their number), or no value moves by more
            than one step from one quantization to the next; else the block is not compiled. In model types that were measured, the result
            of a model moves by less than quantization moves it. All other rewrites keep the bits. `residuals` needs it: without blocks, and
            where a block's own code runs (`torch.compile`, hooks inside a block), sums are float32.

    Raises:
        ConfigError: a value outside what is listed here.

    Example:
        >>> Int8Config(approach="static", observer="percentile").approach
        'static'
    """

    approach: str = "dynamic"
    max_lost_bits: float | None = 2.0
    observer: str = "minmax"
    percentile: float = 99.99
    averaging_constant: float = 0.01
    histogram_bins: int = 2048
    weight_granularity: str = "per_channel"
    weight_range: str = "absmax"
    smooth_quant: str = "off"
    smooth_alpha: float = 0.5
    bias_correction: bool = False
    activation_bits: int = 8
    attention: str = "int8"
    residuals: str = "int8"
    quantize_embeddings: bool = True
    exclude: tuple[str, ...] = ()
    exclude_attention: tuple[str, ...] = ()
    exclude_types: tuple[str, ...] = ()
    accuracy_budget: float | None = None
    max_trials: int = 50
    timeout: float | None = None
    fuse: bool = True

    def __post_init__(self) -> None:
        check_choice("approach", self.approach, APPROACHES)
        check_choice("observer", self.observer, OBSERVERS)
        check_choice("weight_granularity", self.weight_granularity, GRANULARITIES)
        check_choice("weight_range", self.weight_range, WEIGHT_RANGES)
        check_choice("smooth_quant", self.smooth_quant, SMOOTHINGS)
        check_choice("attention", self.attention, ATTENTIONS)
        check_choice("residuals", self.residuals, RESIDUALS)
        check_number("percentile", self.percentile, 50.0, 100.0)
        check_number("averaging_constant", self.averaging_constant, 1e-6, 1.0)
        check_number("smooth_alpha", self.smooth_alpha, 0.0, 1.0)
        optional = (("accuracy_budget", 0.0, 1.0), ("timeout", 0.0, 1e9), ("max_lost_bits", 0.0, 8.0))
        for name, low, high in optional:
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), low, high)
        if type(self.max_trials) is not int or self.max_trials < 1:
            raise ConfigError(f"max_trials is {self.max_trials!r}; expected a whole number of at least 1")
        if (
            type(self.histogram_bins) is not int
            or not 512 <= self.histogram_bins <= 65536
            or self.histogram_bins & (self.histogram_bins - 1)
        ):
            raise ConfigError(f"histogram_bins is {self.histogram_bins!r}; expected a power of two from 512 to 65536")
        if type(self.activation_bits) is not int or not 2 <= self.activation_bits <= 8:
            raise ConfigError(f"activation_bits is {self.activation_bits!r}; expected a whole number from 2 to 8")
        if self.activation_bits < 8 and self.approach == "dynamic":
            raise ConfigError(
                f'activation_bits={self.activation_bits} needs static ranges; use approach "static" or "qat"'
            )
        for name in ("quantize_embeddings", "bias_correction", "fuse"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected true or false")
        for name in ("exclude", "exclude_attention", "exclude_types"):
            object.__setattr__(self, name, _check_names(name, getattr(self, name)))

    @property
    def needs_data(self) -> bool:
        """Whether quantizing under these settings takes calibration data."""
        return self.approach != "dynamic" or self.smooth_quant != "off"

    @property
    def spares_tokens(self) -> bool:
        """Whether calibration looks for linears that need a range per token."""
        return self.approach == "static" and self.max_lost_bits is not None and self.activation_bits == 8

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON types, defaults included."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Int8Config:
        """The inverse of `to_dict`. Raises `ConfigError` on a field this version does not know."""
        if not isinstance(values, dict):
            raise ConfigError(f"an INT8 configuration is a JSON object; found {type(values).__name__}")
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"unknown setting {unknown[0]!r}; known ones are {', '.join(sorted(known))}")
        return cls(**values)

    def save(self, path: str | Path) -> None:
        """Write the settings as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Int8Config:
        """Read what `save` wrote. Raises `ConfigError` when the file is missing or is not such JSON."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read the INT8 configuration {str(path)!r}: {error}") from error
        return cls.from_dict(values)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises `ConfigError` for a setting that is none of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raises `ConfigError` for a setting that is no number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}; expected a number from {low:g} to {high:g}")


def _check_names(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        raise ConfigError(f"{name} is {value!r}; expected a list of exact names")
    return tuple(value)
