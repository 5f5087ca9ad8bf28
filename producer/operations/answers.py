"""Answers in the result backend, and the one script that may write them.

Celery's Redis backend keeps ``celery-task-meta-<id>`` → JSON ``{"status", "result", …}`` and publishes the same
JSON on a channel of the same name. Celery writes with SETEX, so a late second execution could replace an
answer that a client has already read. Here the first terminal answer wins, atomically, whether it comes from a worker
that finished, a worker that refused, or a producer that cancels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic_core import from_json

from producer.contract.result import Outcome, Result
from producer.errors import JobCancelled, JobExpired, JobFailed, NameshotError

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired", "unknown"]
TERMINAL_STATES: Final[frozenset[State]] = frozenset({"succeeded", "failed", "cancelled", "expired"})

#: A member of the sorted set `forgotten_key`, which maps members to when they were forgotten, in microseconds of the
#: result backend's clock. A message's life as a member bars all messages of that life from answering. The empty member
#: bars the messages without a life that a worker took before its time. This member, which no life can equal, bars all
#: messages taken before its time; it is used where the life is unknown.
ANY_LIFE: Final = "\n"

#: Stores a job's answer unless a terminal one exists or the message is forgotten.
#: KEYS: the answer (and its channel), the forgotten set. ARGV: the answer's JSON, its TTL in seconds, the message's
#: life (empty if unknown), when a worker took the message (microseconds of this server's clock; if negative, how long
#: ago; or empty), and 'sure' to repeat a call that returned -2.
#: Returns 0 if a terminal answer exists, -1 if the message is forgotten, -2 if it may be (it was taken later, but may
#: have been waiting when the id was forgotten). Otherwise the answer is written, and the reply is the fourth argument
#: converted to this server's clock, or 1 if that is empty.
#: The first write needs no memory: once Redis has accepted it, Redis refuses none of the writes that follow.
FIRST_ANSWER_WINS: Final = """
local standing = redis.call('GET', KEYS[1])
if standing then
  local readable, meta = pcall(cjson.decode, standing)
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
    """A job's entry in the result backend: its state, and once that is terminal, its content.

    Attributes:
        value: for ``succeeded``, the JSON object that the task returned.
        error: for the other terminal states, the exception to raise for a waiting caller.
    """

    state: State
    value: dict[str, Any] | None = None
    error: NameshotError | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether this answer will never change."""
        return self.state in TERMINAL_STATES

    @classmethod
    def from_meta(cls, payload: bytes | str, job_id: str) -> Answer:
        """Parse one entry in Celery's JSON; a malformed one counts as a failure of its job, and affects no other."""
        try:
            return cls._from_json(payload, job_id)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls(
                "failed", error=JobFailed("model_error", "the stored answer is malformed; no worker wrote it.", False)
            )

    @classmethod
    def _from_json(cls, payload: bytes | str, job_id: str) -> Answer:
        meta = _loads(payload)
        status, result = meta["status"], meta.get("result")
        if status == "SUCCESS":
            if not isinstance(result, dict):
                raise TypeError("a result is an object")
            return cls("succeeded", value=result)
        if status == "FAILURE":
            return cls("failed", error=_failure(result))
        if status == "REVOKED":
            arguments = result.get("exc_message") or ["revoked"]
            if "expired" in arguments:
                return cls("expired", error=JobExpired(f"job {job_id} expired before a worker took it."))
            return cls("cancelled", error=JobCancelled(f"job {job_id} was cancelled."))
        return cls("queued" if status == "PENDING" else "running")

    def result(self) -> Result:
        """Return a single job's result, or raise the error that the worker answered with."""
        return Result.from_json(self._success())

    def outcomes(self, images: list[str]) -> list[Outcome]:
        """Return a bulk job's outcomes, in the order of the images that were sent."""
        answered = self._success()["outcomes"]
        return [Outcome.from_json(image, value) for image, value in zip(images, answered, strict=True)]

    def _success(self) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        if self.value is None:
            raise ValueError(f"a {self.state} job has no result yet")
        return self.value


def _loads(payload: bytes | str) -> Any:
    """Parse JSON as Python's own reader does, in half the time for a thousand scores."""
    try:
        return from_json(payload)
    except ValueError:  # a lone surrogate, for example, which only Python's reader accepts
        return json.loads(payload)


def cancelled_meta(job_id: str) -> str:
    """Return the entry of a cancelled job, in the form that Celery itself writes for a revoked task."""
    return json.dumps(
        {
            "status": "REVOKED",
            "result": {
                "exc_type": "TaskRevokedError",
                "exc_message": ["cancelled"],
                "exc_module": "celery.exceptions",
            },
            "traceback": None,
            "children": [],
            "date_done": datetime.now(UTC).isoformat(),
            "task_id": job_id,
        }
    )


def _failure(result: dict[str, Any]) -> JobFailed:
    """Return the worker's error; for an exception that is not ours (a foreign worker on our queue), its type's name."""
    arguments = result.get("exc_message") or []
    if result.get("exc_type") == "JobFailed" and len(arguments) == 3:
        return JobFailed(*arguments)
    return JobFailed("model_error", f"the worker failed with {result.get('exc_type', 'an unknown error')}.", False)
