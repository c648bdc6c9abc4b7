"""Reading a checkpoint: which files it is made of, and every check made before a value of it is used.

A checkpoint is `config.json` next to `model.safetensors` (or shards and `model.safetensors.index.json`). The header of
each weight file carries a CRC-32 of every tensor, so that a flipped bit or two swapped tensors are found. It guards
against damage, not against malice: who can write the file can write its sums.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError
from .metadata import CONFIG_NAME as CONFIG_NAME
from .metadata import PART_OF as PART_OF
from .metadata import check_metadata as check_metadata
from .metadata import part as part
from .ours import is_ours as is_ours
from .ours import same_type

logger = logging.getLogger(__name__)

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
CHECKSUMS_KEY = "optimum_int8_crc32"
"""Key in the header of a weight file; its value is a JSON object: tensor name to eight hexadecimal digits."""

MAX_JSON_BYTES = 64 << 20

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


@dataclass(frozen=True)
class TensorInfo:
    """What the header of a weight file says of one tensor."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises `CheckpointError` when it is missing, too large, or not a JSON object."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path.name} is {path.stat().st_size} bytes; expected at most {MAX_JSON_BYTES}")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.name} is missing from {str(path.parent)!r}; expected a checkpoint folder"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path.name} cannot be read as JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path.name} holds a JSON {type(values).__name__}; expected an object")
    return values


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the checkpoint in `folder`, which all lie directly in it.

    Raises:
        CheckpointError: there are none, the index is damaged, or it names a file outside the folder.
    """
    if (folder / WEIGHTS_NAME).is_file():
        return [folder / WEIGHTS_NAME]
    if (folder / INDEX_NAME).is_file():
        return [folder / name for name in shard_names(folder / INDEX_NAME)]
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for p in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{str(folder)!r} holds {pickles[0]!r} and no {WEIGHTS_NAME}; pickled weights are refused because loading "
            "them can run code. Convert them to safetensors first"
        )
    raise CheckpointError(f"{WEIGHTS_NAME} is missing from {str(folder)!r}; fetch or save the checkpoint again")


def shard_names(index: Path) -> list[str]:
    """The plain names of the shards in a safetensors index. Raises `CheckpointError` for any other name."""
    values = read_json(index)
    weight_map = values.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not isinstance(values.get("metadata"), dict):
        raise CheckpointError(f"{index.name} has no usable 'weight_map' and 'metadata'; fetch the checkpoint again")
    names = set()
    for name in weight_map.values():
        if not isinstance(name, str) or not name.endswith(".safetensors") or Path(name).name != name or "\\" in name:
            raise CheckpointError(f"{index.name} names the shard {name!r}; expected a .safetensors file next to it")
        names.add(name)
    return sorted(names)


def read_headers(files: Sequence[Path]) -> dict[str, TensorInfo]:
    """Name to `TensorInfo` of every tensor in `files`; no tensor is read.

    Raises:
        CheckpointError: a file that is missing, truncated, not safetensors, or repeats a tensor of another one.
    """
    headers: dict[str, TensorInfo] = {}

    def read(file: Path, handle: Any) -> None:
        for name in handle.keys():
            part = handle.get_slice(name)
            if part.get_dtype() not in DTYPES:
                raise CheckpointError(
                    f"tensor {name!r} in {file.name} has the type {part.get_dtype()}; expected INT8 or float"
                )
            if name in headers:
                raise CheckpointError(f"tensor {name!r} is both in {headers[name].file.name} and in {file.name}")
            headers[name] = TensorInfo(file, DTYPES[part.get_dtype()], tuple(part.get_shape()))

    for_each_file(files, read)
    return headers


def check_headers(
    headers: Mapping[str, TensorInfo],
    expected: Mapping[str, tuple[torch.dtype, Iterable[int]]],
    tied: Mapping[str, str],
    optional: Collection[str] = (),
    modules: Collection[str] | None = None,
) -> None:
    """Compare the tensors of a checkpoint with those the model expects: names, types and shapes.

    Args:
        headers: from `read_headers`, under the model's names.
        expected: name to (type, shape) of every tensor of the model.
        tied: tensor to the tensor it is tied to; a tied one may be absent, its scale too.
        optional: tensors that may be missing or of another size, as Transformers decides.
        modules: see `is_ours`.

    Raises:
        CheckpointError: a missing, foreign or different tensor.
    """
    for name, (dtype, shape) in expected.items():
        if name in optional:
            continue
        info = headers.get(name)
        if info is None:
            if _tied_source(name, tied) not in headers:
                raise CheckpointError(
                    f"tensor {name!r} is missing from the checkpoint; save it again with optimum_int8"
                )
        elif not same_type(info.dtype, dtype, is_ours(name, modules)) or info.shape != tuple(shape):
            raise CheckpointError(
                f"tensor {name!r} in {info.file.name} is {_describe(info.dtype, info.shape)}; "
                f"expected {_describe(dtype, tuple(shape))}"
            )
    foreign = sorted(set(headers) - set(expected))
    if foreign:
        raise CheckpointError(f"tensor {foreign[0]!r} in {headers[foreign[0]].file.name} has no place in the model")


def check_values(files: Sequence[Path], modules: Collection[str] | None = None) -> set[str]:
    """Read every tensor once: checksum, scales of INT8 modules (`is_ours`) finite and > 0, zero points 0..255, floats finite.

    Returns:
        Names of tensors that have a checksum and are in no file: lost, or never written since a model computes them.

    Raises:
        CheckpointError: the first tensor that fails.
    """

    names: set[str] = set()
    summed: set[str] = set()

    def check(file: Path, handle: Any) -> None:
        sums = _read_checksums(file, handle.metadata())
        summed.update(sums or ())
        names.update(handle.keys())
        for name in handle.keys():
            tensor = handle.get_tensor(name)
            if sums is not None and sums.get(name) != checksum(tensor):
                raise CheckpointError(f"tensor {name!r} in {file.name} is damaged (wrong CRC-32); fetch the file again")
            check_tensor(name, tensor, is_ours(name, modules))

    for_each_file(files, check)
    return summed - names


def check_tensor(name: str, tensor: torch.Tensor, ours: bool = True) -> None:
    """Raise `CheckpointError` when a value of `tensor` cannot be what its name says; of the model's own any finite one can."""
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(
            f"tensor {name!r} holds NaN or infinity; expected finite values. Quantize the model again"
        )
    if not ours:
        return
    if name.endswith("_scale") and not bool((tensor > 0).all()):
        raise CheckpointError(f"scale {name!r} holds {tensor.min().item():g}; expected values above 0. Quantize again")
    if name.endswith("_zero_point") and not bool(((tensor >= 0) & (tensor <= 255)).all()):
        raise CheckpointError(f"zero point {name!r} is {tensor.flatten()[0].item()}; expected 0 to 255")


def checksum(tensor: torch.Tensor) -> str:
    """CRC-32 of the tensor's bytes, as eight hexadecimal digits."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return f"{zlib.crc32(flat.view(torch.uint8).numpy().data):08x}"


def checksums(tensors: Mapping[str, torch.Tensor]) -> str:
    """The value written under `CHECKSUMS_KEY`."""
    return json.dumps({name: checksum(tensor) for name, tensor in tensors.items()}, separators=(",", ":"))


def for_each_file(files: Sequence[Path], visit: Callable[[Path, Any], None]) -> None:
    """Open each safetensors file and visit it; whatever safetensors objects to becomes a `CheckpointError`."""
    for file in files:
        try:
            with safe_open(file, framework="pt", device="cpu") as handle:
                visit(file, handle)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{file.name} is missing from {str(file.parent)!r}; fetch the checkpoint again"
            ) from error
        except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"{file.name} in {str(file.parent)!r} is damaged ({error}); fetch or save the checkpoint again"
            ) from error


def _read_checksums(file: Path, metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    """The sums in a file's header; None, with a warning, when a tool that rewrites safetensors has dropped them."""
    if not metadata or metadata.get("format") != "pt":
        raise CheckpointError(f"the header of {file.name} does not say that it is for PyTorch; fetch the file again")
    if set(metadata) == {"format"}:
        logger.warning("%s has no checksums: damage to its values cannot be found", file.name)
        return None
    if CHECKSUMS_KEY not in metadata:
        # A damaged key looks like this too, so an unknown one does not pass for an absent one.
        found = ", ".join(sorted(set(metadata) - {"format"}))
        raise CheckpointError(
            f"the header of {file.name} has {found!r}; expected {CHECKSUMS_KEY!r}: save the model again"
        )
    try:
        sums = json.loads(metadata[CHECKSUMS_KEY])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the header of {file.name} is damaged ({error}); fetch the file again") from error
    if not isinstance(sums, dict):
        raise CheckpointError(f"the header of {file.name} is damaged: {CHECKSUMS_KEY!r} is no JSON object")
    return sums


def _tied_source(name: str, tied: Mapping[str, str]) -> str | None:
    if name in tied:
        return tied[name]
    module, _, leaf = name.rpartition(".")
    source = tied.get(f"{module}.weight")
    return f"{source.rpartition('.')[0]}.{leaf}" if source else None


def _describe(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"
