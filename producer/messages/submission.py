"""Turn a caller's arguments into a message that a client may send repeatedly and that Redis queues only once."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Unpack
from uuid import UUID, uuid4

from producer.contract.image_url import check_url_shape
from producer.contract.job import MAX_RETRIES, ClassifyJob, shown_number
from producer.contract.names import CLASSIFY, CLASSIFY_MANY, QUEUES, Queue, queue_name
from producer.contract.spelling import ATTRIBUTES, CALL, Spelling
from producer.errors import InvalidJob
from producer.messages.envelope import UndatedMessage, celery_message
from producer.messages.forms import QuestionJson, question_json_of_one
from producer.messages.options import JobId, QuestionOptions, SubmitOptions, refuse_timeout, refuse_unknown

#: What `submit_many` accepts: ``(url, labels)``, a mapping of `submit`'s arguments, or a checked `ClassifyJob`.
JobLike = tuple[str, Sequence[str]] | Mapping[str, Any] | ClassifyJob

#: The claim on the id of a job without an answer lasts this long, or `expires_in` if that is longer, plus the TTL of a
#: result. Then the claim expires and the id is free, although the message may still wait in its queue.
LONGEST_WAIT_S: Final = 7 * 86_400
#: A year, longer than any job needs. With this limit, the year of the time of expiry has four digits, as ISO
#: 8601 demands.
MAX_EXPIRES_IN_S: Final = 366 * 86_400.0

#: The maximum number of messages in one script, which then takes about a millisecond; Redis serves no other client
#: meanwhile.
CHUNK: Final = 100
#: A chunk ends with the message that reaches this number of characters. Messages with a thousand labels thus form
#: smaller chunks, and the client sends the first before it has written the last.
CHUNK_CHARACTERS: Final = 300_000

#: The form of the ids that our clients accept and claim.
CLAIMED_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SUBMIT_ARGUMENTS: Final = ("url", "labels", *SubmitOptions.__annotations__)


@dataclass(frozen=True, slots=True)
class Submission:
    """One message, and the data for the claim on its id.

    Attributes:
        fingerprint: the digest of the task's name and arguments, without queue and expiry.
        claim_ttl_s: how long the id stays claimed while there is no answer.
        life: the message's delivery tag, different each time that the job is submitted.
        expires_in_s: how long the job may wait once it is queued; None if it never expires.
    """

    job_id: str
    queue: Queue
    list_name: str
    fingerprint: str
    claim_ttl_s: int
    life: str
    expires_in_s: float | None
    message: UndatedMessage = field(repr=False)


def fingerprint(task: str | None, payload: str) -> str:
    """Return the digest of a task and its arguments, by which a claim recognises the same payload."""
    return hashlib.sha256(f"{task}\n{payload}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class MessageWriter:
    """Checks arguments and writes messages; it sends nothing."""

    queue_prefix: str
    result_ttl_s: int

    def single(
        self,
        url: str,
        labels: Sequence[str],
        *,
        job_id: JobId | None = None,
        expires_in: float | None = None,
        retries: int = 0,
        queue: Queue = "default",
        spelling: Spelling = CALL,
        **question: Unpack[QuestionOptions],
    ) -> Submission:
        """Write the message of one image; raises an `InvalidJob` that names the arguments as ``spelling`` does."""
        refuse_unknown("submit", question)
        url = check_url_shape(url, spelling.image)
        kwargs_json = question_json_of_one(labels, **question, spelling=spelling).filled(url)
        return self._write(CLASSIFY, kwargs_json, job_id=job_id, expires_in=expires_in, retries=retries, queue=queue)

    def chunks(self, jobs: Iterable[JobLike]) -> Iterator[tuple[list[Submission], Exception | None]]:
        """Write the messages of many jobs, and yield them in chunks, each together with None or an error.

        At an invalid job, or an error that ``jobs`` itself raises, the stream ends with the error and a chunk of the
        jobs before it.
        """
        chunk: list[Submission] = []
        characters = 0
        _check_iterable(jobs)
        source = iter(jobs)
        for position in count():
            try:
                job = next(source)
            except StopIteration:
                break
            except Exception as error:
                yield chunk, error
                return
            try:
                chunk.append(self.single(**_arguments(job)))
            except InvalidJob as error:
                # The caller submits this chunk before it raises the error, whose last sentence is then true.
                before = " The jobs before this one were queued." if position else ""
                yield chunk, InvalidJob(f"jobs[{position}]: {error}{before}")
                return
            characters += len(chunk[-1].message)
            if len(chunk) == CHUNK or characters >= CHUNK_CHARACTERS:
                yield chunk, None
                chunk, characters = [], 0
        yield chunk, None

    def bulk(
        self,
        images: list[str],
        question_json: QuestionJson,
        *,
        expires_in: float | None,
        queue: Queue,
        job_id: str | None = None,
    ) -> Submission:
        """Write the message of several images with one question; the caller has checked both."""
        return self._write(
            CLASSIFY_MANY, question_json.filled(images), job_id=job_id, expires_in=expires_in, queue=queue
        )

    def _write(
        self,
        task: str,
        kwargs_json: str,
        *,
        job_id: JobId | None,
        expires_in: float | None,
        queue: Queue,
        retries: int = 0,
    ) -> Submission:
        """Write the message of either task; raises `InvalidJob` for a bad id, expiry, number of retries or queue."""
        unique = str(uuid4())
        job_id = unique if job_id is None else check_job_id(job_id)
        list_name = queue_name(self.queue_prefix, check_queue(queue))
        expires_in_s = None if expires_in is None else check_expires_in(expires_in)
        return Submission(
            job_id=job_id,
            queue=queue,
            list_name=list_name,
            fingerprint=fingerprint(task, kwargs_json),
            claim_ttl_s=self.result_ttl_s + math.ceil(max(LONGEST_WAIT_S, expires_in_s or 0)),
            life=unique,
            expires_in_s=expires_in_s,
            message=celery_message(
                task=task,
                job_id=job_id,
                delivery_tag=unique,
                kwargs_json=kwargs_json,
                queue=list_name,
                expires_in_s=expires_in_s,
                retries=check_retries(retries),
            ),
        )


def check_job_id(job_id: object, name: str = "job_id") -> str:
    """Return the id as text, or raise an `InvalidJob` in which the argument is called ``name``."""
    text = _id_text(job_id, name)
    if not CLAIMED_ID.fullmatch(text):
        raise InvalidJob(f"{name} must be 1 to 128 of the characters A-Z a-z 0-9 _ and -.")
    return text


def known_job_id(job_id: object) -> str:
    """Return the id of a job that any client may have sent, as text; raises `InvalidJob`.

    A plain Celery client may choose ids with other characters than ours.
    """
    text = _id_text(job_id, "job_id")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidJob("job_id contains half of a surrogate pair, which no job's id does.") from None
    return text


def _id_text(job_id: object, name: str) -> str:
    """Return an id as text: a web app's own ids are often numbers or UUIDs."""
    if isinstance(job_id, str):
        return job_id
    if isinstance(job_id, UUID):
        return str(job_id)
    if isinstance(job_id, int) and not isinstance(job_id, bool):
        return shown_number(job_id)
    raise InvalidJob(f"{name} must be a string, a whole number or a UUID, not {CALL.kind(job_id)}.")


def check_queue(queue: Queue) -> Queue:
    """Return the queue's short name, or raise `InvalidJob` if there is no such queue."""
    if queue not in QUEUES:
        raise InvalidJob(f"queue must be one of {', '.join(QUEUES)}, not {str(queue)[:50]!r}.")
    return queue


def check_expires_in(expires_in: object, name: str = "expires_in") -> float:
    """Return the seconds, or raise an `InvalidJob` in which the argument is called ``name``."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        raise InvalidJob(f"{name} must be a number of seconds or None, not {type(expires_in).__name__}.")
    if not 0 < expires_in <= MAX_EXPIRES_IN_S:
        raise InvalidJob(
            f"{name} must be more than 0 and at most {MAX_EXPIRES_IN_S:,.0f} s, not {shown_number(expires_in)}."
        )
    return float(expires_in)


def check_retries(retries: object, name: str = "retries") -> int:
    """Return the number, or raise an `InvalidJob` in which the argument is called ``name``."""
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise InvalidJob(f"{name} must be an integer, not {type(retries).__name__}.")
    if not 0 <= retries <= MAX_RETRIES:
        raise InvalidJob(f"{name} must be from 0 to {MAX_RETRIES}, not {shown_number(retries)}.")
    return retries


def _check_iterable(jobs: object) -> None:
    """Raise `InvalidJob` for a value that is not iterable, and for a single job."""
    is_iterable = isinstance(jobs, Iterable) or hasattr(jobs, "__getitem__")
    if isinstance(jobs, str | bytes | Mapping) or not is_iterable:
        raise InvalidJob(f"jobs must be a list or another iterable of jobs, not {CALL.kind(jobs)}.")


def _arguments(job: JobLike) -> dict[str, Any]:
    """Return the arguments of `MessageWriter.single` for one item of `submit_many`."""
    if isinstance(job, ClassifyJob):
        question = job.question
        return {
            "url": job.image,
            "labels": question.candidate_labels,
            "hypothesis_template": question.templates,
            "top_k": question.top_k,
            "download_timeout": question.download_timeout,
            "spelling": ATTRIBUTES,
        }
    if isinstance(job, Mapping):
        refuse_timeout(job)
        if unknown := sorted(str(name) for name in job if name not in _SUBMIT_ARGUMENTS):
            raise InvalidJob(f"unknown argument {unknown[0][:50]!r}; known are {', '.join(_SUBMIT_ARGUMENTS)}.")
        for name in ("url", "labels"):
            if name not in job:
                raise InvalidJob(f"the argument {name} is missing.")
        return dict(job)
    if isinstance(job, tuple) and len(job) == 2:
        return {"url": job[0], "labels": job[1]}
    raise InvalidJob(
        f"each job must be (url, labels), a mapping of submit's arguments or a ClassifyJob, not {type(job).__name__}."
    )
