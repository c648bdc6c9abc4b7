"""Writing a checkpoint: complete or not at all."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel

from ..errors import CheckpointError
from . import checkpoint, programs
from .plugin import attach

WEIGHTS_PATTERN = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
"""Names of weight files and of their index."""


def save_pretrained(
    model: PreTrainedModel,
    save_directory: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    max_shard_size: int | str = "5GB",
) -> Path:
    """Write an INT8 model as a checkpoint folder: weights, `config.json`, generation settings, tokenizer.

    Everything is first written into a temporary folder next to the target, then renamed, so a full disk or a crash while
    writing leaves the target as it was. Files of an existing target that a checkpoint does not consist of stay.

    Args:
        model: an INT8 Transformers model, from `optimum_int8.quantize` or loaded.
        save_directory: the folder; made with its parents when missing.
        tokenizer: a tokenizer, processor or image processor to save as well; anything with `save_pretrained(folder)`.
        max_shard_size: larger checkpoints are split; bytes, or text such as `"5GB"`.

    Returns:
        The folder.

    Raises:
        CheckpointError: the model is not INT8, the target is a file, or the disk refuses.
    """
    if not isinstance(model, PreTrainedModel):
        raise CheckpointError(f"a {type(model).__name__} is no Transformers model; expected one with a config to save")
    attach(model)
    with written_beside(Path(save_directory)) as scratch:
        # Names stay the model's own: the metadata names modules by them.
        model.save_pretrained(scratch, max_shard_size=max_shard_size, save_original_format=False)
        programs.write(model, scratch)
        if tokenizer is not None:
            tokenizer.save_pretrained(scratch)
    return Path(save_directory).absolute()


@contextmanager
def written_beside(folder: Path) -> Iterator[Path]:
    """A temporary folder to write a checkpoint into; it becomes `folder` when the block ends without an error.

    Raises:
        CheckpointError: `folder` is a file, or the disk refuses; then nothing is left of what was written.
    """
    target = folder.absolute()
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{str(target)!r} is a file; expected a folder to save into")
    scratch = target.with_name(f".{target.name}-{uuid.uuid4().hex[:12]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir()
        yield scratch
        _publish(scratch, target)
    except (OSError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"cannot save to {str(target)!r}: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, target: Path) -> None:
    """Move what `scratch` holds to `target` by renames, which need no disk space."""
    mode = (scratch / checkpoint.CONFIG_NAME).stat().st_mode
    for file in scratch.rglob("*"):
        if file.is_file():
            file.chmod(mode)  # safetensors writes files that only their owner can read
            _make_durable(file)
    if not target.exists():
        scratch.rename(target)
        return
    written = {file.name for file in scratch.iterdir()}
    for file in sorted(scratch.iterdir()):
        if file.is_dir():
            shutil.rmtree(target / file.name, ignore_errors=True)
        file.replace(target / file.name)
    for old in target.iterdir():
        stale = old.name == programs.PROGRAMS_NAME or WEIGHTS_PATTERN.fullmatch(old.name)
        if stale and old.name not in written:
            old.unlink()  # of the earlier checkpoint: a loader would prefer or mix a shard


def _make_durable(file: Path) -> None:
    """Flush a file to disk: a delayed write would report a full disk only after the rename."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
