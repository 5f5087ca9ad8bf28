"""A local server that answers clients of the Hugging Face Hub as the Hub does, without the Xet protocol."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_stand_in"
#: Files that the Hub keeps in a separate store and redirects to.
_LARGE = (".safetensors", ".bin")


@dataclass
class Hub:
    """What the stand-in holds and how it behaves; a test may change both while the server runs.

    Attributes:
        repositories: the folder of each model; every revision is the same commit.
        gated: models that only requests with `TOKEN` may read.
        refused: the status and the error code of the responses for each model that the Hub refuses.
        status: anything but 200 is the status of every response.
        cuts: how many downloads of large files break off halfway.
        requests: method, path and range of each request.
    """

    repositories: Mapping[str, Path]
    gated: frozenset[str] = frozenset()
    refused: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    revisions: frozenset[str] = frozenset({"main", "v2", COMMIT})
    status: int = 200
    cuts: int = 0
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """Return the value that `HF_ENDPOINT` needs."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve until the end of the context."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if self.hub.status != 200:
            self.answer(self.hub.status)
        elif path.startswith("store/"):
            self.store(path.removeprefix("store/"))
        elif path.startswith("api/") and not path.startswith("api/models/"):
            self.answer(404)
        elif path.startswith("api/models/"):
            owner, name, what, revision, *_ = path.removeprefix("api/models/").split("/")
            if self.may_see(f"{owner}/{name}", revision):
                self.api(f"{owner}/{name}", what)
        else:
            owner, name, _, revision, file = path.split("/", 4)
            if self.may_see(f"{owner}/{name}", revision):
                self.file(self.hub.repositories[f"{owner}/{name}"] / file)

    def may_see(self, repository: str, revision: str) -> bool:
        hub = self.hub
        status, code = hub.refused.get(repository, (200, ""))
        if repository not in hub.repositories and status == 200:
            status, code = 401, "RepoNotFound"
        if repository in hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status, code = 401, "GatedRepo"
        elif status == 200 and revision not in hub.revisions:
            status, code = 404, "RevisionNotFound"
        if status != 200:
            self.answer(status, headers={"X-Error-Code": code, "X-Error-Message": f"refused: {code}"})
        return status == 200

    def api(self, repository: str, what: str) -> None:
        files = sorted(file.name for file in self.hub.repositories[repository].iterdir())
        if what == "revision":
            siblings = [{"rfilename": name} for name in files]
            body: object = {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings}
        else:
            body = []  # Transformers only lists subfolders, and there are none
        self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json", "X-Repo-Commit": COMMIT})

    def file(self, file: Path) -> None:
        if not file.is_file():
            self.answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if file.suffix in _LARGE:
            # The Hub's store is another host, too: the client must not send its token there.
            location = f"http://localhost:{self.hub.port}/store/{file.parent.name}/{file.name}"
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "Location": location}
            self.answer(302, headers={"X-Repo-Commit": COMMIT, **linked})
        else:
            self.answer(200, content, {"ETag": f'"{digest[:40]}"', "X-Repo-Commit": COMMIT})

    def store(self, path: str) -> None:
        if "Authorization" in self.headers:
            self.answer(400)
            return
        folder, name = path.split("/")
        content = next((each / name).read_bytes() for each in self.hub.repositories.values() if each.name == folder)
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        if self.command == "GET" and self.hub.cuts:
            self.hub.cuts -= 1
            self.answer(206 if start else 200, content[start:], headers, sent=(len(content) - start) // 2)
            self.close_connection = True
        else:
            self.answer(206 if start else 200, content[start:], headers)

    def answer(
        self, status: int, content: bytes = b"", headers: Mapping[str, str] | None = None, sent: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:sent])

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""
