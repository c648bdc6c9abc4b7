"""Publishing a checkpoint: one commit, on the main branch, on another one, or proposed as a pull request."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.hf_api import RepoFile
from transformers import PreTrainedModel

from .._version import __version__
from ..errors import CheckpointError, ConfigError
from . import card_data, checkpoint
from .card import CardInfo, render_card
from .download import check_repo_id, check_revision
from .failures import CLIENT_ERRORS, explain, retry
from .integrity import git_sha1, sha256
from .save import WEIGHTS_PATTERN, save_pretrained

logger = logging.getLogger(__name__)

PUSHED = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model", "README.md", "LICENSE*", "sensitivity.*")
"""What a checkpoint consists of. Nothing pickled: `training_args.bin` may hold a token, and loading it runs code."""

SENSITIVITY_PAGE = "sensitivity.html"

_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")


@dataclass(frozen=True)
class Pushed:
    """Where a checkpoint went: the commit, its address, and the pull request's address if there is one.

    `changed` is False when the repository, or an open pull request, held the same files already.
    """

    repo_id: str
    commit: str
    url: str
    pull_request: str | None = None
    changed: bool = True


def push_to_hub(
    model: PreTrainedModel,
    repo_id: str,
    *,
    tokenizer: Any = None,
    report: Any = None,
    card_info: CardInfo | None = None,
    max_shard_size: int | str = "5GB",
    files: Mapping[str, bytes] | None = None,
    **options: Any,
) -> Pushed:
    """Save an INT8 model with its tokenizer and a model card, and publish it.

    Args:
        model: an INT8 Transformers model.
        repo_id: `"user/name"`; made when it does not exist.
        tokenizer: a tokenizer or processor to publish with it.
        report: an `EvaluationReport` or its `to_dict()`; the card shows it.
        card_info: what else the card says; the base model and its licence are found out when not given.
        max_shard_size: larger checkpoints are split.
        files: what else to publish, by name: the sensitivity report, which the card links.
        options: `private`, `revision`, `create_pr`, `token`, `commit_message`, as `push_folder` takes them.

    Raises:
        CheckpointError: the model is not INT8, or the Hub refuses; nothing is left half-published.
    """
    with tempfile.TemporaryDirectory(prefix="optimum-int8-push-") as scratch:
        folder = save_pretrained(model, Path(scratch) / "model", tokenizer=tokenizer, max_shard_size=max_shard_size)
        config = checkpoint.read_json(folder / checkpoint.CONFIG_NAME)
        info = card_data.complete(card_info or CardInfo(), model.name_or_path, options.get("token"))
        values = report.to_dict() if hasattr(report, "to_dict") else report
        for name, content in (files or {}).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        info = replace(info, sensitivity=info.sensitivity or _sensitivity_page(folder))
        (folder / "README.md").write_text(render_card(repo_id, config, values, info), encoding="utf-8")
        return push_folder(folder, repo_id, **options)


def push_folder(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    commit_message: str | None = None,
) -> Pushed:
    """Publish a checkpoint folder in one commit.

    A failed request is repeated when repeating can help. What the repository holds already is not sent again, and an
    open pull request with the same title and content is found instead of opening a second one.

    Args:
        folder: an INT8 checkpoint; without a `README.md` a card is rendered from its evaluation, if it has one.
        repo_id: `"user/name"`; made when it does not exist.
        private: whether a repository that has to be made is private.
        revision: the branch; made from the main one when it does not exist.
        create_pr: propose the change as a pull request to the main branch.
        token: of the Hub; None takes the one you are logged in with.
        commit_message: title of the commit or pull request.

    Raises:
        CheckpointError: no INT8 checkpoint in the folder, a token in one of its files, or the Hub refuses.
        ConfigError: `create_pr` together with another branch than the main one.
    """
    folder = Path(folder)
    name = check_repo_id(repo_id)
    if revision is not None:
        check_revision(revision)
    if create_pr and revision not in (None, "main"):
        raise ConfigError(f"create_pr proposes to the main branch and revision is {revision!r}; drop one of them")
    config = checkpoint.read_json(folder / checkpoint.CONFIG_NAME)
    checkpoint.check_metadata(config.get("quantization_config") or {})
    checkpoint.read_headers(checkpoint.weight_files(folder))
    files: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in _pushed_files(folder)}
    _refuse_tokens(files, token if isinstance(token, str) else huggingface_hub.get_token())
    if "README.md" not in files:
        report, info = card_data.read(folder)
        info = card_data.complete(replace(info, base_model=None), info.base_model, token)
        info = replace(info, sensitivity=_sensitivity_page(folder))
        files["README.md"] = render_card(repo_id, config, report, info).encode()
    message = (
        commit_message
        or f"Add INT8 model ({config['quantization_config']['config']['approach']}, optimum_int8 {__version__})"
    )
    api = HfApi(token=token)
    try:
        retry(lambda: api.create_repo(name, private=private, exist_ok=True), f"creating {name}")
        if revision not in (None, "main") and not str(revision).startswith("refs/pr/"):
            retry(lambda: api.create_branch(name, branch=str(revision), exist_ok=True), f"creating branch {revision}")
        pushed = retry(lambda: _commit(api, name, files, message, revision, create_pr), f"pushing to {name}")
        return _without_twin(api, pushed, files, message) if pushed.changed and pushed.pull_request else pushed
    except CLIENT_ERRORS as error:
        if isinstance(error, CheckpointError):
            raise
        raise explain(error, "push to", name) from error


def _commit(
    api: HfApi, name: str, files: dict[str, Path | bytes], message: str, revision: str | None, create_pr: bool
) -> Pushed:
    """One attempt. Its operations are made anew, so that a repetition sees what an earlier attempt left.

    The commit is bound to the one whose files were looked at: with somebody else's in between, whole weights could end up
    next to shards, and the configuration of one model next to the weights of another.
    """
    if create_pr:
        found = _find_pull_request(api, name, files, message)
        if found is not None:
            return found
    parent = str(api.repo_info(name, revision=revision).sha)
    stored = api.list_repo_files(name, revision=parent)
    stale = [path for path in stored if WEIGHTS_PATTERN.fullmatch(path) and path not in files]
    operations = [
        *(CommitOperationAdd(path, content) for path, content in files.items()),
        *(CommitOperationDelete(path) for path in stale),
    ]
    done = api.create_commit(
        name, operations, commit_message=message, revision=revision, create_pr=create_pr, parent_commit=parent
    )
    return Pushed(name, done.oid, done.commit_url, done.pr_url, changed=done.oid != parent)


def _without_twin(api: HfApi, pushed: Pushed, files: dict[str, Path | bytes], title: str) -> Pushed:
    """`pushed`, unless another process proposed the same just before: then that one, and `pushed` is closed."""
    number = int(str(pushed.pull_request).rsplit("/", 1)[1])
    first = _find_pull_request(api, pushed.repo_id, files, title)
    if first is None or first.pull_request is None or int(first.pull_request.rsplit("/", 1)[1]) >= number:
        return pushed
    try:
        api.change_discussion_status(pushed.repo_id, number, "closed", comment=f"The same as {first.pull_request}")
    except CLIENT_ERRORS as error:
        logger.warning("%s is the same as %s; close it (%s)", pushed.pull_request, first.pull_request, error)
    return first


def _find_pull_request(api: HfApi, name: str, files: dict[str, Path | bytes], title: str) -> Pushed | None:
    """The first open pull request of this title whose files are ours: left by an attempt whose answer was lost."""
    wanted = None
    found = api.get_repo_discussions(name, discussion_type="pull_request", discussion_status="open")
    for discussion in sorted((d for d in found if d.title == title), key=lambda d: d.num):
        wanted = wanted or {path: (sha256(content), git_sha1(content)) for path, content in files.items()}
        tree = [
            e
            for e in api.list_repo_tree(name, revision=discussion.git_reference, recursive=True)
            if isinstance(e, RepoFile)
        ]
        sums = {entry.path: (entry.lfs.sha256 if entry.lfs else entry.blob_id) for entry in tree}
        if all(sums.get(path) in pair for path, pair in wanted.items()):
            commit = api.repo_info(name, revision=discussion.git_reference).sha
            url = f"{api.endpoint}/{name}/commit/{commit}"
            return Pushed(name, str(commit), url, discussion.url, changed=False)
    return None


def _sensitivity_page(folder: Path) -> str | None:
    return SENSITIVITY_PAGE if (folder / SENSITIVITY_PAGE).is_file() else None


def _pushed_files(folder: Path) -> Iterator[Path]:
    inner = [
        path
        for pattern in ("additional_chat_templates/*.jinja", "1_Pooling/config.json")
        for path in folder.glob(pattern)
    ]
    for path in sorted([*folder.glob("*"), *inner]):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in PUSHED):
            yield path


def _refuse_tokens(files: dict[str, Path | bytes], token: str | None) -> None:
    """Raise `CheckpointError` when a text file holds the token in use, or what looks like one."""
    secret = (token or "").encode()
    for name, path in files.items():
        if not isinstance(path, Path) or path.suffix == ".safetensors":
            continue
        content = path.read_bytes()
        if (secret and secret in content) or _TOKEN.search(content):
            raise CheckpointError(
                f"{name} holds an access token of the Hub; remove it, and revoke the token if it was shared"
            )
