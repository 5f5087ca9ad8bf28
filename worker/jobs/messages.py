"""Validates each message before Celery processes it, and refuses malformed ones.

Celery trusts its broker: a body of ``null`` ends the worker, and is requeued to end the next one; a header named like
a method of its request replaces that method; ``callbacks`` have the worker publish anything that the sender likes; and
Celery prints unusable messages in full. Here each message of our tasks is parsed once and strictly, and Celery gets
only validated fields. A malformed message is answered, stored as a dead letter, acknowledged, and logged in one line
without its content.
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
from producer.contract.names import CLASSIFY, CLASSIFY_MANY, SENT_AT_HEADER
from producer.contract.strict_json import MAX_PARTS
from producer.messages.envelope import REDACTED
from worker.delivery.taken import TAKEN_HEADER
from worker.jobs.refusals import Refusal
from worker.jobs.requests import sends_task_events
from worker.jobs.running_worker import worker_of

logger = logging.getLogger(__name__)

#: Our clients' ids have 36 characters (a UUID) or at most 128; other clients may use longer ones, within reason.
MAX_ID_CHARACTERS: Final = 512
#: A job that must run later than this needs a scheduler, not a queue.
LONGEST_DELAY: Final = timedelta(hours=1)
#: These would have the worker publish follow-up tasks on the sender's behalf.
CANVAS: Final = ("callbacks", "errbacks", "chain", "chord")


class Malformed(ValueError):
    """A message's fault, in a few words without its content."""


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """The validated parts of a message.

    Attributes:
        headers: the headers for Celery and the tasks, without any other header of the sender.
        args: the positional arguments.
        kwargs: the keyword arguments.
        not_before: the earliest time at which the job may run; None for at once.
    """

    headers: dict[str, Any]
    args: list[Any] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    not_before: datetime | None


def read_message(headers: Mapping[str, Any], content_type: object, body: bytes, now: datetime) -> TaskMessage:
    """Validate a message of one of our tasks.

    Of the sender's headers only ``id``, ``eta``, ``expires`` and the time of sending count. All others, such as
    ``retries``, ``timelimit``, ``shadow``, ``stamps``, ``group`` and ``ignore_result``, are ignored, whatever they
    hold: ordinary clients send them, the worker's time limit applies to every job, and every job gets an answer, from
    which a second delivery sees that it is done.

    Args:
        headers: the headers as `worker.delivery.envelope.read_envelope` returns them.
        content_type: the content type that the sender declared.
        body: the serialised arguments.
        now: the current time, with a time zone.

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
    if "self" in kwargs:  # Celery itself passes a task's ``self`` by name
        raise Malformed("there is no argument self")
    if found := [name for name in CANVAS if (embed or {}).get(name)]:
        raise Malformed(f"{found[0]} are not accepted, send what follows once the answer is there")
    eta, expires = _moment(headers, "eta"), _moment(headers, "expires")
    if eta is not None and eta - now > LONGEST_DELAY:
        raise Malformed("its eta is more than an hour ahead")
    sent_at = headers.get(SENT_AT_HEADER)
    clean = {
        "id": headers["id"],
        "task": headers["task"],
        "expires": expires and expires.isoformat(),
        # Celery logs these texts in place of the arguments.
        "argsrepr": REDACTED,
        "kwargsrepr": REDACTED,
        SENT_AT_HEADER: sent_at if isinstance(sent_at, int | float) else None,
        TAKEN_HEADER: headers[TAKEN_HEADER],
    }
    return TaskMessage(clean, args, kwargs, eta if eta is not None and eta > now else None)


def is_id(value: object) -> bool:
    """Return whether a header can be the id of a job."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARACTERS and value.isprintable()


def careful_strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Return Celery's default strategy behind `read_message`; ``JobTask.Strategy`` names this function."""
    take = default(task, app, consumer, **options)

    def receive(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **kwargs: Any) -> Any:
        try:
            found = read_message(message.headers, message.content_type, message.body, datetime.now(UTC))
        except Malformed as fault:
            refuse(consumer, message, str(fault))
            return None
        if found.not_before is not None:
            message.channel.postpone(message.delivery_tag, found.not_before.timestamp())
            return None
        message.headers = found.headers
        # Celery's cache of a decoded body; in this form it holds no ``embed``, so no follow-up tasks.
        message._decoded_cache = {"args": found.args, "kwargs": found.kwargs}
        return take(message, body, ack, reject, callbacks, **kwargs)

    return receive


def refuse(consumer: Any, message: Any, fault: str) -> None:
    """Have another thread answer a malformed message if it holds a job id, and store it as a dead letter.

    Args:
        fault: the fault, in a few words without the content.
    """
    logger.warning("refused a malformed message: %s", fault)
    headers = message.headers
    job_id, task = headers["id"], headers["task"]
    worker_of(consumer.app).refusals.refuse(
        Refusal(
            tag=message.delivery_tag,
            job_id=job_id if is_id(job_id) else None,
            # Any other task name is untrusted text.
            task=task if task in (CLASSIFY, CLASSIFY_MANY) else None,
            taken=headers[TAKEN_HEADER],
            fault=fault,
            acknowledge=partial(consumer.call_soon_ack, message.ack_log_error, logger, consumer.connection_errors),
            notify=partial(_send_failed_event, consumer, job_id),
        )
    )


def _send_failed_event(consumer: Any, job_id: str) -> None:
    """Send ``task-failed`` to monitors, which may know the job as sent. Any thread may call this, as Celery's do."""
    eventer = consumer.event_dispatcher
    if sends_task_events(eventer):
        eventer.send("task-failed", uuid=job_id, exception="JobFailed('invalid_job')", traceback="")


def _moment(headers: Mapping[str, Any], name: str) -> datetime | None:
    """Return a header's ISO 8601 time in UTC, which is also the default time zone; None if it is absent."""
    text = headers.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise Malformed(f"the header {name} is not a time in ISO 8601") from None
