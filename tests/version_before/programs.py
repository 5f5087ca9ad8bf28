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
    """One such program; a context manager that ends it. Its threads may share it."""

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
        """What became of each submission: ``accepted``, or the name of the error."""
        replies: list[str] = self.ask("submit", jobs).result(REPLY_TIMEOUT_S)
        return replies

    def statuses(self, job_ids: Sequence[str]) -> list[str]:
        """The state of each."""
        replies: list[str] = self.ask("status", job_ids).result(REPLY_TIMEOUT_S)
        return replies

    def wait(self, job_ids: Sequence[str]) -> Future[list[list[str] | str]]:
        """Begin to wait for all answers: each the labels in their order, or the name of an error."""
        return self.ask("wait", job_ids)

    def cancel(self, job_id: str) -> bool:
        """Whether it took effect."""
        (reply,) = self.ask("cancel", [job_id]).result(REPLY_TIMEOUT_S)
        return bool(reply)

    def ask(self, word: str, each: Sequence[Any]) -> Future[Any]:
        """Send one request; see the program."""
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
    """A worker of that version; its files lie in the folder, whose name it takes."""
    command = (sys.executable, "-m", "celery", "-A", "tests.chaos.null_worker", "worker", "-n", f"{folder.name}@%h")
    return Worker(folder, {**version.environment, "NAMESHOT_METRICS_PORT": "0", **settings}, command, version.source)
