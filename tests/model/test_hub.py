"""Checkpoints by their Hub id, against a server on this machine that answers as the Hub does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = {"main": COMMIT, "v2": COMMIT, COMMIT: COMMIT}
# The codes by which the Hub says why it answers 4xx.
REFUSED = {"someone/unknown": (401, "RepoNotFound"), "someone/gated": (403, "GatedRepo")}


@pytest.fixture
def hub(checkpoint: Callable[[str], Path]) -> Iterator[str]:
    """Its address; it holds `someone/small-clip`, an empty `someone/empty`, and what `REFUSED` says."""
    folder = checkpoint("clip")

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            if path.startswith("api/"):  # which further files there are: none
                self.answer(200 if "/tree/" in path else 404, b"[]", {"Content-Type": "application/json"})
                return
            owner, name, _, revision, file = path.split("/", 4)
            repository = f"{owner}/{name}"
            if repository in REFUSED:
                status, code = REFUSED[repository]
                self.answer(status, b"", {"X-Error-Code": code})
            elif revision not in REVISIONS:
                self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            elif repository == "someone/empty" or not (folder / file).is_file():
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            else:
                content = (folder / file).read_bytes()
                tag = f'"{hashlib.sha256(content).hexdigest()}"'
                self.answer(200, content, {"ETag": tag, "X-Repo-Commit": REVISIONS[revision]})

        def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


# Prints one line a model: what it says it is, or why it was refused.
PROGRAM = """
import json, sys, torch
from worker.model import load_model
from worker.model.interface import ModelLoadError
torch.set_num_threads(1)
for name, revision in json.loads(sys.argv[1]):
    try:
        model = load_model(name, revision=revision, device="cpu")
        model.warm_up()
        print(json.dumps([model.name, model.revision]))
    except ModelLoadError as refusal:
        print(json.dumps(str(refusal)))
"""


def test_a_hub_id_loads_with_its_commit_or_says_why_not(hub: str, tmp_path: Path) -> None:
    wanted = {
        ("someone/small-clip", None): ["someone/small-clip", COMMIT],
        ("someone/small-clip", "v2"): ["someone/small-clip", COMMIT],
        ("someone/small-clip", "v3"): "no revision 'v3'",
        ("someone/unknown", None): "the Hub shows no model 'someone/unknown'",
        ("someone/gated", None): "'someone/gated' is gated",
        ("someone/empty", None): "'someone/empty' lacks a file on the Hub",
    }
    # Its address is read once, when the Hub's client is imported: hence a process of its own.
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))},
        "HF_ENDPOINT": hub,
        "HF_HOME": str(tmp_path),
    }
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(list(wanted))], env=environment, capture_output=True, check=False
    )
    assert program.stderr == b""
    for line, expected in zip(program.stdout.splitlines(), wanted.values(), strict=True):
        found = json.loads(line)
        assert found == expected or (isinstance(expected, str) and expected in found)
