"""From the name a user gives to a local folder that holds the checkpoint."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from ..errors import CheckpointError
from . import checkpoint
from .failures import CLIENT_ERRORS, explain, retry
from .guards import LEGACY_WEIGHTS, TOKENIZER_FILES, is_legacy
from .integrity import check_blobs
from .metadata import PROGRAMS_NAME

_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/+-]{0,253}[A-Za-z0-9])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(
    model_id: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    subfolder: str = "",
) -> Path:
    """The folder of a checkpoint; one on the Hub is downloaded into the client's cache, at one commit.

    What was downloaded is compared with the sums the Hub announced. Only `config.json`, `generation_config.json`, `int8_programs.json` and
    safetensors files are fetched.

    Raises:
        CheckpointError: no such folder or repository, no access, no network, a bad name, or content that differs.
    """
    check_subfolder(subfolder)
    path = Path(model_id).expanduser()
    if path.is_dir():
        if subfolder and not (path / subfolder).is_dir():
            raise CheckpointError(f"{str(path)!r} has no folder {subfolder!r}; check subfolder=")
        return path / subfolder
    repo_id = check_repo_id(str(model_id))
    if revision is not None:
        check_revision(revision)
    access: dict[str, Any] = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
    try:
        api = huggingface_hub.HfApi()
        resolved = retry(lambda: api.resolve_revision(repo_id, revision=revision, **access), f"asking for {repo_id}")
        commit = resolved.resolved
        if not _COMMIT.fullmatch(commit):
            raise CheckpointError(f"the Hub names the commit {commit!r} of {repo_id!r}; expected 40 hexadecimal digits")
        return _download(repo_id, subfolder, {**access, "revision": commit, "force_download": force_download})
    except CLIENT_ERRORS as error:
        if isinstance(error, CheckpointError):
            raise
        raise explain(error, "download", repo_id) from error


def check_repo_id(name: str) -> str:
    """`name` when it can be a repository's. Raises `CheckpointError` otherwise, also for a folder that is not there."""
    path = Path(name).expanduser()
    if path.exists() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        kind = "folder" if path.is_dir() else "file"
        raise CheckpointError(f"{name!r} is a {kind} on this machine; expected the name of a repository, 'user/name'")
    try:
        validate_repo_id(name)
    except ValueError as error:
        raise CheckpointError(
            f"{name!r} is neither a folder that exists nor a repository name; expected a folder or 'user/name'"
        ) from error
    return name


def check_revision(revision: object) -> str:
    """`revision` when it can be a branch, tag, pull request or commit. Raises `CheckpointError` otherwise.

    The client writes a file named after the revision into its cache, so `../..` in it would write outside.
    """
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision:
        raise CheckpointError(f"{revision!r} is no revision; expected a branch, a tag, 'refs/pr/1' or a commit")
    return revision


def check_subfolder(subfolder: object) -> None:
    """Raise `CheckpointError` unless `subfolder` stays inside the checkpoint."""
    parts = Path(str(subfolder)).parts
    if not isinstance(subfolder, str) or Path(subfolder).is_absolute() or ".." in parts or "\\" in subfolder:
        raise CheckpointError(f"{subfolder!r} is no subfolder; expected a relative path without '..'")


def _download(repo_id: str, subfolder: str, options: dict[str, Any]) -> Path:
    """Fetch the files of one commit and return the folder they lie in."""

    def get(name: str) -> Path:
        def action() -> str:
            return huggingface_hub.hf_hub_download(repo_id, name, subfolder=subfolder or None, **options)

        return Path(retry(action, f"downloading {name} of {repo_id}"))

    def get_if_there(name: str) -> Path | None:
        path = f"{subfolder.rstrip('/')}/{name}" if subfolder else name
        known = huggingface_hub.try_to_load_from_cache(repo_id, path, options["cache_dir"], options["revision"])
        if known is huggingface_hub._CACHED_NO_EXIST and not options["force_download"]:
            return None
        try:
            return get(name)
        except LocalEntryNotFoundError:
            # Also raised for a refusal or a lost connection; then only a cache-only load may go on without the file.
            if options["local_files_only"]:
                return None
            raise
        except EntryNotFoundError:
            return None

    config = get(checkpoint.CONFIG_NAME)
    files = [config, get_if_there("generation_config.json"), get_if_there(PROGRAMS_NAME)]
    weights = get_if_there(checkpoint.WEIGHTS_NAME)
    if weights is None and is_legacy(checkpoint.read_json(config)):
        files += [get(LEGACY_WEIGHTS), *(get_if_there(name) for name in TOKENIZER_FILES)]
    elif weights is None:
        index = get_if_there(checkpoint.INDEX_NAME)
        if index is None:
            raise CheckpointError(f"{repo_id!r} has neither {checkpoint.WEIGHTS_NAME} nor {checkpoint.INDEX_NAME}")
        files += [index, *(get(name) for name in checkpoint.shard_names(index))]
    check_blobs(file for file in [*files, weights] if file is not None)
    return config.parent
