"""The object that describes a job, and which callers may see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from producer.client.waiters import ordinal
from producer.contract.result import Result
from producer.errors import ERROR_CODES, JobFailed
from producer.operations.answers import MALFORMED, Answer
from producer.operations.records import Seen, look
from producer.web.front import WebFront
from producer.web.keys import Caller
from producer.web.problems import Problem
from producer.web.replies import rfc3339

#: What a caller does about a failure whose code it cannot know.
_UNKNOWN_ACTION: Final = "report it"


async def find(front: WebFront, caller: Caller, job_ids: Iterable[str]) -> dict[str, Seen]:
    """Return those of the jobs that exist and that the caller may see, the deleted ones too."""
    wanted = list(job_ids)
    seen = await front.run(look(front.prefix, wanted, result_ttl_s=front.config.result_ttl_s))
    return {job_id: its for job_id, its in seen.items() if _exists(its) and _is_of(caller, its)}


async def find_one(front: WebFront, caller: Caller, job_id: str) -> Seen:
    """Return a job; raises a `Problem` if the caller has no such job, or if it was deleted."""
    seen = (await find(front, caller, [job_id])).get(job_id)
    if seen is None:
        raise Problem("job_not_found")
    if seen.answer.is_deleted:
        raise Problem("job_deleted")
    return seen


def _exists(seen: Seen) -> bool:
    return seen.answer.state != "unknown" or seen.answer.is_deleted


def _is_of(caller: Caller, seen: Seen) -> bool:
    if seen.record is None:
        return not caller.needs_key  # another client made it
    return seen.record.owner == caller.kid


def job_object(front: WebFront, job_id: str, seen: Seen) -> dict[str, Any]:
    """Return the JSON object of a job."""
    answer, record = seen.answer, seen.record
    try:
        result = _result(answer)
    except (ValueError, LookupError, TypeError, AttributeError):  # another program stored it
        answer, result = replace(answer, state="failed", value=None, error=MALFORMED), None
    queue = record.queue if record else None
    position = seen.standing.ahead if answer.state == "queued" and record else None
    created = None if record is None else _of_ms(record.created_ms)
    # The clocks of the hosts that wrote these times may differ.
    started = _not_before(created, answer.started_at)
    finished = _not_before(started or created, answer.finished_at)
    return {
        "id": job_id,
        "status": answer.state,
        "queue": queue,
        "created_at": _shown(created),
        "started_at": _shown(started),
        "finished_at": _shown(finished),
        "kept_until": _shown(None if seen.kept_until_ms is None else _of_ms(seen.kept_until_ms)),
        "position": position,
        "estimated_wait_s": front.speeds.wait_s(queue, position),
        "result": result,
        "error": _error(answer),
        "batch": None,
        "webhook": None,
        "urls": urls_of(front, job_id),
    }


def urls_of(front: WebFront, job_id: str) -> dict[str, str]:
    """Return the addresses of a job, right behind any proxy."""
    own = f"{front.root_path}/v1/jobs/{job_id}"
    return {"self": own, "events": f"{own}/events", "cancel": f"{own}/cancel"}


def etag_of(job_id: str, answer: Answer) -> str:
    """Return the entity tag of a job's state; a new position alone changes nothing."""
    return f'"{job_id}.{ordinal(answer.state)}"'


def _result(answer: Answer) -> Mapping[str, Any] | None:
    if answer.value is None or "outcomes" in answer.value:
        return None  # a bulk message of another client has outcomes
    return Result.from_json(answer.value).to_dict()


def _error(answer: Answer) -> Mapping[str, Any] | None:
    if not isinstance(answer.error, JobFailed):
        return None
    known = ERROR_CODES.get(answer.error.code)
    action = known.advice.replace("`", "") if known else _UNKNOWN_ACTION
    return {**answer.error.to_dict(), "action": action}


def _of_ms(moment_ms: int) -> datetime:
    return datetime.fromtimestamp(moment_ms / 1000, UTC)


def _not_before(earlier: datetime | None, moment: datetime | None) -> datetime | None:
    return moment if moment is None or earlier is None else max(earlier, moment)


def _shown(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
