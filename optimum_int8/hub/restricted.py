"""Reading old pickled weights without running anything: tensors and plain containers are built, all else is refused.

A pickle is a program that may call any function it can name. Here it can name three functions that build tensors and
two that make a dictionary, and marks for types; every name outside the list ends the reading.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from .pickle_reader import MAX_PROGRAM_BYTES, Function, PickleReader

SHARING = 4
"""Tied weights make several tensors of one storage; more than this many times the file's size is hostile."""

MAX_DIMENSIONS = 8

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


@dataclass(frozen=True)
class Mark:
    """A name of torch, such as a dtype."""

    name: str


@dataclass(frozen=True, eq=False)
class Plain:
    """A float or integer tensor."""

    values: torch.Tensor


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized tensor: `float = (values - zero_points) * scales` along `axis`; None is one scale for all."""

    values: torch.Tensor
    scales: torch.Tensor
    zero_points: torch.Tensor
    axis: int | None


def load_pickled_tensors(path: Path) -> dict[str, Any]:
    """The dictionary in a file that `torch.save` wrote: values are `Plain`, `Quantized` or plain Python values.

    Raises:
        CheckpointError: the file is damaged, is not in torch's zip format, or names anything else than tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = _Tensors(archive, path.stat().st_size).read()
    except CheckpointError:
        raise
    except Exception as error:  # a hostile pickle leads to anything
        raise CheckpointError(
            f"{path.name} cannot be read as pickled weights: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise CheckpointError(f"{path.name} holds a {type(found).__name__}; expected a dictionary of tensors")
    return found


class _Tensors:
    """Builds the tensors that a pickle describes from storages that lie uncompressed in the archive."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        programs = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise CheckpointError(
                "the pickled weights are not in torch's zip format; load and save them with torch first"
            )
        self._archive = archive
        self._root = programs[0].removesuffix("data.pkl")
        self._storages: dict[tuple[str, str], Plain] = {}
        self._unread = size
        self._budget = SHARING * size
        self._functions = {
            ("torch._utils", "_rebuild_tensor_v2"): Function(self._tensor),
            ("torch._utils", "_rebuild_parameter"): Function(self._parameter),
            ("torch._utils", "_rebuild_qtensor"): Function(self._quantized),
            ("collections", "OrderedDict"): Function(lambda: {}),
            ("neural_compressor", "DotDict"): Function(lambda: {}),
        }

    def read(self) -> Any:
        return PickleReader(self._find, self._storage).read(self._content("data.pkl", MAX_PROGRAM_BYTES))

    def _find(self, module: str, name: str) -> Any:
        if module == "torch" and (name in _STORAGES or name in _MARKS):
            return Mark(name)
        package = module.partition(".")[0] if name == "DotDict" else module
        if (package, name) not in self._functions:
            raise CheckpointError(
                f"the pickled weights name {module[:99]}.{name[:99]}; only tensors and plain containers are read"
            )
        return self._functions[package, name]

    def _storage(self, pid: Any) -> Plain:
        kind, mark, key, _, count = pid
        dtype = _STORAGES.get(mark.name) if kind == "storage" and isinstance(mark, Mark) else None
        if dtype is None or not isinstance(key, str):
            raise CheckpointError("the pickled weights hold a storage of an unknown kind")
        assert isinstance(mark, Mark)
        if (mark.name, key) not in self._storages:
            data = bytearray(self._content(f"data/{key}", self._unread))
            if len(data) != count * dtype.itemsize:
                raise CheckpointError(f"storage {key!r} has {len(data)} bytes; expected {count} values of {dtype}")
            values = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            self._storages[mark.name, key] = Plain(values)
        return self._storages[mark.name, key]

    def _content(self, name: str, limit: int) -> bytes:
        """An entry of the archive; all together are at most as large as the file, whatever its directory says."""
        entry = self._archive.getinfo(self._root + name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(
                f"{entry.filename} is compressed; torch does not do that, and it may unpack to any size"
            )
        self._unread -= entry.file_size
        if entry.file_size > limit or self._unread < 0:
            raise CheckpointError(f"{entry.filename} has {entry.file_size} bytes, more than can be in the file")
        return self._archive.read(entry)

    def _view(self, storage: Any, offset: Any, size: Any, stride: Any) -> torch.Tensor:
        """The part of a storage that a tensor consists of; all tensors together are bounded by the file's size."""
        numbers = [offset, *size, *stride]
        if (
            not isinstance(storage, Plain)
            or len(size) != len(stride)
            or len(size) > MAX_DIMENSIONS
            or any(type(n) is not int or not 0 <= n < 1 << 48 for n in numbers)
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
