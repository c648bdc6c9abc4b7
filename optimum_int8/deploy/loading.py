"""`load`: a `.pt2` of ours as a module, after every check that needs none of its code to run."""

from __future__ import annotations

import json
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from ..errors import CheckpointError
from ..fx import shaped
from ..passes import LOWERING, run_passes
from .format import EXTRA, FORMAT_NAME, FORMAT_VERSION
from .sizes import SizeCheck, Sizes

MAX_JSON_BYTES = 256 << 20

_TARGETS = re.compile(
    r"torch\.ops\.(aten|optimum_int8)\.\w+(\.\w+)?|_operator\.\w+|torch\.sym_\w+|torch\._check\w*|math\.\w+"
    r"|torch\.ops\.higher_order\.wrap_with_set_grad_enabled"
)
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),.<>=!&|~]*")
_SYMBOL = re.compile(r"Symbol\('[suz]\w*'(, \w+=(True|False))*\)")
_NAMES = re.compile(r"[A-Za-z_]\w*")
_SYMBOLS = re.compile(
    r"[suz]\d+|zf\d+|oo|int_oo|True|False|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|TruncToInt|ToFloat"
    r"|IntTrueDiv|FloatTrueDiv|PowByNatural|RoundToInt|Identity|Where"
    r"|Integer|Rational|Add|Mul|Pow|evaluate"
)
"""What an expression of a size may contain: torch evaluates it."""


_WITH_SIZES = 2
"""Format from which on a file says for which sizes it holds."""


def load(path: str | os.PathLike[str]) -> nn.Module:
    """Read what `save` wrote; needs no source of the model.

    Returns:
        A module with the call of the model that was saved, on native kernels where they are. It raises `DataError` for sizes and options
        that the file is not made for; one of format 1 does not say them, which is warned of.

    Raises:
        CheckpointError: the file is missing, damaged, not ours, newer than this package, or holds what could run code: pickles, native
            libraries, other operators than torch's and ours.
    """
    source = Path(path)
    sizes = _check(source)
    try:
        module = lowered(torch.export.load(source))
        if sizes is not None:
            _insert_check(module, sizes)
    except Exception as error:  # torch raises many kinds on what it cannot read
        raise CheckpointError(
            f"{source.name} cannot be read ({type(error).__name__}: {error}); save the model again"
        ) from error
    return module


def lowered(exported: ExportedProgram) -> fx.GraphModule:
    """An exported program as a module on native kernels, where they are."""
    module: Any = exported.module()
    for node in module.graph.nodes:
        node.meta["val"] = shaped(node.meta.get("val"))
    run_passes(module, LOWERING)
    return module


def _insert_check(module: fx.GraphModule, sizes: Sizes) -> None:
    placeholders = module.graph.find_nodes(op="placeholder")
    if len(placeholders) != len(sizes.names):
        raise ValueError(f"its graph takes {len(placeholders)} arguments, its sizes are of {len(sizes.names)}")
    if not placeholders:
        return
    for node, axes in zip(placeholders, sizes.axes, strict=True):
        if axes[:1] == ["value"]:
            node.meta["val"] = None  # with it, torch checks the value before us
    module.add_submodule("_size_check", SizeCheck(sizes))
    with module.graph.inserting_after(placeholders[-1]):
        module.graph.call_module("_size_check", tuple(placeholders))
    module.recompile()


def _check(source: Path) -> Sizes | None:
    try:
        with zipfile.ZipFile(source) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise CheckpointError(f"{source.name} is damaged at {damaged!r} (wrong CRC-32); fetch the file again")
            entries = {str(PurePosixPath(*PurePosixPath(i.filename).parts[1:])): i for i in archive.infolist()}
            sizes = _check_about(source.name, entries, archive)
            _check_entries(source.name, entries, archive)
            return sizes
    except FileNotFoundError as error:
        raise CheckpointError(f"{str(source)!r} is missing; expected a .pt2 of optimum_int8") from error
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, RecursionError, EOFError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{source.name} is no readable .pt2 ({error}); fetch or save it again") from error


def _check_about(name: str, entries: dict[str, zipfile.ZipInfo], archive: zipfile.ZipFile) -> Sizes | None:
    """Check what the file says of itself; returns the sizes it holds for, None where its version does not say them."""
    if f"extra/{EXTRA}" not in entries:
        raise CheckpointError(f"{name} has no {EXTRA}; expected a .pt2 that optimum_int8 saved")
    about = _json(name, entries[f"extra/{EXTRA}"], archive)
    version = about.get("format_version") if isinstance(about, dict) else None
    if version is None or about.get("format") != FORMAT_NAME or type(version) is not int or version < 1:
        raise CheckpointError(f"{EXTRA} in {name} is not that of optimum_int8; expected a .pt2 that it saved")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{name} has format_version {version} and this optimum_int8 reads up to {FORMAT_VERSION}; upgrade optimum_int8"
        )
    if version < _WITH_SIZES:
        warnings.warn(
            f"{name} was saved by an earlier optimum_int8 and does not say for which sizes it holds: a model whose code asks for sizes "
            "may give wrong values at others than those of its example; save it again",
            stacklevel=4,
        )
        return None
    if "sizes" not in about:
        raise CheckpointError(f"{name} does not say for which sizes it holds; save the model again")
    return Sizes.from_json(name, about["sizes"])


def _check_entries(name: str, entries: dict[str, zipfile.ZipInfo], archive: zipfile.ZipFile) -> None:
    for path, info in entries.items():
        folder, _, file = path.rpartition("/")
        if folder in ("data/weights", "data/constants") and file.endswith("_config.json"):
            _check_payloads(name, _json(name, info, archive))
        elif folder in ("data/weights", "data/constants"):
            if not re.fullmatch(r"(weight|tensor)_\d+", file):
                raise CheckpointError(f"{name} holds {path!r}, which torch would unpickle; expected plain tensors")
        elif folder == "data/sample_inputs":
            if info.file_size:
                raise CheckpointError(
                    f"{name} holds pickled sample inputs; expected none: save the model with optimum_int8"
                )
        elif folder == "models":
            graph = _json(name, info, archive)
            if isinstance(graph, dict) and graph.get("guards_code"):
                raise CheckpointError(
                    f"the graph in {name} has guards, which are code; save the model with optimum_int8"
                )
            for key, value in _strings(graph):
                _check_string(name, key, value)
        elif folder not in ("", "extra", ".data"):
            raise CheckpointError(f"{name} holds {path!r}; expected a graph and its tensors alone")


def _json(name: str, info: zipfile.ZipInfo, archive: zipfile.ZipFile) -> Any:
    if info.file_size > MAX_JSON_BYTES:
        raise CheckpointError(f"{info.filename} in {name} is {info.file_size} bytes; expected at most {MAX_JSON_BYTES}")
    return json.loads(archive.read(info))


def _check_payloads(name: str, config: Any) -> None:
    for tensor, payload in config["config"].items():
        if payload.get("use_pickle") is not False:
            raise CheckpointError(f"tensor {tensor!r} in {name} is pickled; expected plain bytes")


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _strings(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)


def _check_string(name: str, key: str, value: str) -> None:
    if (
        key == "target"
        and "." in value
        and value.startswith(("torch", "_", "math", "builtins"))
        and not _TARGETS.fullmatch(value)
    ):
        raise CheckpointError(
            f"the graph in {name} calls {value!r}; expected operators of torch.ops.aten and optimum_int8"
        )
    plain = _SYMBOL.sub("s0", value) if key == "expr_str" else ""
    if not (_EXPRESSION.fullmatch(plain) and all(map(_SYMBOLS.fullmatch, _NAMES.findall(plain)))):
        raise CheckpointError(f"the graph in {name} has a size {value!r}; expected plain arithmetic")
