"""`int8_programs.json`: graphs of a model's blocks, so that a loaded model captures none.

The file lies next to the weights. It holds each captured graph (`stored_graphs`) under what its block has to be (classes, settings, names,
shapes and dtypes of tensors) and under the guard key of its call. It is no part of what a checkpoint means: without it, or where it does
not fit, the model captures as ever. It says what it was made for, and another version of the packages, of the model's source or of its
settings does not read it. What it says is checked in the first call of each block (`stored_run`), and what the graph gives is compared
with what the module's own code gives, to the bit.

A sum over the file finds damage. As with the weights it guards against damage, not against malice: that is what the checks are for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import CheckpointError
from ..fx import Captured, NotCapturable, agree, other_shapes, structure_key
from ..fx.arguments import cache_tensors
from ..fx.compiler import Bound
from ..fx.own_run import OwnError
from ..passes import find_blocks
from .checkpoint import MAX_JSON_BYTES
from .metadata import PROGRAMS_NAME as PROGRAMS_NAME
from .program_facts import digest_of, facts_of, text_of
from .stored_graphs import Unstorable, graph_from_json
from .stored_run import Calls, run_checked
from .storing_graphs import graph_to_json

logger = logging.getLogger(__name__)

RunOwn = Callable[[list[Tensor]], tuple[Any, list[Tensor]]]

FORMAT_VERSION = 1
_HEAD = b'{"sha256":"'
_TAIL = b'",'
_DIGITS = 64


# -- writing ---------------------------------------------------------------------------------------------------------------


def dump(model: PreTrainedModel) -> bytes | None:
    """The file for what a model has captured; None where that is nothing, or cannot be stored."""
    blocks = find_blocks(model)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, block in blocks.items():
        with contextlib.suppress(NotCapturable):  # adapters have come in
            structure = structure_key(block.module) if any(block.variants.values()) else ()
            for key, variant in block.variants.items():
                if variant is not None:
                    _add(found, name, (structure, key), variant.captured)
    for compiler in {id(block.compiler): block.compiler for block in blocks.values()}.values():
        for shared, captured in compiler.captured.items():  # also where a block's own data did not do
            _add(found, "", shared, captured)
        for shared in compiler.refused:
            _add(found, "", shared, None)
    facts = facts_of(model)
    if not found or facts is None:
        return None
    body = {"format_version": FORMAT_VERSION, "made_for": facts, "graphs": list(found.values())}
    return signed(body)


def signed(body: dict[str, Any]) -> bytes:
    """A file of this content, with its sum."""
    text = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()[1:]
    return _HEAD + hashlib.sha256(text).hexdigest().encode() + _TAIL + text


def write(model: PreTrainedModel, folder: Path) -> bool:
    """Write the file into a checkpoint's folder, or remove one that is there where there is nothing to write. Returns whether it did.

    Raises:
        CheckpointError: the disk refuses.
    """
    content = dump(model)
    file = folder / PROGRAMS_NAME
    scratch = file.with_name(f".{file.name}.tmp")
    try:
        if content is None:
            file.unlink(missing_ok=True)
            return False
        scratch.write_bytes(content)
        scratch.replace(file)
        return True
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {str(file)!r}: {error}") from error


def _add(found: dict[tuple[str, str], Any], name: str, shared: tuple[Any, ...], captured: Captured | None) -> None:
    """Add an entry, if there is none for such a block and call. Without a graph it says that none can be captured."""
    structure, key = shared
    place = (digest_of(structure), text_of(key))
    if place in found:
        return
    about = {"name": name, "block": place[0], "key": place[1]}
    if captured is None:
        found[place] = {**about, "refused": True}
        return
    try:
        found[place] = {**about, "output": text_of(captured.output), **graph_to_json(captured)}
    except Unstorable as reason:
        logger.debug("%s: its graph is not stored: %s", name, reason)


# -- reading ---------------------------------------------------------------------------------------------------------------


def attach(model: PreTrainedModel, folder: Path) -> None:
    """Let the blocks of a model that was loaded from `folder` find their graphs there. The file is read when the first one asks."""
    if not (folder / PROGRAMS_NAME).is_file():
        return
    owner = weakref.ref(model)
    stored = Programs(folder / PROGRAMS_NAME, lambda: facts_of(owner()) if owner() is not None else None)
    for compiler in {id(b.compiler): b.compiler for b in find_blocks(model).values()}.values():
        compiler.stored = stored


class Programs:
    """The graphs in a file; it is read once."""

    def __init__(self, file: Path, facts: Callable[[], dict[str, Any] | None]) -> None:
        self._file = file
        self._facts = facts
        self._entries: dict[tuple[str, str], Any] | None = None

    def find(self, module: nn.Module, shared: tuple[Any, ...]) -> Candidate | None:
        """See `fx.compiler.Stored`."""
        if self._entries is None:
            self._entries = self._read()
        if not self._entries:
            return None
        structure, key = shared
        entry = self._entries.get((digest_of(structure), text_of(key)))
        return None if entry is None else Candidate(entry, module, self._file.name)

    @contextlib.contextmanager
    def watching(self, module: nn.Module) -> Iterator[Calls]:
        """See `fx.compiler.Stored`."""
        calls = Calls(module)
        with calls.recording():
            yield calls

    def _read(self) -> dict[tuple[str, str], Any]:
        """What is in the file; nothing, with a line in the log, where it is not for this model."""
        try:
            body = parse(self._file)
            expected = self._facts()
            found = body["made_for"]
            differing = [
                name for name in sorted({*(expected or {}), *found}) if (expected or {}).get(name) != found.get(name)
            ]
            if differing:
                raise Unstorable(f"it was made for another {differing[0]}")
            return {(entry["block"], entry["key"]): entry for entry in body["graphs"]}
        except (Unstorable, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as reason:
            logger.info("%s is not used, so that the model is captured anew: %s", self._file.name, reason)
            return {}


def parse(file: Path) -> dict[str, Any]:
    """The content of a file.

    Raises:
        Unstorable: it is damaged, too large, or of another version.
    """
    if file.stat().st_size > MAX_JSON_BYTES:
        raise Unstorable(f"it has {file.stat().st_size} bytes; expected at most {MAX_JSON_BYTES}")
    content = file.read_bytes()
    start = len(_HEAD) + _DIGITS
    text = content[start + len(_TAIL) :]
    said = content[len(_HEAD) : start]
    whole = content.startswith(_HEAD) and content[start : start + len(_TAIL)] == _TAIL
    if not whole or said != hashlib.sha256(text).hexdigest().encode():
        raise Unstorable("it is damaged")
    body = json.loads(b"{" + text)
    if type(body) is not dict or body.get("format_version") != FORMAT_VERSION:
        raise Unstorable(f"its format is not {FORMAT_VERSION}")
    return body


class Candidate:
    """A stored graph for one call of a block; see `fx.compiler.Candidate`."""

    def __init__(self, entry: Any, module: nn.Module, file: str) -> None:
        self.entry = entry
        self.module = module
        self.file = file

    def bind(
        self, key: Any, structure: Any, tensors: list[Tensor], results: list[Tensor], run_own: RunOwn, calls: Calls
    ) -> Bound | None:
        """The graph, once it gave the same at the sizes of the call and at larger ones.

        Raises:
            NotCapturable: in the process that wrote the file no graph could be captured.
        """
        if self.entry.get("refused") is True:
            raise NotCapturable("no graph of it could be captured when the checkpoint was made")
        try:
            if self.entry["output"] != text_of(structure):
                raise Unstorable("the module's results are of another structure")
            captured = graph_from_json(self.entry, structure)
            if captured.image not in (None, tuple(tensors[0].shape[2:])) or not captured.holds(tensors):
                return None
            self._check(captured, key, tensors, results, run_own, calls)
            return Bound(captured, self.module)
        except Exception as reason:  # an operator raises whatever it likes
            name = self.entry.get("name")
            logger.info("%s: the graph of %.80s is captured anew: %s", self.file, name, str(reason)[:200])
            return None

    def _check(
        self,
        captured: Captured,
        key: Any,
        tensors: list[Tensor],
        results: list[Tensor],
        run_own: RunOwn,
        calls: Calls,
    ) -> None:
        """Calls of INT8 operators are those of the own code, at larger sizes and at those of the call."""
        larger = _larger(captured, key, tensors)
        same = True
        if larger is not tensors:
            calls_of_larger = Calls(self.module)
            with contextlib.suppress(OwnError):  # the module may have a longest length
                with calls_of_larger.recording():
                    expected = run_own(larger)[1]
                same = agree(run_checked(captured, self.module, larger, calls_of_larger), expected)
        if not same or not agree(run_checked(captured, self.module, tensors, calls), results):
            raise Unstorable("it gives other values than the module")


def _larger(captured: Captured, key: Any, tensors: list[Tensor]) -> list[Tensor]:
    """The call at a larger batch and length, if the graph is for those. Of images the call itself: a larger one costs a second."""
    if tensors[0].dim() == 4 and tensors[0].is_floating_point():
        return tensors
    # A run of the own code compares versions, and tensors made in inference mode have none.
    with torch.inference_mode(False):
        larger, _ = other_shapes(tensors, (), cache_tensors(key))
    return larger if captured.holds(larger) else tensors
