"""What the test Hub remembers: repositories, commits, references, large files. No HTTP here."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field

LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".onnx")
"""Files that the Hub keeps in large-file storage whatever their size."""


class Refusal(Exception):
    """An answer other than success; the client's exceptions depend on `code`, the header X-Error-Code."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **headers}


@dataclass(frozen=True)
class StoredFile:
    """One file of one commit. `sha256` is set for large files, whose bytes are in `Store.large`."""

    data: bytes = b""
    sha256: str | None = None
    large_size: int = 0

    @property
    def size(self) -> int:
        return self.large_size if self.sha256 else len(self.data)

    @property
    def oid(self) -> str:
        """The git blob id: of the content, or of the pointer that stands for a large file."""
        content = self.data
        if self.sha256:
            content = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()
            )
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid

    def describe(self, path: str) -> dict:
        large = {"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": 130}} if self.sha256 else {}
        return {"type": "file", "path": path, "oid": self.oid, "size": self.size, **large}


@dataclass
class Repository:
    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, StoredFile]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pull_requests: list[dict[str, str]] = field(default_factory=list)
    serial: itertools.count = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.commit("refs/heads/main", {".gitattributes": StoredFile(b"*.safetensors filter=lfs\n")}, "initial commit")

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    def commit(self, ref: str, files: dict[str, StoredFile], title: str) -> str:
        text = f"{self.name} {next(self.serial)} {title} {sorted((path, file.oid) for path, file in files.items())}"
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha], self.titles[sha], self.refs[ref] = files, title, sha
        return sha

    def ref(self, revision: str) -> str | None:
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((name for name in names if name in self.refs), None)

    def sha(self, revision: str) -> str:
        ref = self.ref(revision)
        if ref is None and revision in self.commits:
            return revision
        if ref is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.refs[ref]

    def files(self, revision: str = "main") -> dict[str, StoredFile]:
        return self.commits[self.sha(revision)]

    def open_pull_request(self, author: str, title: str) -> int:
        self.pull_requests.append({"author": author, "title": title, "status": "open"})
        number = len(self.pull_requests)
        self.refs[f"refs/pr/{number}"] = self.refs["refs/heads/main"]
        return number


class Store:
    """All of the Hub's state. Alice and Bob may write to their own namespaces, `hf_alice_read` may only read."""

    tokens = {"hf_alice": ("alice", "write"), "hf_alice_read": ("alice", "read"), "hf_bob": ("bob", "write")}

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}

    def repository(
        self, name: str, user: str | None, role: str | None, *, write: bool = False, content: bool = False
    ) -> Repository:
        """The repository, if `user` may see it, write to it, or read its content."""
        repository = self.repositories.get(name)
        if repository is None or (repository.private and user != repository.owner):
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        if content and repository.gated and user != repository.owner:
            raise Refusal(403 if user else 401, f"Access to model {name} is restricted", "GatedRepo")
        if write and (user != repository.owner or role != "write"):
            raise Refusal(403 if user else 401, "You don't have the rights to write to this repo")
        return repository

    def create(self, name: str, user: str | None, role: str | None, private: bool) -> bool:
        """Create the repository; False when it was there."""
        if user != name.split("/")[0] or role != "write":
            raise Refusal(403 if user else 401, f"You don't have the rights to create a model under {name}")
        if name in self.repositories:
            return False
        self.repositories[name] = Repository(name, private)
        return True
