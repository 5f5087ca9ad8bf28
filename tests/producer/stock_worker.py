"""The worker's side, played by Celery as anyone installs it: no configuration and no code of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.app.task import Context
from celery.exceptions import TaskRevokedError
from kombu import Message

from producer import JobFailed
from tests.valkey_server import ValkeyServer

IMAGE = {"sha256": "0" * 64, "width": 640, "height": 427, "format": "JPEG", "bytes": 51_234}
TIMINGS_MS = {"queued": 3.1, "fetch": 41.0, "decode": 4.2, "wait": 2.0, "forward": 9.8}


def result_for(labels: list[str]) -> dict[str, Any]:
    """A result as the contract has it; the first label wins."""
    ranking = [{"label": label, "score": 1 / (rank + 1)} for rank, label in enumerate(labels)]
    return {
        "ranking": ranking,
        "model": "test/model",
        "revision": "r1",
        "image": IMAGE,
        "batch_size": 17,
        "timings_ms": TIMINGS_MS,
    }


class StockWorker:
    """Takes messages with kombu's consumer and stores answers with Celery's backend."""

    def __init__(self, valkey: ValkeyServer) -> None:
        self.app = Celery("stock", broker=valkey.url(0), backend=valkey.url(1), set_as_current=False)
        self.taken: list[str] = []

    def take(self, queue: str = "default", timeout_s: float = 5.0) -> Message:
        """Take one message from a queue, and acknowledge it."""
        with self.app.connection_for_read() as connection, self._open(connection, queue) as simple:
            return self._taken(simple.get(timeout=timeout_s))

    def succeed(self, job_id: str, value: Any) -> None:
        """Store a result."""
        self.app.backend.store_result(job_id, value, "SUCCESS")

    def start(self, job_id: str) -> None:
        """Say that the job runs."""
        self.app.backend.store_result(job_id, {"hostname": "w1"}, "STARTED")

    def fail(self, job_id: str, error: Exception) -> None:
        """Store a failure."""
        self.app.backend.store_result(job_id, error, "FAILURE")

    def expire(self, job_id: str) -> None:
        """Do what Celery's worker does with a message that came too late."""
        request = Context(id=job_id)
        self.app.backend.mark_as_revoked(job_id, "expired", request=request, store_result=True)

    def revoke(self, job_id: str) -> None:
        """Store a revocation."""
        self.app.backend.store_result(job_id, TaskRevokedError("revoked"), "REVOKED")

    @contextmanager
    def serving(self, queue: str, answer: Callable[[dict[str, Any]], Any]) -> Iterator[None]:
        """Answer each message of a queue, on a thread, until the block ends. An exception becomes a failure."""
        leaving = threading.Event()
        thread = threading.Thread(target=self._serve, args=(queue, answer, leaving))
        thread.start()
        try:
            yield
        finally:
            leaving.set()
            thread.join()

    def close(self) -> None:
        """Close the app's connections."""
        self.app.close()
        self.app.backend.client.close()

    def _serve(self, queue: str, answer: Callable[[dict[str, Any]], Any], leaving: threading.Event) -> None:
        with self.app.connection_for_read() as connection, self._open(connection, queue) as simple:
            while not leaving.is_set():
                try:
                    message = self._taken(simple.get(timeout=0.1))
                except simple.Empty:
                    continue
                job_id = message.headers["id"]
                try:
                    self.succeed(job_id, answer(message.payload[1]))
                except JobFailed as error:
                    self.fail(job_id, error)

    def _open(self, connection: Any, queue: str) -> Any:
        return connection.SimpleQueue(f"nameshot.{queue}")

    def _taken(self, message: Message) -> Message:
        message.ack()
        self.taken.append(message.headers["id"])
        return message
