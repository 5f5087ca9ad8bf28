"""What is said to Redis, once for the blocking and the asyncio client.

An operation is a generator of `Call`s: it is sent each reply and returns its result. Who drives it decides whether
a thread or a coroutine waits; see `producer.connections`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from producer.answers import FIRST_ANSWER_WINS, Answer, cancelled_meta
from producer.contract import (
    QUEUES,
    Queue,
    answer_key,
    cancel_channel,
    claim_key,
    forgotten_key,
    queue_name,
    rung_name,
)
from producer.errors import JobConflict, JobNotFound, QueueFull
from producer.submission import Submission

T = TypeVar("T")
Server = Literal["broker", "results"]

#: What `QueueFull` advises: a busy worker frees some thousand places in this time, an idle queue needs none.
RETRY_AFTER_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Call:
    """One Redis command.

    Attributes:
        if_unanswered: what to add to the error when the command was sent and the connection broke before its reply.
        if_failed: what to add to every error, since earlier calls of the operation have had their effect.
    """

    server: Server
    command: tuple[str | bytes | int, ...]
    if_unanswered: str = ""
    if_failed: str = ""


Operation = Generator[Call, Any, T]

#: Takes jobs in order until one is refused, and never leaves an id taken with nothing queued.
#: KEYS: for each job its claim and its queue. ARGV[1]: most waiting messages; then for each job its fingerprint,
#: its claim's life in seconds and its message. Returns how many were taken (or stood there already), and why
#: it stopped. LLEN comes before SET so that a key of a wrong type is found before anything is written; once a queue,
#: since LPUSH says how many there are now.
_SUBMIT: Final = """
local most, waiting = tonumber(ARGV[1]), {}
for i = 1, #KEYS / 2 do
  local claim, queue = KEYS[2 * i - 1], KEYS[2 * i]
  local fingerprint, life, message = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local standing = redis.call('GET', claim)
  if standing then
    if standing ~= fingerprint then return {i - 1, 'conflict'} end
  else
    waiting[queue] = waiting[queue] or redis.call('LLEN', queue)
    if waiting[queue] >= most then return {i - 1, 'full'} end
    redis.call('SET', claim, fingerprint, 'EX', life)
    waiting[queue] = redis.call('LPUSH', queue, message)
  end
end
return {#KEYS / 2, 'taken'}
"""


def submit(submissions: Sequence[Submission], *, max_queue: int, submitted_before: int = 0) -> Operation[None]:
    """Queue each message whose id is new, in order, atomically.

    Args:
        submissions: at most a few hundred, since Redis serves nobody else meanwhile.
        submitted_before: jobs of the same call in earlier chunks; only for the error's sentence.

    Raises:
        JobConflict: an id stands for another payload. The jobs before it are queued, it and those after are not.
        QueueFull: likewise.
    """
    keys: list[str] = []
    arguments: list[str | int] = [max_queue]
    for submission in submissions:
        keys += (submission.claim_name, submission.list_name)
        arguments += (submission.fingerprint, submission.claim_ttl_s, submission.message)
    if len(submissions) == 1:
        doubt = f" Job {submissions[0].job_id} may have been queued; submitting it again with this job_id is safe."
    else:
        doubt = f" Some of {len(submissions)} jobs may have been queued; with job_ids, submitting them again is safe."
    taken, outcome = yield Call("broker", ("EVAL", _SUBMIT, len(keys), *keys, *arguments), doubt)
    if outcome == b"taken":
        return
    refused = submissions[taken]
    before = f" {submitted_before + taken:,} jobs before it were queued." if submitted_before + taken else ""
    if outcome == b"conflict":
        raise JobConflict(
            f"job id {refused.job_id} was used before with another payload; "
            f"send the same payload or choose another id.{before}"
        )
    raise queue_full(refused.list_name, max_queue, f"try again in {RETRY_AFTER_S:g} s.{before}")


def look_up(prefix: str, job_ids: Sequence[str]) -> Operation[dict[str, Answer]]:
    """Each job's answer as it stands; one that nobody claimed and nobody answered is ``unknown``."""
    found = yield Call("results", ("MGET", *(answer_key(job_id) for job_id in job_ids)))
    answers: dict[str, Answer] = {}
    for job_id, payload in zip(job_ids, found, strict=True):
        if payload is not None:
            answers[job_id] = Answer.from_meta(payload, job_id)
    unanswered = [job_id for job_id in job_ids if job_id not in answers]
    if unanswered:
        claims = yield Call("broker", ("MGET", *(claim_key(prefix, job_id) for job_id in unanswered)))
        for job_id, claim in zip(unanswered, claims, strict=True):
            answers[job_id] = Answer("unknown" if claim is None else "queued")
    return answers


def cancel(prefix: str, job_id: str, *, result_ttl_s: int) -> Operation[bool]:
    """Answer the job as cancelled unless it has an answer; tell the workers. Returns whether it took effect.

    Raises:
        JobNotFound: nobody claimed this id, and it has no answer.
    """
    standing = (yield from look_up(prefix, [job_id]))[job_id]
    if standing.is_terminal:
        return False
    if standing.state == "unknown":
        raise not_found(job_id)
    keys, arguments = (answer_key(job_id), forgotten_key(job_id)), (cancelled_meta(job_id), result_ttl_s, "")
    written = yield Call("results", ("EVAL", FIRST_ANSWER_WINS, len(keys), *keys, *arguments))
    if not written:
        return False
    done = f" Job {job_id} is cancelled, but a worker that runs it may not have been told."
    yield Call("broker", ("PUBLISH", cancel_channel(prefix), job_id), if_failed=done)
    yield Call("broker", ("EXPIRE", claim_key(prefix, job_id), result_ttl_s), if_failed=done)
    return True


def queue_depths(prefix: str) -> Operation[dict[Queue, int]]:
    """The number of waiting messages of each queue."""
    depths: dict[Queue, int] = {}
    for queue in QUEUES:
        name = queue_name(prefix, queue)
        depths[queue] = (yield Call("broker", ("LLEN", name))) + (yield Call("broker", ("LLEN", rung_name(name))))
    return depths


def not_found(job_id: str) -> JobNotFound:
    """The error for an id that is ``unknown``."""
    return JobNotFound(f"there is no job {job_id}, or its result has outlived its time; check the id.")


def queue_full(list_name: str, max_queue: int, advice: str) -> QueueFull:
    """The error for a queue that takes no more."""
    return QueueFull(
        f"the queue {list_name} holds {max_queue:,} waiting messages or more (NAMESHOT_MAX_QUEUE); {advice}",
        RETRY_AFTER_S,
    )
