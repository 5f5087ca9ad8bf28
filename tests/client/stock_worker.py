"""The worker's side, played by Celery as it is installed: without our configuration or code.

It adds only the two records of our worker that tell a client that a message was taken, and which worker holds it.
"""

from __future__ import annotations

import json
import threading
import time
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
    """Return a result in the contract's form, in which the first label wins."""
    ranking = [{"label": label, "score": 1 / (rank + 1)} for rank, label in enumerate(labels)]
    return {
        "ranking": ranking,
        "model": "test/model",
        "revision": "r1",
        "image": IMAGE,
        "batch_size": 17,
        "timings_ms": TIMINGS_MS,
    }


#: Takes a message as our worker does: counts it and records it as in hand, in one step.
TAKE = """
local raw = redis.call('RPOP', KEYS[1])
if raw then
  redis.call('INCR', KEYS[2])
  redis.call('HSET', KEYS[3], cjson.decode(raw).headers.id, ARGV[1])
end
return raw
"""
IN_HAND = "nameshot:in-hand"
NAME = "a-host/1/n00"


class StockWorker:
    """Takes messages, reads them with kombu, and stores answers with Celery's backend.

    A message stays in hand until it is answered.
    """

    def __init__(self, valkey: ValkeyServer) -> None:
        self.app = Celery("stock", broker=valkey.url(0), backend=valkey.url(1), set_as_current=False)
        self.taken: list[str] = []
        self._broker = valkey.connect()
        self._connection = self.app.connection_for_read()

    def take(self, queue: str = "default", timeout_s: float = 5.0) -> Message:
        """Take one message from a queue, and hold it."""
        deadline_s = time.monotonic() + timeout_s
        while (message := self._take(queue)) is None:
            assert time.monotonic() < deadline_s, f"no message in {queue}"
            time.sleep(0.005)
        return message

    def succeed(self, job_id: str, value: Any) -> None:
        """Store a successful answer."""
        self._answer(job_id, value, "SUCCESS")

    def start(self, job_id: str) -> None:
        """Record that the job runs, and hold its message."""
        self._broker.hset(IN_HAND, job_id, NAME)
        self.app.backend.store_result(job_id, {"hostname": "w1"}, "STARTED")

    def fail(self, job_id: str, error: Exception) -> None:
        """Store a failure."""
        self._answer(job_id, error, "FAILURE")

    def expire(self, job_id: str) -> None:
        """Do what Celery's worker does with a message that has expired."""
        request = Context(id=job_id)
        self.app.backend.mark_as_revoked(job_id, "expired", request=request, store_result=True)
        self.let_go(job_id)

    def revoke(self, job_id: str) -> None:
        """Store a revocation."""
        self._answer(job_id, TaskRevokedError("revoked"), "REVOKED")

    def let_go(self, job_id: str) -> None:
        """Hold the message no longer, as if it were acknowledged or lost."""
        self._broker.hdel(IN_HAND, job_id)

    @contextmanager
    def serving(self, queue: str, answer: Callable[[dict[str, Any]], Any]) -> Iterator[None]:
        """Answer each message of a queue, on a thread, until the block ends. If `answer` raises, store a failure."""
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
        self._connection.release()
        self._broker.close()
        self.app.close()
        self.app.backend.client.close()

    def _serve(self, queue: str, answer: Callable[[dict[str, Any]], Any], leaving: threading.Event) -> None:
        while not leaving.is_set():
            if (message := self._take(queue)) is None:
                leaving.wait(0.01)
                continue
            job_id = message.headers["id"]
            try:
                self.succeed(job_id, answer(message.payload[1]))
            except JobFailed as error:
                self.fail(job_id, error)

    def _take(self, queue: str) -> Message | None:
        name = f"nameshot.{queue}"
        raw = self._broker.eval(TAKE, 3, name, f"{name}:taken", IN_HAND, NAME)
        if raw is None:
            return None
        message: Message = self._connection.default_channel.message_to_python(json.loads(raw))
        self.taken.append(message.headers["id"])
        return message

    def _answer(self, job_id: str, value: Any, state: str) -> None:
        self.app.backend.store_result(job_id, value, state)
        self.let_go(job_id)
