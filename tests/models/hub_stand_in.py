"""A hub on this machine: the few requests of the real one's protocol that a download makes, served from folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSALS = {"own/gated": (403, "GatedRepo"), "own/private": (401, "RepoNotFound"), "own/banned": (403, ""), "own/down": (500, "")}
HUGE = 10**18


class Hub(ThreadingHTTPServer):
    """Serves `root`/owner/name. `asked` is every path that was requested."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of /api/models/ID/revision/REV, /api/models/ID/tree/REV and /ID/resolve/REV/FILE."""

    server: Hub

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = urlparse(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        folder = self.server.root / name
        if name in REFUSALS or not folder.is_dir():
            status, reason = REFUSALS.get(name, (404, "RepoNotFound"))
            self._send(status, b"{}", body, {"X-Error-Code": reason, "X-Error-Message": "no"})
        elif rest and rest[0] == "revision" and rest[1] not in ("main", COMMIT):
            self._send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
        elif rest and rest[0] == "tree":
            self._send(200, json.dumps([self._entry(file) for file in sorted(folder.iterdir())]).encode(), body)
        elif rest and rest[0] == "resolve":
            self._send_file(folder / rest[2], body)
        else:
            self._send(200, json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode(), body)

    def _entry(self, file: Path) -> dict[str, object]:
        size = HUGE if file.parent.name == "huge" and file.suffix == ".safetensors" else file.stat().st_size
        return {"type": "file", "path": file.name, "size": size, "oid": hashlib.sha1(file.read_bytes()).hexdigest()}

    def _send_file(self, file: Path, body: bool) -> None:
        if not file.exists():
            return self._send(404, b"{}", body, {"X-Error-Code": "EntryNotFound"})
        content = file.read_bytes()
        size = HUGE if file.parent.name == "huge" and file.suffix == ".safetensors" else len(content)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Content-Length": str(size)}
        return self._send(200, content, body, headers)

    def _send(self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content)), "Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def hub(root: Path) -> Iterator[Hub]:
    server = Hub(root)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
