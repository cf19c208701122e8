"""Servers on this machine that exports talk to: a hub that takes pushes, and one that speaks OpenAI's protocol."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret_of_the_test"


class Handler(BaseHTTPRequestHandler):
    """Answers with whatever the server's `answer` says: (status, object)."""

    server: Desk

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "chunked" not in self.headers.get("Transfer-Encoding", "")
            else self._chunks()
        )

    do_PUT = do_POST

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes) -> None:
        status, found = self.server.answer(self.command, urlparse(self.path).path, body, dict(self.headers))
        raw = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


Answer = Callable[[str, str, bytes, dict[str, str]], tuple[int, Any]]


class Desk(ThreadingHTTPServer):
    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def desk(answer: Answer) -> Iterator[Desk]:
    server = Desk(answer)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class PushHub:
    """A repository that takes files. It breaks off while `broken` uploads are left to break."""

    def __init__(self, root: Path, *, broken: int = 0) -> None:
        self.root, self.broken, self.url = root, broken, ""
        self.objects: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.created: list[dict[str, Any]] = []

    def __call__(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
        if not path.startswith("/upload/") and f"Bearer {TOKEN}" not in headers.values():
            return 401, {"error": "no"}
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return 200, {"url": f"{self.url}/own/model", "name": "own/model"}
        if "/preupload/" in path:
            return 200, {"files": [self._mode(file) for file in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self._object(each) for each in json.loads(body)["objects"]]}
        if path.startswith("/upload/"):
            return self._upload(path.rpartition("/")[2], body)
        if "/commit/" in path:
            return self._commit(body)
        return 200, {"id": "own/model", "sha": COMMIT, "siblings": []}

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["size"] > 20_000 or file["path"].endswith((".safetensors", ".gguf")) else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def _object(self, each: dict[str, Any]) -> dict[str, Any]:
        if each["oid"] in self.objects:
            return each
        return each | {"actions": {"upload": {"href": f"{self.url}/upload/{each['oid']}", "header": {}}}}

    def _upload(self, oid: str, body: bytes) -> tuple[int, Any]:
        if self.broken:
            self.broken -= 1
            return 400, {"error": "the line is bad"}
        assert hashlib.sha256(body).hexdigest() == oid
        self.uploads.append(oid)
        self.objects[oid] = body
        return 200, {}

    def _commit(self, body: bytes) -> tuple[int, Any]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.objects[value["oid"]]
        return 200, {"commitUrl": f"{self.url}/own/model/commit/{COMMIT}", "commitOid": COMMIT, "commitMessage": "ok"}
