"""The routes of streams of events, of one job and of several."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from producer.messages.submission import CLAIMED_ID
from producer.web.callers import Asking, Counted
from producer.web.documented import KEYED, problems
from producer.web.front import front_of
from producer.web.ids import MAX_IDS, check_count, check_id
from producer.web.schemas import JOBS_PARAMETER
from producer.web.streams import EventStream
from producer.web.view import find, find_one

router = APIRouter(prefix="/v1", redirect_slashes=False)

_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
#: The number of a terminal state, after which nothing follows.
_LAST: Final = 3


@router.get(
    "/jobs/{job_id}/events",
    operation_id="watchJob",
    summary="Watch a job",
    description=(
        "Events `state` with the whole job (ids: 1 queued, 2 running, 3 terminal), `position`, and `end`. After "
        "`Last-Event-ID: n` (or `last_event_id=n`) only later states are sent; after 3 the answer is 204."
    ),
    responses={
        **_STREAM,
        204: {"description": "the caller has the last state"},
        **problems(*KEYED, "job_not_found", "job_deleted", "too_many_streams"),
    },
)
async def watch_job(request: Request, job_id: str, caller: Asking) -> Response:
    """Stream the states of a job."""
    front = front_of(request)
    check_id(job_id)
    await find_one(front, caller, job_id)
    given = request.headers.get("last-event-id") or request.query_params.get("last_event_id") or "0"
    after = int(given) if given in {"0", "1", "2", "3"} else 0
    if after == _LAST:
        return Response(status_code=204)
    return EventStream(request, front, caller, [job_id], after=after)


@router.get(
    "/events",
    operation_id="watchJobs",
    summary="Watch several jobs",
    description=(
        f"One stream of up to {MAX_IDS} jobs; it begins with the present state of each. The ids of events are "
        "`<job>.<n>`. An event `missing` names the ids that no job of the caller has."
    ),
    responses={**_STREAM, **problems(*KEYED, "too_many_ids", "too_many_streams")},
    openapi_extra={"parameters": [JOBS_PARAMETER]},
)
async def watch_jobs(request: Request, caller: Counted) -> Response:
    """Stream the states of several jobs."""
    front = front_of(request)
    asked = list(dict.fromkeys(request.query_params.getlist("job")))
    check_count(len(asked), "job")
    found = await find(front, caller, filter(CLAIMED_ID.fullmatch, asked))
    there = [job_id for job_id in asked if job_id in found and not found[job_id].answer.is_deleted]
    missing = [job_id for job_id in asked if job_id not in there]
    return EventStream(request, front, caller, there, missing=missing, several=True)
