"""A hub on this machine that speaks as much of the real one's protocol as a pull needs."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """`stall_at` makes it send so many bytes of a file and then nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.licence: str | None = None
        self.wrong_digest = False
        self.stall_at: int | None = None
        self.stalled = threading.Event()
        self.ranges: list[str | None] = []
        self.fetched: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/"):
            self._info(path.removeprefix("/api/models/").split("/revision/")[0])
            return
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        name = rest.partition("/")[2]
        content = self.server.repos.get(repo, {}).get(name)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        self._file(name, content, with_body)

    def _info(self, repo: str) -> None:
        files = self.server.repos.get(repo)
        if files is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": "b",
                "lfs": {"sha256": self._stated(content), "size": len(content), "pointerSize": 1},
            }
            for name, content in files.items()
        ]
        card = {"license": self.server.licence} if self.server.licence else {}
        info = {"id": repo, "sha": "c" * 40, "siblings": siblings, "cardData": card}
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _stated(self, content: bytes) -> str:
        return "0" * 64 if self.server.wrong_digest else hashlib.sha256(content).hexdigest()

    def _file(self, name: str, content: bytes, with_body: bool) -> None:
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        etag = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": "c" * 40, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if not with_body:
            self._send(200, b"", {**headers, "Content-Length": str(len(content))})
            return
        self.server.ranges.append(asked)
        self.server.fetched.append(name)
        stall = self.server.stall_at
        self._send(206 if asked else 200, content[start:], headers, stall)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], stall: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if stall is None:
            self.wfile.write(body)
            return
        self.wfile.write(body[:stall])
        self.wfile.flush()
        self.server.stalled.set()
        self.rfile.read(1)  # until the client goes


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    hub = Hub()
    serving = threading.Thread(target=hub.serve_forever, daemon=True)
    serving.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        serving.join()
