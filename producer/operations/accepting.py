"""Accept a job of the HTTP API: write its record, and then claim its id and queue its message in one step."""

from __future__ import annotations

from dataclasses import dataclass

from producer.errors import JobConflict, NameshotError, QueueFull
from producer.messages.submission import Submission
from producer.operations.exchanges import Operation
from producer.operations.open_jobs import close_answered
from producer.operations.records import STALE_MS, Begun, abandon, begin, look
from producer.operations.submitting import submit


class KeyReused(NameshotError):
    """The HTTP API's key was used before, with another body."""


class QuotaExceeded(NameshotError):
    """The owner has as many jobs without an answer as it may have."""


class JobDeleted(NameshotError):
    """The job's owner deleted its answer, and the id stays in use until the answer would have expired."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a job.

    Attributes:
        owner: the id of the API key.
        body: the digest of the request's body.
        max_open: how many jobs without an answer the owner may have; None if there is no limit.
    """

    submission: Submission
    owner: str
    body: str
    max_open: int | None = None


def accept(prefix: str, asked: Asked, *, max_queue: int, result_ttl_s: int) -> Operation[bool]:
    """Queue the job unless it stands already; return whether it was queued.

    Raises:
        KeyReused: another request has the same id and another body.
        JobDeleted: the job of this id was deleted.
        QuotaExceeded: the owner has ``max_open`` jobs without an answer.
        QueueFull: the queue is full; the record is taken back.
    """
    begun = yield from _begin(prefix, asked)
    if begun.outcome == "full":
        before_ms = begun.now_ms - STALE_MS
        yield from close_answered(prefix, asked.owner, before_ms=before_ms, result_ttl_s=result_ttl_s)
        begun = yield from _begin(prefix, asked)
    if begun.outcome == "found":
        begun = yield from _take_over(prefix, asked, begun, result_ttl_s)
    if begun.outcome == "full":
        raise QuotaExceeded(f"this key has {asked.max_open:,} jobs without an answer, as many as it may have")
    job_id = asked.submission.job_id
    try:
        (is_new,) = yield from submit(prefix, [asked.submission], max_queue=max_queue)
    except QueueFull:
        yield from abandon(prefix, job_id, asked.owner)
        raise
    except JobConflict:
        raise _reused(asked) from None
    if is_new and begun.outcome == "found" and begun.record and begun.record.created_ms < begun.now_ms - STALE_MS:
        # The job of the earlier request was lost, so this is another one.
        yield from _begin(prefix, asked, instead_of=begun.record.stored)
    return is_new


def _take_over(prefix: str, asked: Asked, begun: Begun, result_ttl_s: int) -> Operation[Begun]:
    """Return the record that was found if it is of the same body; replace it if its job does not exist any more."""
    record = begun.record
    if record is not None and record.is_deleted:
        raise JobDeleted(f"job {asked.submission.job_id} was deleted")
    if record is not None and record.body == asked.body:
        return begun
    if record is None or record.created_ms >= begun.now_ms - STALE_MS:
        raise _reused(asked)
    seen = yield from look(prefix, [asked.submission.job_id], result_ttl_s=result_ttl_s)
    if not seen[asked.submission.job_id].standing.is_lost:
        raise _reused(asked)
    begun = yield from _begin(prefix, asked, instead_of=record.stored)
    if begun.record is not None and begun.record.body != asked.body:
        raise _reused(asked)
    return begun


def _begin(prefix: str, asked: Asked, *, instead_of: bytes = b"") -> Operation[Begun]:
    return begin(
        prefix,
        asked.submission.job_id,
        owner=asked.owner,
        queue=asked.submission.queue,
        body=asked.body,
        ttl_s=asked.submission.claim_ttl_s,
        max_open=asked.max_open,
        instead_of=instead_of,
    )


def _reused(asked: Asked) -> KeyReused:
    return KeyReused(f"job {asked.submission.job_id} was made of another body")
