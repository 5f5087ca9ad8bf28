"""How an answer stands in the result backend, and the one script that may write it there.

Celery's Redis backend keeps ``celery-task-meta-<id>`` → JSON ``{"status", "result", …}`` and publishes the same
JSON on a channel of the same name. Celery writes with SETEX, so that a late second execution could replace an
answer that somebody has already read. Here the first terminal answer wins, atomically, whoever writes it:
a worker that finished, a worker that refused, or a producer that cancels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic_core import from_json

from producer.contract.names import answer_key
from producer.contract.result import Outcome, Result
from producer.errors import JobCancelled, JobExpired, JobFailed, NameshotError

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired", "unknown"]
TERMINAL_STATES: Final[frozenset[State]] = frozenset({"succeeded", "failed", "cancelled", "expired"})

#: Members of the sorted set `forgotten_key`, which maps each to when it was forgotten, microseconds by the clock of the
#: result backend. The life of a message is one: no message that says so answers any more. Under the empty text stands
#: the last time for messages that name no life: those that a worker took before it do not answer any more. Under this,
#: which is no life, stands the same for all messages, where their lives are not known.
ANY_LIFE: Final = "\n"

#: KEYS: the answer (and its channel), what is forgotten. ARGV: the answer's JSON, its life in seconds; of the message
#: that it answers its life, empty where that is unknown, and when a worker took it, in microseconds by this server's
#: clock, or below 0 how long ago, or empty; then 'sure' where -2 was the reply before.
#: Returns 0 when a terminal answer stood there already, -1 when the message is forgotten, -2 when it may be: it was
#: taken since, and cannot be told from a message that waited then. Otherwise it was written, and where the fourth
#: argument says something that is what it meant by this server's clock, otherwise 1.
#: The first write needs no memory, so that Redis, once it has let it pass, refuses none of those that follow.
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
    """A job's entry in the result backend: its state, and what it holds once that is terminal.

    Attributes:
        value: for ``succeeded``, the JSON object that the task returned.
        error: for the other terminal states, what a waiting caller should have raised.
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
        """Read one entry as Celery's JSON has it; one that no worker writes is a failure of that job, and no other."""
        try:
            return cls._from_json(payload, job_id)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls("failed", error=JobFailed("model_error", "its answer is none that a worker writes.", False))

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
        """The single job's result; raises what the worker answered otherwise."""
        return Result.from_json(self._success())

    def outcomes(self, images: list[str]) -> list[Outcome]:
        """The bulk job's outcomes, in the order of the images that were sent."""
        answered = self._success()["outcomes"]
        return [Outcome.from_json(image, value) for image, value in zip(images, answered, strict=True)]

    def _success(self) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        if self.value is None:
            raise ValueError(f"a {self.state} job has no result yet")
        return self.value


def _loads(payload: bytes | str) -> Any:
    """As Python's own reader, which takes twice as long over a thousand scores."""
    try:
        return from_json(payload)
    except ValueError:  # half a surrogate pair, for one
        return json.loads(payload)


def cancelled_meta(job_id: str) -> str:
    """The entry of a cancelled job, as Celery itself writes a revoked task."""
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
    """What the worker raised; anything that is not ours (a foreign worker on our queue) keeps its type's name."""
    arguments = result.get("exc_message") or []
    if result.get("exc_type") == "JobFailed" and len(arguments) == 3:
        return JobFailed(*arguments)
    return JobFailed("model_error", f"the worker failed with {result.get('exc_type', 'an unknown error')}.", False)


__all__ = ["FIRST_ANSWER_WINS", "TERMINAL_STATES", "Answer", "State", "answer_key", "cancelled_meta"]
