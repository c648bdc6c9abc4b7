"""`QuantConf`: the recipe of a model, op by op; `calibrate`: the block in which it watches."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from contextlib import ExitStack
from contextvars import ContextVar
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn

from ..errors import CalibrationError, ConfigError
from ..sites import recipe_traits
from ..sites.functional.trace_ops import OpTracer
from .archived import parse_archived
from .op import Op, parse
from .record import Recording, Seen
from .watch import choose_qparams

MAX_BYTES = 1 << 30


class QuantConf:
    """What each op of a model is quantized to: calibrated, saved as JSON, read, edited, and given to `convert`.

    Args:
        configure_file: a recipe to start from, of `save` or of Intel Extension for PyTorch, 1.x or 2.x. Calibrating with it keeps its
            settings and replaces its scales.
        qscheme: of a fresh recipe: `torch.per_tensor_affine` (uint8 with a zero point) or `torch.per_tensor_symmetric` (int8).

    Attributes:
        ops: list of `Op` in execution order; may be edited in place of the file.

    Raises:
        ConfigError: another qscheme; or a file that is missing, no such JSON, or holds a value that cannot be: with the line.

    Example:
        >>> import torch
        >>> from optimum_int8 import QuantConf, calibrate, convert
        >>> model, conf = torch.nn.Sequential(torch.nn.Linear(16, 4)), QuantConf(qscheme=torch.per_tensor_affine)
        >>> with torch.no_grad(), calibrate(conf):
        ...     y = model(torch.randn(8, 16))
        >>> convert(model, conf, torch.randn(8, 16))(torch.randn(2, 16)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self, configure_file: str | os.PathLike[str] | None = None, qscheme: torch.qscheme = torch.per_tensor_affine
    ) -> None:
        if qscheme not in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            raise ConfigError(f"qscheme is {qscheme}; expected torch.per_tensor_affine or torch.per_tensor_symmetric")
        self.qscheme = qscheme
        self._given = [] if configure_file is None else _read(Path(configure_file))
        self._ops: list[Op] | None = self._given or None
        self.recording = Recording(self._is_symmetric)

    @property
    def ops(self) -> list[Op]:
        """See the class."""
        if self._ops is None:
            given = {op.module: op for op in self._given}
            self._ops = [self._op(seen, given.get(seen.site.name)) for seen in self.recording.seen.values()]
        return self._ops

    def save(self, configure_file: str | os.PathLike[str]) -> None:
        """Write the recipe as JSON, complete or not at all.

        Raises:
            CalibrationError: nothing was calibrated.
        """
        if not self.ops:
            raise CalibrationError("this QuantConf is empty; call the model inside `with calibrate(conf):` first")
        path = Path(configure_file)
        text = json.dumps([op.to_dict() for op in self.ops], indent=4) + "\n"
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.absolute().parent, delete=False) as stream:
            stream.write(text)
        scratch = Path(stream.name)
        scratch.chmod(0o666 & ~_umask())
        scratch.replace(path)

    def model_or_none(self) -> nn.Module | None:
        """The model that was calibrated, while it is alive."""
        return None if self.recording.model is None else self.recording.model()

    def start(self) -> None:
        """Calibration begins: what it will see replaces the scales; the first block after a file was read forgets the file's."""
        if self._ops is not None and not self.recording.seen:
            self._given = self._ops
        elif self._ops is not None:
            self._given = [op for op in self._ops if op.module is not None]

    def forget(self) -> None:
        """The ops are built again from what was seen."""
        if self.recording.seen:
            self._ops = None

    def _is_symmetric(self, op: str, name: str, place: int) -> bool:
        given = next((g for g in self._given if g.module == name and len(g.input_quantized_dtypes) > place), None)
        if given is not None:
            return given.input_quantized_dtypes[place] == "int8"
        return place in recipe_traits(op).symmetric_inputs or self.qscheme == torch.per_tensor_symmetric

    def _op(self, seen: Seen, given: Op | None) -> Op:
        site = seen.site
        count = len(seen.inputs)
        dtypes = ["int8" if self._is_symmetric(site.op, site.name, i) else "uint8" for i in range(max(count, 1))]
        by_input = [watch.ranges() for watch in seen.inputs]
        ranges = {name: [r[name] for r in by_input] for name in (by_input[0] if by_input else {})}
        flags = [site.quantized] * max(count, 1)
        op = Op(
            id=seen.id,
            name=site.op,
            weight_scales=seen.weight_scales,
            input_quantized_dtypes=dtypes[:count],
            output_quantized_dtypes=dtypes[:1],
            inputs_quantized=flags,
            outputs_quantized=[False],
            inputs_flow=seen.inputs_flow,
            outputs_flow=[seen.output_flow],
            module=site.name,
            input_ranges=ranges,
            why_not=site.why_not,
        )
        if given is not None and given.name == op.name and len(given.inputs_quantized) == len(flags):
            op.algorithm = given.algorithm
            op.weight_granularity = given.weight_granularity
            op.inputs_quantized = given.inputs_quantized
            op.input_quantized_dtypes = given.input_quantized_dtypes
            if given.output_quantized and given.output_quantized_dtypes:
                op.outputs_quantized = [True]
                op.output_quantized_dtypes = given.output_quantized_dtypes
            op.line = given.line
            op.lines = given.lines
            op.file = given.file
        chosen = ranges.get(op.algorithm)
        if chosen is None and ranges:
            raise op.refuse("algorithm", op.algorithm, f"one of {', '.join(ranges)} for this op")
        qparams = [choose_qparams(r, d) for r, d in zip(chosen or [], op.input_quantized_dtypes, strict=True)]
        op.input_scales = [scale for scale, _ in qparams]
        op.input_zero_points = [zero_point for _, zero_point in qparams]
        result = seen.output.ranges().get("min_max")
        if result is not None:
            dtype = op.output_quantized_dtypes[0] if op.output_quantized_dtypes else dtypes[0]
            scale, zero_point = choose_qparams(result, dtype)
            op.output_scales = [scale]
            op.output_zero_points = [zero_point]
        if op.weight_granularity == "per_tensor" and op.weight_scales:
            op.weight_scales = [[max(scales)] for scales in op.weight_scales]
        return op


class calibrate:
    """`with calibrate(conf): model(x)`: what the model's ops read and give is observed for the recipe.

    Any call of a model, or of a method of it, counts; the model is found by itself and is not changed. Calls in other threads, and
    after the block, do not count. Blocks nest: each recipe sees what runs inside its own
    block, but a second model inside an inner block is the inner recipe's alone.

    Args:
        conf: gets what is seen.

    Raises:
        CalibrationError: two different models run for one recipe, or a value is not finite.
    """

    def __init__(self, conf: QuantConf) -> None:
        self.conf = conf
        self._entered: list[ExitStack] = []

    def __enter__(self) -> QuantConf:
        stack = ExitStack()
        if self.conf not in _active.get():
            self.conf.start()
            recording = self.conf.recording
            stop = sys._getframe(1)
            token = _active.set((*_active.get(), self.conf))
            stack.callback(_active.reset, token)
            stack.callback(self.conf.forget)
            stack.callback(recording.leave)
            stack.enter_context(tracing(recording, stop, self.conf))
        self._entered.append(stack)
        return self.conf

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.pop().close()


def tracing(recording: Recording, stop: FrameType | None = None, conf: QuantConf | None = None) -> OpTracer:
    """A mode in which `recording` traces this thread; frames from `stop` on do not count."""

    def trace(func: Any, args: Any, kwargs: Any, frame: FrameType) -> Any:
        innermost = conf is None or _active.get()[-1] is conf
        return recording.trace(func, args, kwargs, frame, stop, innermost)

    return OpTracer(trace)


_active: ContextVar[tuple[QuantConf, ...]] = ContextVar("active", default=())
_umask_lock = threading.Lock()


def _umask() -> int:
    with _umask_lock:
        mask = os.umask(0)
        os.umask(mask)
    return mask


def _read(path: Path) -> list[Op]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is {path.stat().st_size} bytes; expected a recipe of at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the recipe {str(path)!r}: {error}") from error
    ops = (parse_archived if text.lstrip().startswith("{") else parse)(text, path.name)
    if not ops:
        raise ConfigError(f"{path.name} holds no op; calibrate a model and save its recipe first")
    modules = [op.module for op in ops if op.module is not None]
    odd = next((op for op in ops if op.module is None and op.owner is None), None)
    if modules and odd is not None:
        raise odd.refuse("module", None, "a qualified module name, as the other ops have")
    for i, op in enumerate(ops):
        if op.module is not None and op.module in [other.module for other in ops[:i]]:
            raise op.refuse("module", op.module, "each module once")
    return ops
