"""The result backend: Celery's own for Redis, in which the first terminal answer wins.

Celery guards only SUCCESS, with a GET before the SET; here one script does both for every terminal state, in one
round trip instead of two. Tracebacks are never stored: a `JobFailed` says all that may leave the worker.

While Redis is away, the thread that stores an answer waits, however long that takes: no thread but a job's own may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

import redis
from celery.backends.redis import RedisBackend
from celery.exceptions import TaskRevokedError
from celery.states import FAILURE, PENDING, READY_STATES, RECEIVED, REJECTED, RETRY, REVOKED, STARTED
from pydantic_core import PydanticSerializationError, to_json

from producer.broker.dialling import CLASSES, connection_arguments
from producer.contract import forgotten_key
from producer.errors import JobFailed
from producer.operations.answers import FIRST_ANSWER_WINS
from worker.delivery.clock import elapsed_s
from worker.delivery.names import LIFE_HEADER, TAKEN_HEADER
from worker.delivery.outages import Outage

#: States of a job that nobody has begun, or that waits to be begun again.
WAITING_STATES: Final = frozenset({PENDING, RECEIVED, RETRY, REJECTED})


class Unanswerable(Exception):
    """No answer can be stored for a job, now or later: its key holds something else, for one."""


#: What `FIRST_ANSWER_WINS` replies where it writes nothing.
ANSWERED: Final = 0
FORGOTTEN: Final = -1
DOUBTFUL: Final = -2


@dataclass(frozen=True, slots=True)
class Message:
    """What tells the message that is answered from others of its id.

    Attributes:
        life: see `LIFE_HEADER`.
        taken_s: see `TAKEN_HEADER`; None where that is not known.
    """

    life: str = ""
    taken_s: float | None = None

    @classmethod
    def of(cls, request: Any) -> Message:
        """What Celery's context of a task knows of it."""
        return cls(getattr(request, LIFE_HEADER, None) or "", getattr(request, TAKEN_HEADER, None))

    def taken(self) -> str:
        """How long ago it was taken, as `FIRST_ANSWER_WINS` has it; empty where that is not known."""
        return "" if self.taken_s is None else f"{min(0.0, self.taken_s - elapsed_s()) * 1e6:.0f}"


class FirstAnswerBackend(RedisBackend):  # type: ignore[misc]  # celery is untyped
    """``redis://`` and ``rediss://`` result backends of a worker."""

    #: Called with the id of each job whose terminal answer was written, or found, and the life of its message.
    on_answered: Callable[[str, str], None] = staticmethod(lambda _job_id, _life: None)

    #: Whether an id is claimed for another message than the one of that life.
    is_claimed_for_another: Callable[[str, str], bool] = staticmethod(lambda _job_id, _life: False)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        celerys: dict[str, Any] = self.connparams  # type: ignore[has-type]  # celery is untyped
        endpoint = self.app.endpoints[1]
        self.url = endpoint.shown
        of_the_url = {"host", "port", "db", "username", "password"}
        ours = {name: value for name, value in celerys.items() if name not in of_the_url}
        self.connparams = {**connection_arguments(endpoint, ours), "connection_class": CLASSES[endpoint.medium]}
        self.outage = Outage("the result backend", "does not take answers")

    def encode(self, data: Any) -> Any:
        """As Celery's own, which takes seven times as long over a thousand scores."""
        try:
            return to_json(data)
        except PydanticSerializationError:  # a lone surrogate, for one
            return super().encode(data)

    def begin(self, job_id: str, request: Any) -> bool:
        """Say that the job runs; False when it has a terminal answer, or was forgotten, and need not run.

        Raises:
            Unanswerable: it could never be answered.
        """
        message = Message.of(request)
        reply = self._ensure_retryable(self._offer, job_id, None, STARTED, request, message)
        if reply == ANSWERED:  # whoever wrote the answer may have died before it could tell
            self.on_answered(job_id, message.life)
        if reply <= 0:
            return False
        if message.taken_s is not None:
            # From now on by the clock of the server, which compares it: two clocks would differ by milliseconds once
            # the job has run for a minute, and ids are freed and sent again in less.
            request.taken_at_us = reply
        return True

    def refuse(self, job_id: str, failure: JobFailed, message: Message) -> bool:
        """Answer a message that cannot become a job; False when the job has a terminal answer, or was forgotten.

        Raises:
            Unanswerable: no answer can be stored.
        """
        result = self.encode_result(failure, FAILURE)
        written: bool = self._ensure_retryable(self._offer, job_id, result, FAILURE, None, message) > 0
        if written:
            self.on_answered(job_id, message.life)
        return written

    def revoke(self, job_id: str) -> bool:
        """Answer a job as revoked; False when it has a terminal answer, or another application runs it."""
        return bool(self._ensure_retryable(self._revoke, job_id))

    def _revoke(self, job_id: str) -> bool:
        # Every application of a broker hears every revocation, and it may share the answers' database too.
        standing = self.client.get(self.get_key_for_task(job_id))
        if standing is not None and not _is_waiting_or_ours(self.decode(standing)):
            return False
        result = self.encode_result(TaskRevokedError("revoked"), REVOKED)
        return self._offer(job_id, result, REVOKED, None, Message()) > 0

    def _store_result(
        self, task_id: str, result: Any, state: str, _traceback: Any = None, request: Any = None, **_: Any
    ) -> Any:
        """Write one state unless a terminal one stands already. Called by Celery; the traceback is dropped."""
        if getattr(request, "is_answered", False):
            return result  # by the task itself; Celery comes a second time
        message = Message.of(request)
        reply = self._offer(task_id, result, state, request, message)
        if state in READY_STATES:
            if request is not None:
                request.is_answered = True
            if reply >= ANSWERED:  # what revokes a job does not know of which message
                self.on_answered(task_id, message.life)
        return result

    def _ensure_retryable(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Celery's guard of each call, which would give up some time, and try again what can never succeed.

        Raises:
            Unanswerable: it can never succeed.
        """
        for how_celery_gives_up in ("fallback_exc", "fallback_msg", "max_retries"):
            kwargs.pop(how_celery_gives_up, None)
        try:
            return self.outage.outlast(partial(func, *args, **kwargs))
        except redis.RedisError as error:
            raise Unanswerable(f"{type(error).__name__}: {error}") from None

    def _offer(self, job_id: str, result: Any, state: str, request: Any, message: Message) -> int:
        """What `FIRST_ANSWER_WINS` replies.

        A message that waited when its job was forgotten, and that nothing tells from a new one, answers nothing once
        a client has claimed the id for another message.
        """
        meta = self._get_result_meta(result=result, state=state, traceback=None, request=request)
        meta["task_id"] = job_id
        if message.life:
            meta["life"] = message.life  # Celery reads what it knows, and this is for us
        keys = [self.get_key_for_task(job_id), forgotten_key(job_id)]
        taken = getattr(request, "taken_at_us", None) or message.taken()
        arguments = [self.encode(meta), self.expires, message.life, taken]
        reply = int(self._script(keys=keys, args=arguments))
        if reply != DOUBTFUL:
            return reply
        if self.is_claimed_for_another(job_id, message.life):
            return FORGOTTEN
        return int(self._script(keys=keys, args=[*arguments, "sure"]))

    @cached_property
    def _script(self) -> Any:
        return self.client.register_script(FIRST_ANSWER_WINS)


def _is_waiting_or_ours(meta: Any) -> bool:
    """`FirstAnswerBackend.begin` leaves the result empty; Celery's own worker writes its process id there."""
    return meta["status"] in WAITING_STATES or (meta["status"] == STARTED and meta["result"] is None)
