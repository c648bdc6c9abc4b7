"""Reading old pickled weights without running anything: tensors and plain containers are built, all else is refused.

A pickle is a program that may call any function it can name. Here it can name three methods and two dictionary classes
of this file, and marks for types; every name outside the list ends the reading.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError

SHARING = 4
"""Tied weights make several tensors of one storage; more than this many times the file's size is hostile."""

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
}
_MARKS = (
    *("per_tensor_affine", "per_channel_affine", "per_channel_affine_float_qparams", "per_tensor_symmetric"),
    *("qint8", "quint8", "float32", "float16", "int8", "uint8", "int64", "int32", "bool"),
)


class _Inert:
    """Base of what a pickle can hold here: it has no state that the pickle could set."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise CheckpointError("the pickled weights set the state of an object; refused")


class Mark(_Inert):
    """A name of torch, such as a dtype."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Plain(_Inert):
    """A float or integer tensor."""

    __slots__ = ("values",)

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values


class Quantized(_Inert):
    """A quantized tensor: `float = (values - zero_points) * scales` along `axis`; None is one grid for all."""

    __slots__ = ("axis", "scales", "values", "zero_points")

    def __init__(self, values: torch.Tensor, scales: torch.Tensor, zero_points: torch.Tensor, axis: int | None) -> None:
        self.values, self.scales, self.zero_points, self.axis = values, scales, zero_points, axis


class _Builder(_Inert):
    """A function that the pickle may call."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class _Ordered(OrderedDict):
    """A state dict; the attributes that torch gives it are dropped, since they could hide its methods."""

    def __setstate__(self, state: object) -> None:
        pass


class _Settings(dict):
    """Neural Compressor's settings dictionary; its attributes are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


def load_pickled_tensors(path: Path) -> dict[str, Any]:
    """The dictionary in a file that `torch.save` wrote: values are `Plain`, `Quantized` or plain Python values.

    Raises:
        CheckpointError: the file is damaged, is not in torch's zip format, or names anything else than tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = _Unpickler(archive).load()
    except CheckpointError:
        raise
    except Exception as error:  # a hostile pickle makes the unpickler raise anything
        raise CheckpointError(
            f"{path.name} cannot be read as pickled weights: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise CheckpointError(f"{path.name} holds a {type(found).__name__}; expected a dictionary of tensors")
    return found


class _Unpickler(pickle.Unpickler):
    """Builds what `find_class` names, from storages that lie uncompressed in the archive."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        programs = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise CheckpointError(
                "the pickled weights are not in torch's zip format; load and save them with torch first"
            )
        self._archive, self._root = archive, programs[0].removesuffix("data.pkl")
        self._storages: dict[tuple[str, str], Plain] = {}
        self._budget = SHARING * sum(entry.file_size for entry in archive.infolist())
        super().__init__(archive.open(self._entry("data.pkl")))

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES or module == "torch" and name in _MARKS:
            return Mark(name)
        if module == "torch._utils" and name in _METHODS:
            return _Builder(getattr(self, _METHODS[name]))
        if (module, name) == ("collections", "OrderedDict"):
            return _Ordered
        if module.startswith("neural_compressor.") and name == "DotDict":
            return _Settings
        raise CheckpointError(f"the pickled weights name {module}.{name}; only tensors and plain containers are read")

    def persistent_load(self, pid: Any) -> Plain:
        kind, mark, key, _, count = pid
        dtype = _STORAGES.get(mark.name) if kind == "storage" and isinstance(mark, Mark) else None
        if dtype is None or not isinstance(key, str):
            raise CheckpointError(f"the pickled weights hold a storage of an unknown kind {pid!r}")
        if (mark.name, key) not in self._storages:
            data = bytearray(self._archive.read(self._entry(f"data/{key}")))
            if len(data) != count * dtype.itemsize:
                raise CheckpointError(f"storage {key!r} has {len(data)} bytes; expected {count} values of {dtype}")
            values = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            self._storages[mark.name, key] = Plain(values)
        return self._storages[mark.name, key]

    def _entry(self, name: str) -> zipfile.ZipInfo:
        entry = self._archive.getinfo(self._root + name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(
                f"{entry.filename} is compressed; torch does not do that, and it may unpack to any size"
            )
        return entry

    def _view(self, storage: Any, offset: Any, size: Any, stride: Any) -> torch.Tensor:
        """The part of a storage that a tensor consists of; all tensors together are bounded by the file's size."""
        numbers = [offset, *size, *stride]
        if (
            not isinstance(storage, Plain)
            or len(size) != len(stride)
            or any(type(n) is not int or n < 0 for n in numbers)
        ):
            raise CheckpointError("the pickled weights hold a malformed tensor")
        count = 1
        for length in size:
            count *= length
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if count and (last >= storage.values.numel() or count > storage.values.numel()):
            raise CheckpointError(f"the pickled weights hold a tensor of shape {list(size)} in too small a storage")
        self._budget -= count
        if self._budget < 0:
            raise CheckpointError("the pickled weights show the same storage as very many tensors; refused")
        return storage.values.as_strided(size, stride, offset) if count else storage.values.new_empty(size)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Plain:
        return Plain(self._view(storage, offset, size, stride))

    def _parameter(self, tensor: Any, *_: Any) -> Plain:
        if not isinstance(tensor, Plain):
            raise CheckpointError("the pickled weights hold a parameter that is no tensor")
        return tensor

    def _quantized(self, storage: Any, offset: Any, size: Any, stride: Any, grid: Sequence[Any], *_: Any) -> Quantized:
        values = self._view(storage, offset, size, stride)
        scheme, scales, zero_points = grid[:3]
        if not isinstance(scheme, Mark) or not scheme.name.startswith("per_"):
            raise CheckpointError("the pickled weights hold a quantized tensor of an unknown scheme")
        if scheme.name.startswith("per_tensor"):
            return Quantized(values, torch.tensor([float(scales)]), torch.tensor([float(zero_points)]), None)
        axis = grid[3]
        if not (
            isinstance(scales, Plain)
            and isinstance(zero_points, Plain)
            and type(axis) is int
            and 0 <= axis < values.dim()
        ):
            raise CheckpointError("the pickled weights hold a malformed quantized tensor")
        if not scales.values.shape == zero_points.values.shape == (values.shape[axis],):
            raise CheckpointError("the pickled weights hold a quantized tensor whose scales do not fit its shape")
        return Quantized(values, scales.values.float(), zero_points.values.float(), axis)


_METHODS = {
    "_rebuild_tensor_v2": "_tensor",
    "_rebuild_parameter": "_parameter",
    "_rebuild_qtensor": "_quantized",
}
"""Functions of `torch._utils` that torch writes into a pickle, to the methods that stand for them."""
