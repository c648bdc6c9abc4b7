"""Checking files of the Hugging Face cache against the sums that the Hub gave for them.

The client checks only the size of what it downloads. It stores each file as `blobs/<etag>`, and the ETag of the Hub
is the sha256 of an LFS file or the git sha1 of a small one, so the name says what the content has to be.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

CHUNK_BYTES = 1 << 20


def check_blobs(files: Iterable[Path]) -> None:
    """Compare each file that is a blob of the Hub's cache with its sum; other files are left alone.

    Raises:
        CheckpointError: the content is not what the Hub announced.
    """
    for file in files:
        blob = file.resolve()
        digest = _digest_for(blob)
        if digest is not None and digest != blob.name:
            raise CheckpointError(
                f"{file.name} is not what the Hub announced (sum {digest[:12]}…, expected {blob.name[:12]}…); delete "
                f"{str(blob)!r} and download again"
            )


def sha256(content: Path | bytes) -> str:
    """Sum that the Hub keeps for a large file."""
    return _digest(hashlib.sha256(), content)


def git_sha1(content: Path | bytes) -> str:
    """Sum that the Hub keeps for a small file: its git blob id."""
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    return _digest(hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), content)


def _digest_for(blob: Path) -> str | None:
    """The blob's sum by the rule its name implies, or None when its name is no sum."""
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return sha256(blob)
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{40}", blob.name):
        return git_sha1(blob)
    return None


def _digest(digest: Any, content: Path | bytes) -> str:
    if isinstance(content, bytes):
        digest.update(content)
        return digest.hexdigest()
    with content.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
