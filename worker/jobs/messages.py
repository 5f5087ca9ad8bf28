"""Validates each message before Celery processes it, and refuses malformed ones.

Celery trusts its broker. A body of ``null`` ends the worker and is requeued, so it ends the next worker too. A header
with the name of a method of Celery's `Request` object replaces that method. The field ``callbacks`` has the worker
publish any message that the sender wants. Celery also logs unusable messages in full.

This module parses each message of our tasks once and strictly, and passes only validated fields to Celery. The worker
answers a malformed message, stores it as a dead letter, acknowledges it, and logs one line without its content.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from celery.worker.strategy import default

from producer.contract import strict_json
from producer.contract.job import MAX_RETRIES
from producer.contract.names import CLASSIFY, CLASSIFY_MANY, RETRIES_HEADER, SENT_AT_HEADER
from producer.contract.request_id import REQUEST_ID_HEADER, is_request_id
from producer.contract.strict_json import MAX_PARTS
from producer.messages.envelope import REDACTED
from worker.delivery.taken import TAKEN_HEADER
from worker.jobs.refusals import Refusal
from worker.jobs.requests import sends_task_events
from worker.jobs.running_worker import worker_of

logger = logging.getLogger(__name__)

#: Ids may have this many characters. Our clients' ids have at most 128; other clients may choose longer ones.
MAX_ID_CHARACTERS: Final = 512
#: A job may have an ``eta`` this far ahead; a longer delay needs a scheduler.
LONGEST_DELAY: Final = timedelta(hours=1)
#: With one of these fields the worker would publish follow-up tasks, with its own rights, for the sender.
CANVAS: Final = ("callbacks", "errbacks", "chain", "chord")


class Malformed(ValueError):
    """The message is malformed; the text says why, without quoting the message."""


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """The validated parts of a message.

    Attributes:
        headers: the validated headers, which are the only ones that Celery and the tasks get.
        args: the positional arguments.
        kwargs: the keyword arguments.
        not_before: the earliest time at which the job may run; None if it may run at once.
    """

    headers: dict[str, Any]
    args: list[Any] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    not_before: datetime | None


def read_message(headers: Mapping[str, Any], content_type: object, body: bytes, now: datetime) -> TaskMessage:
    """Validate a message of one of our tasks and return its parts.

    Of the sender's headers only ``id``, ``task``, ``eta``, ``expires``, `SENT_AT_HEADER`, `RETRIES_HEADER` and
    `REQUEST_ID_HEADER` count; the last is only logged.
    Ordinary Celery clients also send ``retries``, ``timelimit``, ``shadow``, ``stamps``, ``group`` and
    ``ignore_result``, which are ignored: the worker's time limit applies to every job, and every job gets an answer,
    so that a worker that receives the message again does not run it.

    Args:
        headers: the headers as `worker.delivery.envelope.read_envelope` returns them.
        content_type: the content type that the sender declared.
        body: the serialised arguments.
        now: the current time by the broker's clock, as an aware datetime.

    Raises:
        Malformed: the message cannot become a job.
    """
    if headers[TAKEN_HEADER].fault:
        raise Malformed(headers[TAKEN_HEADER].fault)
    if not is_id(headers.get("id")):
        raise Malformed("the header id is not a task id")
    if content_type != "application/json":
        raise Malformed("the body's content type is not application/json")
    try:
        payload = strict_json.loads(body, max_parts=MAX_PARTS)
    except strict_json.NotStrictJson as error:
        raise Malformed(f"the body cannot be decoded as JSON, {error}") from None
    if not isinstance(payload, list) or len(payload) != 3:
        raise Malformed("the body is not [args, kwargs, embed]")
    args, kwargs, embed = payload
    if not isinstance(args, list) or not isinstance(kwargs, dict) or not isinstance(embed, dict | None):
        raise Malformed("the body is not [list, object, object]")
    if "self" in kwargs:  # Celery itself passes ``self`` to a task by name
        raise Malformed("the argument name self is not allowed")
    if found := [name for name in CANVAS if (embed or {}).get(name)]:
        raise Malformed(f"the field {found[0]} is not accepted; submit the follow-up task after the answer has arrived")
    eta, expires = _moment(headers, "eta"), _moment(headers, "expires")
    if eta is not None and eta - now > LONGEST_DELAY:
        raise Malformed("its eta is more than an hour ahead")
    retries = headers.get(RETRIES_HEADER) or 0
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= MAX_RETRIES:
        raise Malformed(f"the header {RETRIES_HEADER} is not an integer from 0 to {MAX_RETRIES}")
    sent_at, request_id = headers.get(SENT_AT_HEADER), headers.get(REQUEST_ID_HEADER)
    clean = {
        "id": headers["id"],
        "task": headers["task"],
        "expires": expires and expires.isoformat(),
        # Celery logs these texts in place of the arguments.
        "argsrepr": REDACTED,
        "kwargsrepr": REDACTED,
        SENT_AT_HEADER: sent_at if isinstance(sent_at, int | float) else None,
        RETRIES_HEADER: retries,
        REQUEST_ID_HEADER: request_id if is_request_id(request_id) else None,
        TAKEN_HEADER: headers[TAKEN_HEADER],
    }
    return TaskMessage(clean, args, kwargs, eta if eta is not None and eta > now else None)


def is_id(value: object) -> bool:
    """Return whether a header's value can be a job's id."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARACTERS and value.isprintable()


def validating_strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Return a strategy that refuses malformed messages, postpones early ones, and gives others to Celery's."""
    take = default(task, app, consumer, **options)

    def now() -> datetime:
        return datetime.fromtimestamp(worker_of(app).delivery.clock.now_s(), UTC)

    def receive(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **kwargs: Any) -> Any:
        try:
            found = read_message(message.headers, message.content_type, message.body, now())
        except Malformed as fault:
            refuse(consumer, message, str(fault))
            return None
        if found.not_before is not None:
            message.channel.postpone(message.delivery_tag, found.not_before.timestamp())
            return None
        message.headers = found.headers
        # Celery reads the body from this cache; without ``embed`` it publishes no follow-up tasks.
        message._decoded_cache = {"args": found.args, "kwargs": found.kwargs}
        return take(message, body, ack, reject, callbacks, **kwargs)

    return receive


def refuse(consumer: Any, message: Any, fault: str) -> None:
    """Have another thread answer a malformed message, if it holds a job id, and store it as a dead letter.

    Args:
        fault: why the message is malformed, without quoting it.
    """
    logger.warning("refused a malformed message: %s", fault)
    headers = message.headers
    job_id, task = headers["id"], headers["task"]
    worker_of(consumer.app).refusals.refuse(
        Refusal(
            tag=message.delivery_tag,
            job_id=job_id if is_id(job_id) else None,
            # Any other task name is untrusted text, which no dead letter should show.
            task=task if task in (CLASSIFY, CLASSIFY_MANY) else None,
            taken=headers[TAKEN_HEADER],
            fault=fault,
            acknowledge=partial(consumer.call_soon_ack, message.ack_log_error, logger, consumer.connection_errors),
            notify=partial(_send_failed_event, consumer, job_id),
        )
    )


def _send_failed_event(consumer: Any, job_id: str) -> None:
    """Send ``task-failed`` to Celery monitors, which may still show the job as sent.

    Any thread may call this; Celery's own threads send events in the same way.
    """
    eventer = consumer.event_dispatcher
    if sends_task_events(eventer):
        eventer.send("task-failed", uuid=job_id, exception="JobFailed('invalid_job')", traceback="")


def _moment(headers: Mapping[str, Any], name: str) -> datetime | None:
    """Return a header's ISO 8601 time in UTC; None if the header is absent. A time without a zone is taken as UTC."""
    text = headers.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise Malformed(f"the header {name} is not a time in ISO 8601") from None
