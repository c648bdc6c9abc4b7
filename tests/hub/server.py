"""A Hugging Face Hub on 127.0.0.1 for tests: real HTTP for the real client, in memory, with faults on request.

Two ports: the second plays the storage that large files are sent to and fetched from, and refuses any request that
carries a token. Every request is logged before it is answered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hub.store import LARGE_SUFFIXES, Refusal, Repository, Store, StoredFile

DATE = "2026-01-01T00:00:00.000Z"
FRONT_MATTER = re.compile(r"\s*---\s*\n(.*?)\n---", re.S)


@dataclass
class Request:
    method: str
    path: str
    body: bytes
    token: str | None
    storage: bool
    status: int = 0


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose "METHOD path" matches.

    `status` answers with it; `cut` drops the connection: "upload" halfway through the request's body, "before" an answer,
    "after" the work but before the answer, "middle" halfway through the answer's body. `replace` sends this content
    instead; `meanwhile` is done before the request is.
    """

    pattern: str
    status: int | None = None
    cut: str | None = None
    replace: bytes | None = None
    times: int = 1
    headers: tuple[tuple[str, str], ...] = ()
    meanwhile: Callable[[], object] | None = None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: with Nagle every request costs 40 ms
    server: Any

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self) -> None:
        hub: Hub = self.server.hub
        length = int(self.headers.get("Content-Length", 0))
        fault = hub.take_fault(f"{self.command} {self.path}")
        if fault and fault.cut == "upload":
            self.rfile.read(length // 2)
            return self.drop()
        body = self.rfile.read(length)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        request = Request(self.command, self.path, body, token, self.server.storage)
        if fault and fault.cut == "before":
            return self.drop()
        if fault and fault.meanwhile:
            fault.meanwhile()
        try:
            if fault and fault.status:
                raise Refusal(fault.status, "injected fault", **dict(fault.headers))
            with hub.lock:
                status, headers, content = (StorageRoutes if self.server.storage else HubRoutes)(hub, request).answer()
        except Refusal as refusal:
            status, headers, content = refusal.status, refusal.headers, json.dumps({"error": str(refusal)}).encode()
        request.status = status
        hub.log.append(request)
        if fault and fault.cut == "after":
            return self.drop()
        self.send(status, headers, fault.replace if fault and fault.replace is not None else content, fault)

    def send(self, status: int, headers: dict[str, Any], content: bytes, fault: Fault | None) -> None:
        self.send_response(status)
        for name, value in {"X-Request-Id": "test", "Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.cut == "middle":
            self.wfile.write(content[: len(content) // 2])
            return self.drop()
        self.wfile.write(content)

    def drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer


Answer = tuple[int, dict[str, Any], bytes]


def as_json(value: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


class StorageRoutes:
    """The port of large files: `PUT /<sha256>` and `GET /<sha256>`."""

    def __init__(self, hub: Hub, request: Request) -> None:
        self.hub, self.request = hub, request

    def answer(self) -> Answer:
        if self.request.token:
            raise Refusal(400, "a token of the Hub was sent to the storage")
        sha256 = self.request.path.strip("/")
        if self.request.method == "PUT":
            if hashlib.sha256(self.request.body).hexdigest() != sha256:
                raise Refusal(400, "the upload is not what its name says")
            self.hub.store.large[sha256] = self.request.body
            return 200, {}, b""
        return 200, {"ETag": f'"{sha256}"'}, self.hub.store.large[sha256]


class HubRoutes:
    """The Hub itself. Methods are named after the part of the path that selects them."""

    def __init__(self, hub: Hub, request: Request) -> None:
        self.hub, self.store, self.request = hub, hub.store, request
        url = urlsplit(request.path)
        # Split before unquoting: in /tree/refs%2Fpr%2F1 the %2F belongs to the revision.
        self.parts = [unquote(part) for part in url.path.split("/")[1:]]
        self.query = parse_qs(url.query)

    def answer(self) -> Answer:
        if self.request.token and self.request.token not in self.store.tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")
        self.user, self.role = self.store.tokens.get(self.request.token or "", (None, None))
        parts = self.parts
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            action = parts[4] if len(parts) > 4 else "revision"
            method = getattr(self, f"model_{action.replace('-', '_')}", None)
            if method:
                return method("/".join(parts[2:4]), *parts[5:])
        elif parts[0] == "api":
            method = getattr(self, "api_" + "_".join(parts[1:]).replace("-", "_"), None)
            if method:
                return method()
        elif parts[2:] == ["info", "lfs", "objects", "batch"]:
            return self.batch(f"{parts[0]}/{parts[1].removesuffix('.git')}")
        elif parts[2:] == ["info", "lfs", "verify"]:
            return as_json({})
        elif parts[2:3] == ["resolve"]:
            return self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        raise Refusal(404, "Not found")

    def repository(self, name: str, *, write: bool = False, content: bool = False) -> Repository:
        if "create_pr" in self.query and not self.user:
            raise Refusal(401, "Only users may propose changes")
        return self.store.repository(name, self.user, self.role, write=write, content=content)

    def json(self) -> dict:
        return json.loads(self.request.body or b"{}")

    def api_whoami_v2(self) -> Answer:
        if not self.user:
            raise Refusal(401, "Invalid user token.")
        access = {"type": "access_token", "accessToken": {"displayName": "test", "role": self.role}}
        return as_json({"type": "user", "id": self.user, "name": self.user, "orgs": [], "auth": access})

    def api_repos_create(self) -> Answer:
        wanted = self.json()
        name = f"{wanted.get('organization') or self.user}/{wanted['name']}"
        made = self.store.create(name, self.user, self.role, wanted.get("visibility") == "private")
        # The client reads `url` also from the 409 of a repository that exists.
        return as_json({"url": f"{self.hub.url}/{name}", "name": name, "id": name}, 200 if made else 409)

    def api_validate_yaml(self) -> Answer:
        match = FRONT_MATTER.match(self.json()["content"])
        errors = []
        try:
            card = (yaml.safe_load(match[1]) if match else None) or {}
            for key in ("tags", "datasets", "metrics"):
                if not isinstance(card.get(key, []), list):
                    errors.append({"message": f'"{key}" must be an array'})
        except yaml.YAMLError as error:
            errors.append({"message": str(error)})
        warnings = [] if match else [{"message": "empty or missing yaml metadata in repo card"}]
        return as_json({"errors": errors, "warnings": warnings}, 400 if errors else 200)

    def model_revision(self, name: str, revision: str = "main") -> Answer:
        repository = self.repository(name)
        sha = repository.sha(revision)
        siblings = [{"rfilename": path} for path in sorted(repository.files(sha))]
        card = FRONT_MATTER.match(repository.files(sha).get("README.md", StoredFile()).data.decode())
        answer = {"id": name, "sha": sha, "private": repository.private, "tags": [], "siblings": siblings}
        answer["cardData"] = yaml.safe_load(card[1]) if card else None
        return as_json({**answer, "gated": "manual" if repository.gated else False})

    def model_tree(self, name: str, revision: str, *folder: str) -> Answer:
        root = "".join(f"{part}/" for part in folder)
        files = self.repository(name).files(revision)
        found = [file.describe(path) for path, file in sorted(files.items()) if path.startswith(root)]
        if root and not found:
            raise Refusal(404, f"{root} does not exist", "EntryNotFound")
        return as_json(found)

    def model_branch(self, name: str, branch: str) -> Answer:
        repository = self.repository(name, write=True)
        if f"refs/heads/{branch}" in repository.refs:
            raise Refusal(409, f"Reference already exists: {branch}")
        repository.refs[f"refs/heads/{branch}"] = repository.sha(self.json().get("startingPoint") or "main")
        return as_json({})

    def model_refs(self, name: str) -> Answer:
        refs = self.repository(name).refs.items()
        branches = [
            {"name": ref.removeprefix("refs/heads/"), "ref": ref, "targetCommit": sha}
            for ref, sha in refs
            if ref.startswith("refs/heads/")
        ]
        return as_json({"branches": branches, "tags": [], "converts": [], "pullRequests": []})

    def model_discussions(self, name: str, *change: str) -> Answer:
        self.repository(name)
        if change:
            number, _ = change
            self.store.repositories[name].pull_requests[int(number) - 1]["status"] = self.json()["status"]
            event = {"id": "1", "type": "status-change", "createdAt": DATE, "author": {"name": self.user}}
            return as_json({"newStatus": {**event, "data": {"status": self.json()["status"]}}})
        found = [
            {
                "title": pull_request["title"],
                "num": number,
                "author": {"name": pull_request["author"]},
                "createdAt": DATE,
                "status": pull_request["status"],
                "repo": {"name": name, "type": "model"},
                "isPullRequest": True,
            }
            for number, pull_request in enumerate(self.store.repositories[name].pull_requests, 1)
            if pull_request["status"] == self.query.get("status", ["open"])[0]
        ]
        return as_json({"discussions": found, "count": len(found), "start": 0})

    def model_preupload(self, name: str, revision: str) -> Answer:
        repository = self.repository(name, write="create_pr" not in self.query)
        answer = []
        for file in self.json()["files"]:
            large = file["path"].endswith(LARGE_SUFFIXES) and file["size"] > 0
            found = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            stored = repository.files(revision).get(file["path"])
            answer.append({**found, "oid": stored.etag} if stored else found)
        return as_json({"files": answer})

    def batch(self, name: str) -> Answer:
        wanted = self.json()
        self.repository(name, write="ref" in wanted)  # with create_pr the client names no ref: anybody may propose
        answer = []
        for item in wanted["objects"]:
            found = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.store.large:
                upload, verify = f"{self.hub.storage_url}/{item['oid']}", f"{self.hub.url}/{name}/info/lfs/verify"
                found["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
            answer.append(found)
        return as_json({"transfer": "basic", "objects": answer})

    def model_commit(self, name: str, revision: str) -> Answer:
        proposed = "create_pr" in self.query
        repository = self.repository(name, write=not proposed)
        ref, parent = repository.ref(revision), repository.sha(revision)
        lines = [json.loads(line) for line in self.request.body.splitlines() if line.strip()]
        header = lines[0]["value"]
        if ref is None or not parent.startswith(header.get("parentCommit", "")):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repository.files(parent))
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = StoredFile(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                content = self.store.large[value["oid"]]
                files[value["path"]] = StoredFile(sha256=value["oid"], large_size=len(content))
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        number = repository.open_pull_request(self.user or "", header["summary"]) if proposed else None
        sha = repository.commit(f"refs/pr/{number}" if number else ref, files, header["summary"])
        answer = {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"}
        if number:
            answer["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/{number}"
        return as_json(answer)

    def resolve(self, name: str, revision: str, path: str) -> Answer:
        repository = self.repository(name, content=True)
        sha = repository.sha(revision)
        file = repository.files(sha).get(path)
        if file is None:
            raise Refusal(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": sha})
        if file.sha256 is None:
            return 200, {"X-Repo-Commit": sha, "ETag": f'"{file.oid}"'}, file.data
        where = {"Location": f"{self.hub.storage_url}/{file.sha256}", "X-Linked-Etag": f'"{file.sha256}"'}
        return 302, {"X-Repo-Commit": sha, **where, "X-Linked-Size": file.size}, b""


class Hub:
    """The two servers, their state, the log of requests and the faults to come."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        for server, storage in zip(self.servers, (False, True), strict=True):
            server.daemon_threads, server.hub, server.storage = True, self, storage  # type: ignore[attr-defined]
        self.url, self.storage_url = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)
        self.reset()

    def reset(self) -> None:
        self.store, self.log, self.faults = Store(), list[Request](), list[Fault]()

    def start(self) -> Hub:
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def take_fault(self, request: str) -> Fault | None:
        """The fault for this "METHOD path", if there is one left."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None

    def requests(self, pattern: str) -> list[Request]:
        """The logged requests whose "METHOD path" matches."""
        return [r for r in self.log if re.search(pattern, f"{r.method} {r.path}")]
