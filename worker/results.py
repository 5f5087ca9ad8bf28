"""The result backend: Celery's own for Redis, in which the first terminal answer wins.

Celery guards only SUCCESS, with a GET before the SET; here one script does both for every terminal state, in one
round trip instead of two. Tracebacks are never stored: a `JobFailed` says all that may leave the worker.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

import redis
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendError, TaskRevokedError
from celery.states import PENDING, READY_STATES, RECEIVED, REJECTED, RETRY, REVOKED, STARTED
from pydantic_core import PydanticSerializationError, to_json

from producer.answers import FIRST_ANSWER_WINS
from producer.redis_connections import CLASSES, connection_arguments

logger = logging.getLogger(__name__)

#: States of a job that nobody has begun, or that waits to be begun again.
WAITING_STATES: Final = frozenset({PENDING, RECEIVED, RETRY, REJECTED})
#: What this backend raises once it has tried for long enough: nothing is stored.
NOT_STORED: Final = (BackendError, redis.RedisError)
#: How long it tries, with pauses of a second on average: more than a minute's outage, some 95 s in all. A thread that
#: waits for longer is worth more than the work it has done, which can be done again.
MAX_PAUSE_MS: Final = 2_000
MAX_RETRIES: Final = 100
#: One line for all threads of a worker.
SAY_EVERY_S: Final = 30.0


class FirstAnswerBackend(RedisBackend):  # type: ignore[misc]  # celery is untyped
    """``redis://`` and ``rediss://`` result backends of a worker."""

    #: Called with the id of each job whose terminal answer was written, or found.
    on_answered: Callable[[str], None] = staticmethod(lambda _job_id: None)
    _said_at_s = -math.inf

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        celerys: dict[str, Any] = self.connparams  # type: ignore[has-type]  # celery is untyped
        endpoint = self.app.endpoints[1]
        self.url = endpoint.shown
        of_the_url = {"host", "port", "db", "username", "password"}
        ours = {name: value for name, value in celerys.items() if name not in of_the_url}
        self.connparams = {**connection_arguments(endpoint, ours), "connection_class": CLASSES[endpoint.medium]}

    def encode(self, data: Any) -> Any:
        """As Celery's own, which takes seven times as long over a thousand scores."""
        try:
            return to_json(data)
        except PydanticSerializationError:  # a lone surrogate, for one
            return super().encode(data)

    def begin(self, job_id: str, request: Any) -> bool:
        """Say that the job runs; False when it has a terminal answer and need not run."""
        begun = bool(self._ensure_retryable(self._offer, job_id, None, STARTED, request))
        if not begun:  # whoever wrote the answer may have died before it could tell
            self.on_answered(job_id)
        return begun

    def revoke(self, job_id: str) -> bool:
        """Answer a job as revoked; False when it has a terminal answer, or another application runs it."""
        written = bool(self._ensure_retryable(self._revoke, job_id))
        if written:
            self.on_answered(job_id)
        return written

    def _revoke(self, job_id: str) -> bool:
        # Every application of a broker hears every revocation, and it may share the answers' database too.
        standing = self.client.get(self.get_key_for_task(job_id))
        if standing is not None and not _is_waiting_or_ours(self.decode(standing)):
            return False
        return self._offer(job_id, self.encode_result(TaskRevokedError("revoked"), REVOKED), REVOKED, None)

    def _store_result(
        self, task_id: str, result: Any, state: str, _traceback: Any = None, request: Any = None, **_: Any
    ) -> Any:
        """Write one state unless a terminal one stands already. Called by Celery; the traceback is dropped."""
        if getattr(request, "is_answered", False):
            return result  # by the task itself; Celery comes a second time
        written = self._offer(task_id, result, state, request)
        if state in READY_STATES:
            if request is not None:
                request.is_answered = True
            if written:
                self.on_answered(task_id)
        return result

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Whatever Redis has against it now, memory or a replica's role: it may take the answer in a moment."""
        return isinstance(exc, redis.RedisError)

    def on_backend_retryable_error(self, exc: Exception) -> None:
        """Called before each retry, in each thread; Celery's own line, with a traceback, is switched off."""
        now_s = time.monotonic()
        if now_s - self._said_at_s > SAY_EVERY_S:
            self._said_at_s = now_s
            logger.warning("the result backend does not take answers (%s): trying again", type(exc).__name__)

    def _offer(self, job_id: str, result: Any, state: str, request: Any) -> bool:
        meta = self._get_result_meta(result=result, state=state, traceback=None, request=request)
        meta["task_id"] = job_id
        arguments = [self.encode(meta), self.expires]
        return bool(self._script(keys=[self.get_key_for_task(job_id)], args=arguments))

    @cached_property
    def _script(self) -> Any:
        return self.client.register_script(FIRST_ANSWER_WINS)


def _is_waiting_or_ours(meta: Any) -> bool:
    """`FirstAnswerBackend.begin` leaves the result empty; Celery's own worker writes its process id there."""
    return meta["status"] in WAITING_STATES or (meta["status"] == STARTED and meta["result"] is None)
