"""A Hugging Face Hub on 127.0.0.1 that the real clients talk to.

Give ``LoopbackHub.url`` to a subprocess as ``HF_ENDPOINT`` (the clients read it when they are imported);
``client_environment`` makes the whole environment.
"""

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from ms_marco import Rows, ms_marco_files

_FILE = re.compile(r"/(?:(?P<kind>datasets)/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<rest>.+)")
_QUESTION = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
    r"(?:/(?P<about>revision|tree|paths-info|preupload|commit)/(?P<revision>[^/]+)(?:/(?P<rest>.*))?)?"
)
_OBJECTS = re.compile(r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
_LARGE = (".safetensors", ".png")  # what goes by LFS


class LoopbackHub:
    """Serves repositories in the Hub's layout while its ``with`` block runs; repositories may be added at any time."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        """What was asked so far: method and path, as in ``HEAD /owner/name/resolve/main/config.json``."""
        self.status: int | None = None
        """The status that answers every request, if not None: a Hub in trouble."""
        self.may_write: set[str] = set()
        """Tokens that may make models and write to them; all may read."""
        self._repositories: dict[tuple[str, str], _Versions] = {}
        self._objects: dict[str, bytes] = {}  # what LFS holds, by SHA-256
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add_model(self, name: str, files: Mapping[str, bytes]) -> None:
        """A model: its files by their paths in the repository. An earlier one of that name is replaced."""
        self._repositories["models", name] = _Versions(name, dict(files))

    def add_dataset(self, name: str, files: Mapping[str, bytes]) -> None:
        """A data set: its files by their paths, of which ``README.md`` says which are which."""
        self._repositories["datasets", name] = _Versions(name, dict(files))

    def add_ms_marco(self, configs: Mapping[str, Mapping[str, Rows]], *, shards: int = 1) -> None:
        """``microsoft/ms_marco``: rows by configuration (v1.1, v2.1) and split, each split in ``shards`` files."""
        self.add_dataset("microsoft/ms_marco", ms_marco_files(configs, shards))

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """What a model holds there, by path."""
        return dict(self._repositories["models", name].revisions[revision].files)

    def is_private(self, name: str) -> bool:
        """Whether a model was made for its owner alone."""
        return self._repositories["models", name].private

    def answer(self, method: str, path: str, query: str, body: bytes, token: str = "") -> "_Answer":
        """What the Hub says to a request."""
        self.requests.append(f"{method} {path}")
        if self.status is not None:
            return _Answer(self.status)
        asked = _QUESTION.fullmatch(path)
        if method in ("POST", "PUT") and not (asked and asked["about"] == "paths-info"):
            return self._written(method, path, query, body) if token in self.may_write else _Answer(403)
        found = _FILE.fullmatch(path) or _QUESTION.fullmatch(path)
        if not found:
            return _Answer(404)
        kind, name, revision, rest = found.group("kind", "name", "revision", "rest")
        whole = self._repositories.get((kind or "models", name))
        if whole is None:
            return _Answer(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        repository = whole.revisions.get((revision or "main").replace("%2F", "/"))
        if repository is None:
            return _Answer(404, {"X-Error-Code": "RevisionNotFound"})
        if found.re is _FILE:
            return repository.file(rest)
        if found["about"] == "tree":
            return repository.tree(rest or "", recursive="recursive=true" in query.lower())
        if found["about"] == "paths-info":
            return repository.paths(json.loads(body)["paths"])
        return repository.info()

    def _written(self, method: str, path: str, query: str, body: bytes) -> "_Answer":
        """The answer to what makes, checks or changes a model."""
        if path == "/api/validate-yaml":
            return _Answer.json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if ("models", name) in self._repositories:
                return _Answer(409, {}, json.dumps({"url": f"{self.url}/{name}"}).encode())
            self.add_model(name, {".gitattributes": b""})
            self._repositories["models", name].private = asked.get("visibility") == "private"
            return _Answer.json({"url": f"{self.url}/{name}"})
        if path.startswith("/objects/") and method == "PUT":
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/objects/")
            self._objects[path.removeprefix("/objects/")] = body
            return _Answer(200)
        if _OBJECTS.fullmatch(path):
            objects = json.loads(body)["objects"]
            actions = {one["oid"]: {"upload": {"href": f"{self.url}/objects/{one['oid']}"}} for one in objects}
            return _Answer.json(
                {"transfer": "basic", "objects": [one | {"actions": actions[one["oid"]]} for one in objects]}
            )
        found = _QUESTION.fullmatch(path)
        if not found or found["about"] not in ("preupload", "commit"):
            return _Answer(404)
        whole = self._repositories["models", found["name"]]
        if found["about"] == "preupload":
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(_LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": whole.revisions["main"].oids.get(one["path"]),
                }
                for one in json.loads(body)["files"]
            ]
            return _Answer.json({"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        revision = whole.commit(lines, self._objects, in_pull_request="create_pr=1" in query)
        told = {"commitUrl": f"{self.url}/{found['name']}/commit/{whole.revisions[revision].sha}"}
        told["commitOid"] = whole.revisions[revision].sha
        if revision != "main":
            told["pullRequestUrl"] = f"{self.url}/{found['name']}/discussions/{revision.rpartition('/')[2]}"
        return _Answer.json(told)


class _Answer:
    def __init__(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        self.status, self.headers, self.body = status, dict(headers or {}), body

    @classmethod
    def json(cls, value: object) -> "_Answer":
        return cls(200, {"Content-Type": "application/json"}, json.dumps(value).encode())


class _Repository:
    def __init__(self, name: str, files: dict[str, bytes]) -> None:
        self.name, self.files = name, files
        self.oids = {path: hashlib.sha1(content).hexdigest() for path, content in files.items()}
        self.sha = hashlib.sha1(json.dumps(self.oids, sort_keys=True).encode()).hexdigest()

    def info(self) -> _Answer:
        siblings = [{"rfilename": path} for path in self.files]
        return _Answer.json({"id": self.name, "sha": self.sha, "private": False, "tags": [], "siblings": siblings})

    def file(self, path: str) -> _Answer:
        commit = {"X-Repo-Commit": self.sha}
        if path not in self.files:
            return _Answer(404, commit | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        return _Answer(200, commit | {"ETag": f'"{self.oids[path]}"', "Accept-Ranges": "bytes"}, self.files[path])

    def tree(self, folder: str, *, recursive: bool) -> _Answer:
        inside = f"{folder}/" if folder else ""
        below = [path for path in self.files if path.startswith(inside)]
        if not below:
            return _Answer(404, {"X-Error-Code": "EntryNotFound"})
        if not recursive:
            below = sorted({inside + path[len(inside) :].split("/")[0] for path in below})
        return _Answer.json([self._entry(path) for path in below])

    def paths(self, asked: list[str]) -> _Answer:
        folders = {str(Path(path).parent) for path in self.files}
        return _Answer.json([self._entry(path) for path in asked if path in folders or path in self.files])

    def _entry(self, path: str) -> dict[str, object]:
        if path in self.files:
            return {"type": "file", "oid": self.oids[path], "size": len(self.files[path]), "path": path}
        return {"type": "directory", "oid": self.sha, "size": 0, "path": path}


class _Versions:
    """A repository: its state by branch, pull request and commit."""

    def __init__(self, name: str, files: dict[str, bytes]) -> None:
        self.name, self.private = name, False
        self.revisions: dict[str, _Repository] = {}
        self._put("main", files)

    def commit(self, lines: list[dict[str, Any]], objects: Mapping[str, bytes], *, in_pull_request: bool) -> str:
        """Do what the lines of a commit say; the branch that it is on."""
        files = dict(self.revisions["main"].files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        requests = sum(name.startswith("refs/pr/") for name in self.revisions)
        revision = f"refs/pr/{requests + 1}" if in_pull_request else "main"
        self._put(revision, files)
        return revision

    def _put(self, revision: str, files: dict[str, bytes]) -> None:
        state = _Repository(self.name, files)
        self.revisions |= {revision: state, state.sha: state}


class _Server(ThreadingHTTPServer):
    hub: LoopbackHub
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _serve(self) -> None:
        body = self._body()
        target = urlsplit(self.path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if target.path.startswith("/objects/"):  # an address that was given to one who may write
            token = next(iter(self.server.hub.may_write), "")
        path = unquote(
            re.sub("%2F", "%252F", target.path, flags=re.I)
        )  # a slash in the name of a revision stays quoted
        answer = self.server.hub.answer(self.command, path, target.query, body, token)
        content, status = answer.body, answer.status
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted and status == 200:
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
            status, answer.headers["Content-Range"] = 206, f"bytes {start}-{end}/{len(content)}"
            content = content[start : end + 1]
        self.send_response(status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


def client_environment(home: Path, endpoint: str, **more: str) -> dict[str, str]:
    """The environment of a subprocess whose Hugging Face clients keep all they have under ``home``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "XDG_")) and not name.lower().endswith("_proxy")
    }
    cache = {"HF_HOME": str(home / "hf"), "TWO_TOWERS_CACHE": str(home / "two-towers")}
    return kept | {"HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"} | cache | more
