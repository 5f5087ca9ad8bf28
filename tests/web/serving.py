"""A real ``nameshot serve`` and its clients."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.eventually import TIMEOUT_S
from tests.valkey_server import ValkeyServer

NAMESHOT = str(Path(sys.executable).with_name("nameshot"))
IMAGE = "http://images.example/owl.jpg"
LABELS = ["fox", "owl"]
JOB = {"image": IMAGE, "candidate_labels": LABELS}


@dataclass
class Server:
    """A running ``nameshot serve``.

    Attributes:
        log: the file with what it wrote on standard error.
    """

    url: str
    process: subprocess.Popen[str]
    log: Path

    def get(self, path: str, **options: Any) -> requests.Response:
        """Send GET."""
        return requests.get(self.url + path, timeout=TIMEOUT_S, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Send POST, with a JSON body unless it is None."""
        return requests.post(self.url + path, json=body, timeout=TIMEOUT_S, **options)

    def send(self, method: str, path: str, data: Any, headers: dict[str, str]) -> requests.Response:
        """Send a body as it is; an iterator in chunks."""
        return requests.request(method, self.url + path, data=data, headers=headers, timeout=TIMEOUT_S)

    def delete(self, path: str, **options: Any) -> requests.Response:
        """Send DELETE."""
        return requests.delete(self.url + path, timeout=TIMEOUT_S, **options)

    def submit(self, **options: Any) -> str:
        """Submit a job and return its id."""
        accepted = self.post("/v1/jobs", {**JOB, **options.pop("job", {})}, **options)
        assert accepted.status_code == 202, accepted.text
        job_id: str = accepted.json()["id"]
        return job_id

    @property
    def rss_bytes(self) -> int:
        """The memory that its process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """Kill it as ``kill -9`` does."""
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=TIMEOUT_S)


def command_for(*arguments: str) -> list[str]:
    return [NAMESHOT, "serve", *arguments]


def environment(valkey: ValkeyServer, **settings: str) -> dict[str, str]:
    """What `nameshot serve` needs, in its own role."""
    return {**os.environ, **valkey.settings("web"), **settings}


@contextmanager
def serving(valkey: ValkeyServer, log: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    """Run a server until the end of the block; it is ready when the block begins."""
    with running(command_for("--port", "0", *arguments), environment(valkey, **settings), log) as server:
        yield server


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[Server]:
    """Run the program of a server until the end of the block."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        first = process.stdout.readline().split()
        assert first, log.read_text()
        url = first[-1].replace("0.0.0.0", "127.0.0.1")
        # It listens already, and answers once it has loaded its libraries.
        assert requests.get(url + "/healthz", timeout=TIMEOUT_S).status_code == 200
        yield Server(url, process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=TIMEOUT_S)
        process.stdout.close()
