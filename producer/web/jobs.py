"""The routes of jobs: submit, look up, cancel and delete."""

from __future__ import annotations

import base64
import hashlib
import logging
import math
import secrets
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from producer.errors import JobNotFound, QueueFull
from producer.messages.submission import CLAIMED_ID
from producer.operations.accepting import Asked, JobDeleted, KeyReused, QuotaExceeded, accept
from producer.operations.deleting import delete, is_half_deleted
from producer.operations.ending import cancel
from producer.operations.records import Seen
from producer.web.bodies import read_object
from producer.web.callers import Asking, Counted
from producer.web.documented import KEYED, problems
from producer.web.envelope import request_id_of
from producer.web.front import WebFront, front_of
from producer.web.ids import check_count, check_id
from producer.web.job_request import JobBody
from producer.web.keys import Caller
from producer.web.preferences import Preference, has_already
from producer.web.problems import Problem
from producer.web.replies import Reply
from producer.web.schemas import IDS_PARAMETER, JOB_BODY, JobList, JobObject
from producer.web.view import etag_of, find, find_one, job_object, urls_of
from producer.web.waiting import wait_for_end

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/jobs", redirect_slashes=False)

#: The advice to a caller whose job has no answer yet.
_AGAIN: Final = {"Retry-After": "1"}
#: The advice to a caller who has too many jobs without an answer; one may be answered at any moment.
_QUOTA_RETRY_S: Final = "5"
_MAX_KEY_CHARACTERS: Final = 255
_ID_BYTES: Final = 16
_KEYED_ID_BYTES: Final = 20


@router.post(
    "",
    operation_id="submitJob",
    summary="Submit a job",
    description=(
        "With `Idempotency-Key` (1 to 255 visible ASCII characters) a repeated request returns the same job. With "
        "`Prefer: wait=N` the response waits up to N seconds for the answer, and has status 200 if it came."
    ),
    status_code=202,
    responses={
        200: {"model": JobObject, "description": "the job, which has an answer"},
        202: {"model": JobObject, "description": "the job, which is accepted"},
        **problems(
            *(*KEYED, "invalid_json", "forbidden", "job_deleted", "unsupported_media_type", "invalid_job"),
            *("invalid_idempotency_key", "idempotency_key_reused", "queue_full", "quota_exceeded"),
        ),
    },
    openapi_extra={"requestBody": JOB_BODY},
)
async def submit_job(request: Request, caller: Counted) -> Response:
    """Accept a job: 202 is sent only once it is queued."""
    front = front_of(request)
    asked = JobBody.read(await read_object(request))
    if asked.queue not in caller.queues:
        raise Problem("forbidden", f"this key may not use the queue {asked.queue}; use another queue or key.")
    preference = Preference.of(request, front.settings.web_max_wait)
    job_id = _id_of(request, caller)
    submission = asked.submission(front.config.writer, job_id, request_id_of(request.scope))
    is_new = await _accept(front, Asked(submission, caller.kid, asked.digest, caller.max_open))
    await wait_for_end(front, request, job_id, preference.wait_s)
    seen = await find_one(front, caller, job_id)
    headers = {"Location": urls_of(front, job_id)["self"], **preference.headers}
    if not is_new:
        headers["Idempotent-Replayed"] = "true"
    return _response(front, job_id, seen, headers, unfinished=202)


@router.get(
    "",
    operation_id="getJobs",
    summary="Look up several jobs",
    responses={200: {"model": JobList}, **problems(*KEYED, "too_many_ids")},
    openapi_extra={"parameters": [IDS_PARAMETER]},
)
async def get_jobs(request: Request, caller: Counted) -> Response:
    """Return jobs in the order asked."""
    front = front_of(request)
    job_ids = request.query_params.getlist("id")
    check_count(len(job_ids), "id")
    seen = await find(front, caller, filter(CLAIMED_ID.fullmatch, job_ids))
    found = [job_id for job_id in job_ids if job_id in seen and not seen[job_id].answer.is_deleted]
    missing = [job_id for job_id in job_ids if job_id not in found]
    jobs = [job_object(front, job_id, seen[job_id]) for job_id in found]
    return Reply({"jobs": jobs, "missing": missing})


@router.get(
    "/{job_id}",
    operation_id="getJob",
    summary="Look up a job",
    description="`Prefer: wait=N` waits up to N seconds for the answer. The `ETag` changes with the job's state.",
    responses={
        200: {"model": JobObject, "description": "the job"},
        304: {"description": "the job is in the state that If-None-Match names"},
        **problems(*KEYED, "job_not_found", "job_deleted"),
    },
)
async def get_job(request: Request, job_id: str, caller: Asking) -> Response:
    """Return a job."""
    front = front_of(request)
    preference = Preference.of(request, front.settings.web_max_wait)
    seen = await _own(front, caller, job_id)
    if preference.wait_s and not seen.answer.is_terminal:
        await wait_for_end(front, request, job_id, preference.wait_s)
        seen = await find_one(front, caller, job_id)
    if has_already(request, etag_of(job_id, seen.answer)):
        return Response(status_code=304, headers={"ETag": etag_of(job_id, seen.answer), **preference.headers})
    return _response(front, job_id, seen, preference.headers)


@router.post(
    "/{job_id}/cancel",
    operation_id="cancelJob",
    summary="Cancel a job",
    description="A terminal answer that stands already remains.",
    responses={
        200: {"model": JobObject, "description": "the job, cancelled or with the answer that stood first"},
        **problems(*KEYED, "job_not_found", "job_deleted"),
    },
)
async def cancel_job(request: Request, job_id: str, caller: Counted) -> Response:
    """Cancel a job, any number of times."""
    front = front_of(request)
    seen = await _own(front, caller, job_id)
    if not seen.answer.is_terminal:
        try:
            await front.run(cancel(front.prefix, job_id, result_ttl_s=front.config.result_ttl_s))
        except JobNotFound:
            raise Problem("job_not_found") from None
        seen = await find_one(front, caller, job_id)
    return _response(front, job_id, seen, {})


@router.delete(
    "/{job_id}",
    operation_id="deleteJob",
    summary="Delete an answered job",
    status_code=204,
    responses={
        204: {"description": "the answer is deleted; the id stays in use until it would have expired"},
        **problems(*KEYED, "job_not_found", "job_not_finished", "job_deleted"),
    },
)
async def delete_job(request: Request, job_id: str, caller: Counted) -> Response:
    """Delete the answer of a job."""
    front = front_of(request)
    check_id(job_id)
    seen = (await find(front, caller, [job_id])).get(job_id)
    if seen is None:
        raise Problem("job_not_found")
    if seen.answer.is_deleted and not await front.run(is_half_deleted(front.prefix, job_id)):
        raise Problem("job_deleted")
    if not seen.answer.is_settled:
        raise Problem("job_not_finished")
    if not await front.run(delete(front.prefix, job_id, result_ttl_s=front.config.result_ttl_s)):
        raise Problem("job_not_finished")
    return Response(status_code=204)


async def _accept(front: WebFront, asked: Asked) -> bool:
    config = front.config
    try:
        return await front.run(
            accept(front.prefix, asked, max_queue=config.max_queue, result_ttl_s=config.result_ttl_s)
        )
    except KeyReused:
        raise Problem("idempotency_key_reused") from None
    except JobDeleted:
        raise Problem("job_deleted") from None
    except QuotaExceeded as error:
        raise Problem("quota_exceeded", f"{error}.", headers={"Retry-After": _QUOTA_RETRY_S}) from None
    except QueueFull as error:
        raise Problem(
            "queue_full",
            f"the queue {asked.submission.queue} is full; try again in {error.retry_after_s:g} s.",
            headers={"Retry-After": str(math.ceil(error.retry_after_s))},
        ) from None


async def _own(front: WebFront, caller: Caller, job_id: str) -> Seen:
    check_id(job_id)
    return await find_one(front, caller, job_id)


def _id_of(request: Request, caller: Caller) -> str:
    """Return the id of a new job: random, or from the caller's Idempotency-Key."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return f"j_{_base32(secrets.token_bytes(_ID_BYTES))}"
    key = keys[0]
    if len(keys) > 1 or not 1 <= len(key) <= _MAX_KEY_CHARACTERS or not all("!" <= each <= "~" for each in key):
        raise Problem("invalid_idempotency_key")
    digest = hashlib.sha256(f"{caller.kid}\0{key}".encode()).digest()
    return f"k_{_base32(digest[:_KEYED_ID_BYTES])}"


def _base32(data: bytes) -> str:
    return base64.b32hexencode(data).decode().rstrip("=").lower()


def _response(front: WebFront, job_id: str, seen: Seen, headers: dict[str, str], unfinished: int = 200) -> Response:
    is_over = seen.answer.is_terminal
    content: dict[str, Any] = job_object(front, job_id, seen)
    headers = {"ETag": etag_of(job_id, seen.answer), **headers, **({} if is_over else _AGAIN)}
    return Reply(content, 200 if is_over else unfinished, headers)
