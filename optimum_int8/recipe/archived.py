"""Recipes of Intel Extension for PyTorch 2.x: a JSON object of modules, each with its quantizable ops by running number.

An op of a module has the module's name (`fqn`); a function has the name of the module whose code calls it, and is matched by its kind and
order there. An input is INT8 where `force_dtype` says so; a result is what its reader reads, but for sums.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..errors import ConfigError
from ..sites import recipe_traits
from .match import WITHOUT_PRODUCTS
from .op import Op, reject_constant
from .watch import Range, choose_qparams, stored_zero_point

DTYPES = {"torch.quint8": "uint8", "torch.qint8": "int8"}
ALGORITHMS = {
    "MinMaxObserver": "min_max",
    "MovingAverageMinMaxObserver": "moving_averager_min_max",
    "HistogramObserver": "mse",  # it looks for the range with the least squared error
}
"""torch's observer to ours. It counts when the file is calibrated with; the scales stay those of the file until then."""

_SECTIONS = {"q_op_infos": dict, "nonq_op_infos": dict, "layer_output_infos": list}
_KEYS = {"op_type": str, "fqn": str, "input_tensor_infos": list}
_MODULES = {
    "Linear": "linear", "Conv1d": "conv1d", "Conv2d": "conv2d", "Conv3d": "conv3d", "EmbeddingBag": "embedding", "Embedding": "embedding",
    "ReLU": "relu", "Flatten": "flatten", "MaxPool2d": "max_pool2d", "AvgPool2d": "avg_pool2d", "AdaptiveAvgPool2d": "adaptive_avg_pool2d",
}  # fmt: skip
_FUNCTIONS = {"fn": "max_pool2d", "add_": "add", "bmm": "matmul"}  # pooling is dispatched by a function of this name
_LINES = {
    "name": "op_type", "module": "fqn", "algorithm": "activation_observer", "weight_granularity": "weight_observer", "inputs_quantized": "force_dtype",
    "input_quantized_dtypes": "force_dtype", "input_scales": "scale", "input_zero_points": "zero_point", "weight_scales": "weight_tensor_infos",
    "outputs_quantized": "output_tensor_infos", "output_scales": "output_tensor_infos", "output_zero_points": "output_tensor_infos",
}  # fmt: skip
"""Our keys to the file's, for the lines in errors."""


def parse_archived(text: str, file: str) -> list[Op]:
    """The ops of such a file, in the order in which they ran.

    Raises:
        ConfigError: with the line, for what is not such JSON, cannot be a value, or needs SmoothQuant's factors.
    """
    try:
        modules = json.loads(text, parse_constant=reject_constant)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        reason = getattr(error, "msg", error)
        raise ConfigError(
            f"{file}, line {line}: this is not JSON ({reason}); expected modules with their ops"
        ) from error
    if not modules:
        raise ConfigError(
            f"{file}, line 1: found an empty JSON object; expected a list of ops, or modules with their ops"
        )
    starts = [match.start() for match in re.finditer(r'"op_type"\s*:', text)]
    places = list(zip(starts, [*starts[1:], len(text)], strict=False))
    found: list[tuple[float, Op]] = []
    for name, sections in modules.items():
        _require_sections(name, sections, file)
        for section in [key for key in sections if key in ("q_op_infos", "nonq_op_infos")]:  # in the order of the file
            for value in sections[section].values():
                start, stop = places.pop(0) if places else (len(text), len(text))
                if section == "q_op_infos":
                    found.append(_op(value, file, text, start, stop))
    return _joined([op for _, op in sorted(found, key=lambda pair: pair[0])])


def _require_sections(name: str, sections: Any, file: str) -> None:
    for key, kind in _SECTIONS.items():
        if not isinstance(sections, dict) or not isinstance(sections.get(key), kind):
            raise ConfigError(
                f"{file}, line 1: module {name!r} has no {key}; expected a list of ops, or modules with q_op_infos, nonq_op_infos and layer_output_infos "
                "as Intel Extension for PyTorch 2 wrote them"
            )


def _op(value: Any, file: str, text: str, start: int, stop: int) -> tuple[float, Op]:
    """An op, and what orders it: the number of its result."""
    line = text.count("\n", 0, start) + 1
    for key, kind in _KEYS.items():
        if not isinstance(value, dict) or not isinstance(value.get(key), kind):
            raise ConfigError(f"{file}, line {line}: an op without {key}; expected {', '.join(_KEYS)}")
    lines = {
        ours: line + text.count("\n", start, start + match.start())
        for ours, theirs in _LINES.items()
        if (match := re.search(rf'"{theirs}"\s*:', text[start:stop]))
    }
    name = _name(value["op_type"])
    is_module = value.get("op_type_is_module") is True
    path = value["fqn"].strip()
    is_site = is_module and name not in WITHOUT_PRODUCTS
    op = Op(0, name, module=path if is_site else None, owner=None if is_site else path)
    op.line = line
    op.lines = lines
    op.file = file
    inputs, outputs, weights = (_tensors(op, value, f"{k}_tensor_infos") for k in ("input", "output", "weight"))
    op.algorithm = ALGORITHMS.get(_setting(value, "activation_observer", "name"), "min_max")
    op.inputs_quantized = [_dtype(info) in DTYPES for info in inputs]
    op.inputs_flow, op.outputs_flow = ([str(info.get("id", "")) for info in infos] for infos in (inputs, outputs))
    for i, info in enumerate(inputs if op.is_quantized else ()):
        _note_qparams(op, "input", info, "int8" if i in recipe_traits(name).symmetric_inputs else None)
    quantized = [info.get("inf_dtype") in DTYPES and "scale" in info for info in outputs[:1]]
    op.outputs_quantized = [any(quantized) and recipe_traits(name).rounds_output]
    for info in outputs[:1] if op.output_quantized else ():
        _note_qparams(op, "output", info)
    if op.is_quantized and weights:
        _note_weight(op, weights[0], "per_tensor" in _setting(value, "weight_observer", "qscheme"))
    op.check()
    op.reconcile()
    numbers = [info["id"] for info in outputs if type(info.get("id")) is int]
    return (numbers[0] if numbers else float("inf")), op


def _name(op_type: str) -> str:
    """What an op computes, by `str` of its class or function."""
    found = re.fullmatch(r"<class '(?:.*\.)?(\w+)'>", op_type)
    if found:
        return _MODULES.get(found[1], found[1].lower())
    found = re.match(r"<(?:built-in )?(?:function|method) '?(?:.*\.)?(\w+)'?(?: at | of |>)", op_type)
    return _FUNCTIONS.get(found[1], found[1]) if found else op_type


def _tensors(op: Op, value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Those that are tensors: what is none stands as an empty object."""
    infos = value.get(key, [])
    if not isinstance(infos, list) or not all(isinstance(info, dict) for info in infos):
        raise op.refuse(key, infos, "a list of objects")
    return [info for info in infos if info]


def _dtype(info: dict[str, Any]) -> str:
    """In which an op reads a tensor; of a result, which has no `force_dtype`, in which it is held."""
    return str(info.get("force_dtype", info.get("inf_dtype")))


def _setting(value: dict[str, Any], observer: str, key: str) -> str:
    settings = value.get(observer)
    return str(settings.get(key, "")) if isinstance(settings, dict) else ""


def _note_qparams(op: Op, side: str, info: dict[str, Any], dtype: str | None = None) -> None:
    """A tensor's dtype, scale and zero point; int8 with another zero point than 0 is uint8 with a shifted one."""
    scale = info.get("scale")
    zero_point = info.get("zero_point")
    if isinstance(scale, dict) or info.get("smooth_quant_scaling_factor") is not None:
        raise op.refuse(f"{side}_scales", scale, "one scale, without SmoothQuant's factors: calibrate the model again")
    found = DTYPES.get(_dtype(info), "uint8")
    getattr(op, f"{side}_quantized_dtypes").append(found)
    if not isinstance(scale, list) or not isinstance(zero_point, list) or len(scale) != 1 or len(zero_point) != 1:
        return  # `check` refuses it where it is needed
    zero = zero_point[0]
    if found == "int8" and type(zero) is int and zero:
        found = "uint8"
        zero = zero + 128
    getattr(op, f"{side}_quantized_dtypes")[-1] = dtype or found
    getattr(op, f"{side}_scales").append(scale[0])
    getattr(op, f"{side}_zero_points").append(zero)


def _note_weight(op: Op, info: dict[str, Any], per_tensor: bool) -> None:
    if any(info.get("zero_point") or ()) or info.get("smooth_quant_scaling_factor") is not None:
        raise op.refuse("weight_scales", info, "a symmetric weight (zero points 0), without SmoothQuant's factors")
    op.weight_granularity = "per_tensor" if per_tensor else "per_channel"
    scales = info.get("scale")
    op.weight_scales = [scales] if scales else []


def _joined(ops: list[Op]) -> list[Op]:
    """Numbered, their tensors named, and the calls of one module as one op on a range that holds all of theirs."""
    known: dict[str, Op] = {}
    producers: dict[str, str] = {}
    kept: list[Op] = []
    for op in ops:
        first = known.setdefault(op.module, op) if op.module is not None else op
        if first is op:
            op.id = len(kept)
            kept.append(op)
        producers |= dict.fromkeys(op.outputs_flow, f"{first.name}{first.id}.output0")
        if first is not op:
            _widen(first, op)
            continue
        op.inputs_flow = [producers.get(n, f"{op.name}{op.id}.input{i}") for i, n in enumerate(op.inputs_flow)]
        op.outputs_flow = [f"{op.name}{op.id}.output0"]
    return kept


def _widen(first: Op, again: Op) -> None:
    if first.inputs_quantized != again.inputs_quantized:
        raise again.refuse(
            "inputs_quantized", again.inputs_quantized, f"{first.inputs_quantized}, as in its first call"
        )
    for i, dtype in enumerate(first.input_quantized_dtypes):
        (low, high), (other_low, other_high) = _range(first, i), _range(again, i)
        if other_low < low or other_high > high:
            limits = min(low, other_low), max(high, other_high)
            first.input_scales[i], first.input_zero_points[i] = choose_qparams(limits, dtype)


def _range(op: Op, i: int) -> Range:
    scale = op.input_scales[i]
    zero = stored_zero_point(op.input_zero_points[i], op.input_quantized_dtypes[i])
    return -zero * scale, (255 - zero) * scale
