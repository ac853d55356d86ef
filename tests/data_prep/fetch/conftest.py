"""A small server on loopback that speaks as much of the Hub's API as downloading a data set needs; the real client talks to it."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

COMMIT = "c0ffee" * 6 + "beef"
"""The commit that every repository's `main` names."""


class Hub:
    """Repositories {name: {path: bytes}}, plain files of a web server, and what goes wrong."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.web: dict[str, bytes] = {}
        self.commit = COMMIT
        self.cut_after: dict[str, int] = {}
        """Path -> bytes after which the connection is dropped, again and again, until it is taken out."""
        self.stall_after: dict[str, int] = {}
        """Path -> bytes after which nothing more comes, until the server ends."""
        self.replaced: dict[str, bytes] = {}
        """Path -> what is sent instead of the file."""
        self.sent: Counter[str] = Counter()
        """Bytes sent by path."""
        self.ended = threading.Event()
        self.url = ""


@pytest.fixture
def server() -> Iterator[Hub]:
    """The server, running; this process's client is not yet told of it."""
    hub = Hub()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    http.daemon_threads = True
    hub.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield hub
    hub.ended.set()
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def hub(server: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The server, as the Hub of this process: what HF_ENDPOINT and HF_HUB_OFFLINE=0 do in a new one."""
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return server


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        """As GET, without a body."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Answer."""
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/web/"):
            self._file(path.removeprefix("/web/"), self.hub.web, body)
            return
        api, _, rest = path.strip("/").partition("/")
        if rest.count("/") < 3:  # the client says that it downloads, which asks for no answer
            self._error(404, "EntryNotFound")
            return
        if api == "api":
            _, owner, name, what, revision = rest.split("/", 4)
        else:
            owner, name, what, rest = rest.split("/", 3)
            revision, _, file = rest.partition("/")
        repo = self.hub.repositories.get(f"{owner}/{name}")
        if repo is None:
            self._error(404, "RepoNotFound")
        elif revision not in ("main", self.hub.commit):
            self._error(404, "RevisionNotFound")
        elif what == "revision":
            self._json({"id": f"{owner}/{name}", "sha": self.hub.commit})
        elif what == "tree":
            self._json([_entry(path, data) for path, data in repo.items()])
        else:
            self._file(file, repo, body)

    def _file(self, path: str, files: dict[str, bytes], body: bool) -> None:
        if path not in files:
            self._error(404, "EntryNotFound")
            return
        data = self.hub.replaced.get(path, files[path])
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start >= len(data) > 0:
            self._error(416, "")
            return
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("ETag", f'"{_digest(path, files[path])}"')
        self.send_header("X-Repo-Commit", self.hub.commit)
        self.send_header("Content-Length", str(len(data) - start))
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self._send(path, data[start:])

    def _send(self, path: str, data: bytes) -> None:
        limit = min(self.hub.cut_after.get(path, len(data)), self.hub.stall_after.get(path, len(data)))
        self.wfile.write(data[:limit])
        self.wfile.flush()
        self.hub.sent[path] += limit
        if limit < len(data):
            if path in self.hub.stall_after:
                self.hub.ended.wait()
            self.close_connection = True
            self.connection.shutdown(2)

    def _json(self, value: object) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _large(path: str) -> bool:
    return not path.endswith((".json", ".md"))


def _digest(path: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if _large(path) else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, data: bytes) -> dict:
    entry = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
    if _large(path):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry
