"""Programs of either version: one that uses the client, and null workers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any, Self

from tests.acceptance.worker_process import Worker
from tests.version_before.archive import Version

PROGRAM = Path(__file__).with_name("client_program.py")
REPLY_TIMEOUT_S = 60.0


class ClientProgram:
    """A running client program; a context manager that ends it. Several threads may use it."""

    def __init__(self, version: Version, settings: Mapping[str, str]) -> None:
        self.version = version
        self._process = subprocess.Popen(
            # -P: the folder of the program holds other modules.
            [sys.executable, "-P", str(PROGRAM)],
            cwd=version.source,
            env={**version.environment, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._numbers = count()
        self._replies: dict[int, Future[Any]] = {}
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def submit(self, jobs: Sequence[Mapping[str, Any]]) -> list[str]:
        """Submit the jobs; return ``accepted`` or the name of the error for each."""
        replies: list[str] = self.ask("submit", jobs).result(REPLY_TIMEOUT_S)
        return replies

    def statuses(self, job_ids: Sequence[str]) -> list[str]:
        """Return the state of each job."""
        replies: list[str] = self.ask("status", job_ids).result(REPLY_TIMEOUT_S)
        return replies

    def wait(self, job_ids: Sequence[str]) -> Future[list[list[str] | str]]:
        """Return a future of all answers: for each, its labels in order, or the error's code or name."""
        return self.ask("wait", job_ids)

    def cancel(self, job_id: str) -> bool:
        """Cancel the job; return whether it was cancelled."""
        (reply,) = self.ask("cancel", [job_id]).result(REPLY_TIMEOUT_S)
        return bool(reply)

    def ask(self, word: str, each: Sequence[Any]) -> Future[Any]:
        """Send one request to the program; return a future of the reply."""
        number = next(self._numbers)
        reply: Future[Any] = Future()
        self._replies[number] = reply
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"number": number, "word": word, "each": list(each)}) + "\n")
        self._process.stdin.flush()
        return reply

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            number, replies = json.loads(line)
            self._replies.pop(number).set_result(replies)
        for reply in self._replies.values():
            reply.set_exception(RuntimeError("the client's program has ended; see its standard error"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def null_worker(version: Version, folder: Path, settings: Mapping[str, str]) -> Worker:
    """Return a worker of that version, with its files in the folder and the folder's name as its own."""
    command = (sys.executable, "-m", "celery", "-A", "tests.chaos.null_worker", "worker", "-n", f"{folder.name}@%h")
    return Worker(folder, {**version.environment, "NAMESHOT_METRICS_PORT": "0", **settings}, command, version.source)
