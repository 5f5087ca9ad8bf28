"""Celery's result backend for Redis, in which the first terminal answer wins.

Celery protects only SUCCESS from being overwritten, with a GET before the SET. Here one script protects every terminal
state, in one round trip. This backend never stores tracebacks, because they may hold a URL.

A thread that stores an answer waits while Redis is unreachable, so the event loop must not call this backend.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, Final
from uuid import uuid4

import redis
from celery.backends.redis import RedisBackend
from celery.exceptions import TaskRevokedError
from celery.states import FAILURE, PENDING, READY_STATES, RECEIVED, REJECTED, RETRY, REVOKED, STARTED
from kombu.exceptions import DecodeError
from pydantic_core import PydanticSerializationError, to_json

from producer.broker.dialling import CLASSES, MAX_CONNECTIONS, connection_arguments
from producer.contract.names import forgotten_key
from producer.errors import JobFailed
from producer.operations.answers import FIRST_ANSWER_WINS
from worker.delivery.outages import Outage
from worker.delivery.replies import drop_idle, well_formed
from worker.delivery.taken import TAKEN_HEADER, Taken

logger = logging.getLogger(__name__)

#: The TTL of the entry with which a worker tests whether the result backend stores answers is as short as possible.
PROBE_TTL_S: Final = 1
#: In these states no worker has begun the job, or the job waits to begin again.
WAITING_STATES: Final = frozenset({PENDING, RECEIVED, RETRY, REJECTED})

#: The name of a field in a job's answer, and of an attribute of its request: how many attempts at the job have failed.
FAILED_ATTEMPTS: Final = "failed_attempts"
#: The field of a job's answer, and the attribute of its request, with the time at which this attempt began.
STARTED_AT: Final = "started_at"


class Unanswerable(Exception):
    """A job's answer can never be stored, for example because its key has another type."""


#: The script `FIRST_ANSWER_WINS` returns one of these values if it writes nothing.
ANSWERED: Final = 0
FORGOTTEN: Final = -1
DOUBTFUL: Final = -2
#: The clock of Redis shows no earlier time, in microseconds since the epoch; this is in the year 2001.
EARLIEST_US: Final = 10**15


class FirstAnswerBackend(RedisBackend):  # type: ignore[misc]  # celery is untyped
    """A worker's result backend for ``redis://`` and ``rediss://``."""

    #: Called with the job's id and its message's life after each call that finds or stores a terminal answer.
    on_answered: Callable[[str, str], None] = staticmethod(lambda _job_id, _life: None)

    #: Called with a job's id and a message's life; returns whether the id is claimed for a message with another life.
    is_claimed_for_another: Callable[[str, str], bool] = staticmethod(lambda _job_id, _life: False)

    #: Returns the seconds since the epoch. The broker's clock, which also writes when a job was sent, is best.
    now_s: Callable[[], float] = staticmethod(time.time)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        celerys: dict[str, Any] = self.connparams  # type: ignore[has-type]  # celery is untyped
        endpoint = self.app.endpoints[1]
        self.url = endpoint.shown
        self.connparams = {
            **connection_arguments(endpoint, celerys),
            "connection_class": CLASSES[endpoint.medium],
            "max_connections": MAX_CONNECTIONS,
        }
        self.outage = Outage("the result backend", "does not take answers", self._probe)

    def encode(self, data: Any) -> Any:
        """Encode like Celery; for a thousand scores this encoder is seven times faster."""
        try:
            return to_json(data)
        except PydanticSerializationError:  # for example because of a lone surrogate
            return super().encode(data)

    def begin(self, job_id: str, request: Any) -> bool:
        """Store STARTED for a job; return False if the job must not run, as it has a terminal answer or was forgotten.

        Raises:
            Unanswerable: no answer can ever be stored.
        """
        taken = _taken(request)
        reply = self._ensure_retryable(self._offer, job_id, None, STARTED, request, taken)
        if reply <= 0:
            return False
        if taken.at_s is not None:
            # The reply is the time when the worker took the message, by the server's clock, for the script's next call.
            # Our clock drifts by milliseconds a minute, and a client can free an id and submit it again that fast.
            request.taken_at_us = reply
        return True

    def failed_attempts(self, job_id: str, life: str) -> int:
        """Return how often the message with this life has failed and been postponed; 0 if the answer does not say.

        Raises:
            Unanswerable: the answer can never be read.
        """
        stored = self._ensure_retryable(self.client.get, self.get_key_for_task(job_id))
        try:
            meta = self.decode(stored) if stored is not None else {}
            return int(meta[FAILED_ATTEMPTS]) if meta.get("life", "") == life else 0
        except (DecodeError, ValueError, LookupError, TypeError, AttributeError):
            return 0

    def refuse(self, job_id: str, failure: JobFailed, taken: Taken) -> bool:
        """Answer a message that cannot become a job; return False if the id has a terminal answer or was forgotten.

        Raises:
            Unanswerable: no answer can ever be stored.
        """
        result = self.encode_result(failure, FAILURE)
        return bool(self._ensure_retryable(self._offer, job_id, result, FAILURE, None, taken) > 0)

    def is_cancelled(self, job_id: str) -> bool:
        """Return whether a job's answer is a cancellation; False if the answer cannot be read."""
        try:
            stored = self.client.get(self.get_key_for_task(job_id))
            return stored is not None and self.decode(stored)["status"] == REVOKED
        except (redis.RedisError, DecodeError, ValueError, LookupError, TypeError) as error:
            logger.warning("could not check whether job %s is cancelled: %s", job_id, type(error).__name__)
            return False

    def revoke(self, job_id: str) -> bool:
        """Answer a job as revoked; return False if it has a terminal answer or another application runs it."""
        return bool(self._ensure_retryable(self._revoke, job_id))

    def _revoke(self, job_id: str) -> bool:
        # A revocation reaches the workers of all applications that use the broker, and may be for a job of another one.
        stored = self.client.get(self.get_key_for_task(job_id))
        if stored is not None and not _is_waiting_or_ours(self.decode(stored)):
            return False
        result = self.encode_result(TaskRevokedError("revoked"), REVOKED)
        return self._offer(job_id, result, REVOKED, None, Taken()) > 0

    def _store_result(
        self, task_id: str, result: Any, state: str, _traceback: Any = None, request: Any = None, **_: Any
    ) -> Any:
        """Store a state without the traceback, unless a terminal answer exists; Celery calls this method."""
        if getattr(request, "is_answered", False):
            return result  # the task has already stored this answer, and Celery stores it a second time
        self._offer(task_id, result, state, request, _taken(request))
        if state in READY_STATES and request is not None:
            request.is_answered = True
        return result

    def _ensure_retryable(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function, again and again during an outage; Celery would give up, and would retry lasting errors.

        Raises:
            Unanswerable: the call can never succeed.
        """
        for how_celery_gives_up in ("fallback_exc", "fallback_msg", "max_retries"):
            kwargs.pop(how_celery_gives_up, None)
        try:
            return self.outage.outlast(partial(func, *args, **kwargs))
        except redis.RedisError as error:
            raise Unanswerable(f"{type(error).__name__}: {error}") from None

    def _offer(self, job_id: str, result: Any, state: str, request: Any, taken: Taken) -> int:
        """Store a state unless a terminal answer exists; return the reply of `FIRST_ANSWER_WINS`.

        The script may be unable to decide whether the job was forgotten before or after its message was sent. In that
        case the state is stored unless a client has claimed the id for another message.
        """
        meta = self._get_result_meta(result=result, state=state, traceback=None, request=request)
        meta["task_id"] = job_id
        now = datetime.fromtimestamp(self.now_s(), UTC).isoformat(timespec="milliseconds")
        if state == STARTED:
            setattr(request, STARTED_AT, now)
        if state in READY_STATES:
            meta["date_done"] = now
        # Only nameshot reads the following fields.
        if started_at := getattr(request, STARTED_AT, None):
            meta[STARTED_AT] = started_at
        if taken.life:
            meta["life"] = taken.life
        if failed_attempts := getattr(request, FAILED_ATTEMPTS, 0):
            meta[FAILED_ATTEMPTS] = failed_attempts
        keys = [self.get_key_for_task(job_id), forgotten_key(job_id)]
        at_us = getattr(request, "taken_at_us", None) or taken.ago_us()
        arguments = [self.encode(meta), self.expires, taken.life, at_us]
        reply = self._run(keys, arguments)
        if reply == DOUBTFUL:
            if self.is_claimed_for_another(job_id, taken.life):
                return FORGOTTEN
            reply = self._run(keys, [*arguments, "sure"])
        # An answer that already exists counts too, because its worker may have died before it shortened the claim.
        if reply == ANSWERED or (reply > 0 and state in READY_STATES):
            self.on_answered(job_id, taken.life)
        return reply

    def _probe(self) -> None:
        """Store a test entry under a new key; raise `RedisError` if the result backend does not store it."""
        unused = f"probe-{uuid4()}"
        keys = [self.get_key_for_task(unused), forgotten_key(unused)]
        self._run(keys, ["{}", PROBE_TTL_S, "", ""])

    def _run(self, keys: list[str], arguments: list[Any]) -> int:
        """Run `FIRST_ANSWER_WINS`; return its reply.

        Raises:
            MalformedReply: the reply cannot be the script's, so that the answer may not be stored.
        """
        with well_formed(partial(drop_idle, self.client)):
            return _checked(self._script(keys=keys, args=arguments), taken_us=arguments[3])

    @cached_property
    def _script(self) -> Any:
        return self.client.register_script(FIRST_ANSWER_WINS)


def _checked(reply: Any, *, taken_us: str | int) -> int:
    """Return a reply of `FIRST_ANSWER_WINS`, which returns the time it was given, by the clock of Redis.

    Raises:
        TypeError, ValueError: the script does not return this.
    """
    if type(reply) is not int:
        raise TypeError
    if reply in (ANSWERED, FORGOTTEN, DOUBTFUL):
        return reply
    at_us = int(taken_us or 1)
    if reply != at_us if at_us > 0 else reply < EARLIEST_US:
        raise ValueError
    return reply


def _taken(request: Any) -> Taken:
    return getattr(request, TAKEN_HEADER, None) or Taken()


def _is_waiting_or_ours(meta: Any) -> bool:
    """Return whether the job has not begun, or runs in one of our workers.

    `FirstAnswerBackend.begin` stores no result with STARTED; a stock Celery worker stores its process id.
    """
    return meta["status"] in WAITING_STATES or (meta["status"] == STARTED and meta["result"] is None)
