"""Answers in the result backend, and the script that writes every answer.

Celery's Redis backend stores JSON, ``{"status", "result", …}``, in the key ``celery-task-meta-<id>``, and publishes
the same JSON on a channel of that name. Celery writes with SETEX, so a late second execution could replace an answer
that a client has already read. With this script the first terminal answer remains, whether a worker or a client has
stored it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic_core import from_json

from producer.contract.result import Outcome, Result
from producer.errors import JobCancelled, JobExpired, JobFailed, NameshotError

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired", "unknown"]
TERMINAL_STATES: Final[frozenset[State]] = frozenset({"succeeded", "failed", "cancelled", "expired"})

#: The error of a job whose stored answer cannot be read.
MALFORMED: Final = JobFailed("model_error", "the stored answer is malformed; no worker wrote it.", False)

#: A member of the sorted set `forgotten_key`, which maps each member to the time at which a client forgot the job, in
#: microseconds of the result backend's clock. There are three kinds of members:
#: - The life of a message: workers must not answer this message.
#: - The empty string: workers must not answer a message without a life that they took before the member's time.
#: - This constant, which no life equals: workers must not answer any message that they took before the member's time.
#:   A client adds it if the client does not know the message's life.
ANY_LIFE: Final = "\n"

#: Stores a job's answer unless a terminal answer exists or the message is forgotten.
#: KEYS: the answer, which is also its channel; the forgotten set. ARGV: the answer's JSON; its TTL in seconds; the
#: message's life, empty if unknown; when a worker took the message, in microseconds of this server's clock, or relative
#: to now if 0 or less, or empty if unknown; 'sure' to repeat a call that returned -2.
#: Returns 0 if a terminal answer exists, -1 if the message is forgotten, and -2 if the message may be forgotten: a
#: worker took it after a client forgot the id, but the message may have been waiting at that moment. Otherwise the
#: script stores the answer, and returns the fourth argument converted to this server's clock, or 1 if that argument is
#: empty.
#: The first write needs no memory: once Redis has accepted it, Redis accepts the script's other writes too.
FIRST_ANSWER_WINS: Final = """
local existing = redis.call('GET', KEYS[1])
if existing then
  local readable, meta = pcall(cjson.decode, existing)
  if readable and type(meta) == 'table'
      and (meta.status == 'SUCCESS' or meta.status == 'FAILURE' or meta.status == 'REVOKED') then
    return 0
  end
end
local life, taken = ARGV[3], tonumber(ARGV[4])
if taken and taken <= 0 then
  local now = redis.call('TIME')
  taken = now[1] * 1000000 + now[2] + taken
end
local forgotten = redis.pcall('ZMSCORE', KEYS[2], life, life == '' and '' or '\\n')
if forgotten.err and not string.find(forgotten.err, 'WRONGTYPE', 1, true) then return forgotten end
if not forgotten.err then
  if life ~= '' and forgotten[1] then return -1 end
  if taken and forgotten[2] then
    if taken < tonumber(forgotten[2]) then return -1 end
    if ARGV[5] ~= 'sure' then return -2 end
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 1000)
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('PUBLISH', KEYS[1], ARGV[1])
return taken or 1
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A job's answer: its state and, once that is terminal, its result or error.

    Attributes:
        value: in state ``succeeded``, the JSON object that the task returned.
        error: in the other terminal states, the exception for a waiting caller.
        started_at: when a worker began the attempt that this answer is of, in UTC; None if none began or said so.
        finished_at: when the terminal answer was stored, in UTC; None before that, or if its writer did not say so.
        is_deleted: whether the owner of the job deleted its answer, through the HTTP API; the state is ``unknown``.
    """

    state: State
    value: dict[str, Any] | None = None
    error: NameshotError | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    is_deleted: bool = False

    @property
    def is_terminal(self) -> bool:
        """Whether this answer will never change."""
        return self.state in TERMINAL_STATES

    @property
    def is_settled(self) -> bool:
        """Whether no worker will store another answer: this one is terminal, or its owner deleted it."""
        return self.is_terminal or self.is_deleted

    @classmethod
    def from_meta(cls, payload: bytes | str, job_id: str) -> Answer:
        """Parse one answer in Celery's JSON; a malformed answer becomes a failure of its own job only."""
        try:
            return cls._from_json(payload, job_id)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls("failed", error=MALFORMED)

    @classmethod
    def of_expired(cls, job_id: str) -> Answer:
        """Return the answer of a job that workers did not begin within its ``expires_in``."""
        return cls("expired", error=JobExpired(f"job {job_id} expired before a worker took it."))

    @classmethod
    def _from_json(cls, payload: bytes | str, job_id: str) -> Answer:
        meta = _loads(payload)
        answer = cls._of_status(meta["status"], meta.get("result"), job_id)
        finished_at = _moment(meta.get("date_done")) if answer.is_terminal else None
        return replace(answer, started_at=_moment(meta.get("started_at")), finished_at=finished_at)

    @classmethod
    def _of_status(cls, status: str, result: Any, job_id: str) -> Answer:
        if status == "SUCCESS":
            if not isinstance(result, dict):
                raise TypeError("a result is an object")
            return cls("succeeded", value=result)
        if status == "FAILURE":
            return cls("failed", error=_failure(result))
        if status == "REVOKED":
            arguments = result.get("exc_message") or ["revoked"]
            if "expired" in arguments:
                return cls.of_expired(job_id)
            if "deleted" in arguments:
                return cls("unknown", is_deleted=True)
            return cls("cancelled", error=JobCancelled(f"job {job_id} was cancelled."))
        return cls("queued" if status in ("PENDING", "RETRY") else "running")

    def result(self) -> Result:
        """Return the result of a job of one image, or raise the error of a job without a result."""
        return Result.from_json(self._success())

    def outcomes(self, images: list[str]) -> list[Outcome]:
        """Return a bulk job's outcomes in the order of ``images``, the URLs that its message contains."""
        answered = self._success()["outcomes"]
        return [Outcome.from_json(image, value) for image, value in zip(images, answered, strict=True)]

    def _success(self) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        if self.value is None:
            raise ValueError(f"a {self.state} job has no result yet")
        return self.value


def _moment(text: object) -> datetime | None:
    """Return a time in UTC; None for what is no time, since other programs write answers too."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        return moment and (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC))
    except (ValueError, OverflowError):
        return None


def _loads(payload: bytes | str) -> Any:
    """Parse JSON as Python's own parser does, but in half the time for a thousand scores."""
    try:
        return from_json(payload)
    except ValueError:  # only Python's parser accepts a lone surrogate, for example
        return json.loads(payload)


def revoked_meta(job_id: str, reason: Literal["cancelled", "expired", "deleted"]) -> str:
    """Return the answer of a job that ended for this reason, in the form that Celery writes for a revoked task."""
    return json.dumps(
        {
            "status": "REVOKED",
            "result": {
                "exc_type": "TaskRevokedError",
                "exc_message": [reason],
                "exc_module": "celery.exceptions",
            },
            "traceback": None,
            "children": [],
            "date_done": datetime.now(UTC).isoformat(),
            "task_id": job_id,
        }
    )


def _failure(result: dict[str, Any]) -> JobFailed:
    """Return the worker's error.

    A worker of another program on our queue may answer with another exception; the error then names that type.
    """
    arguments = result.get("exc_message") or []
    if result.get("exc_type") == "JobFailed" and len(arguments) == 3:
        return JobFailed(*arguments)
    return JobFailed("model_error", f"the worker failed with {result.get('exc_type', 'an unknown error')}.", False)
