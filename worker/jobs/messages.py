"""What comes in: a message that is not shaped like one of ours is refused before Celery works on it.

Celery trusts its broker: a body of ``null`` ends the worker, and returns to the queue to end the next one; a header
named like a method of its request takes that method's place; ``callbacks`` have the worker publish what a stranger
likes; and what it cannot use it prints in full. Here each message of our tasks is read once and strictly, and Celery
gets only what was found good. A malformed one is answered, kept as a dead letter, acknowledged, and logged in one line
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

from producer.contract import CLASSIFY, CLASSIFY_MANY, SENT_AT_HEADER, strict_json
from producer.contract.strict_json import MAX_PARTS
from producer.messages.envelope import REDACTED
from worker.delivery.names import DEATHS_ALONE_HEADER, DEATHS_HEADER, FAULT_HEADER, LIFE_HEADER, TAKEN_HEADER
from worker.jobs.refusals import Refusal
from worker.jobs.requests import sends_task_events
from worker.jobs.results import Message

logger = logging.getLogger(__name__)

#: Ours are 36 characters (a UUID) or at most 128; other clients may choose, within reason.
MAX_ID_CHARACTERS: Final = 512
#: Who wants an answer later than this has a scheduler, and a queue is none.
LONGEST_DELAY: Final = timedelta(hours=1)
#: What would follow a task, each published by the worker in the sender's name.
CANVAS: Final = ("callbacks", "errbacks", "chain", "chord")


class Malformed(ValueError):
    """What is wrong with a message, in a few words without its content."""


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """What is used of a message.

    Attributes:
        headers: those that Celery and the tasks are to see; no others of the sender.
        not_before: when it may run; None for at once.
    """

    headers: dict[str, Any]
    args: list[Any] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    not_before: datetime | None


def read_message(headers: Mapping[str, Any], content_type: object, body: bytes, now: datetime) -> TaskMessage:
    """Look at a message of one of our tasks.

    Of the sender's headers only ``id``, ``eta``, ``expires`` and the time of sending mean something here. Ignored are
    ``retries``, ``timelimit``, ``shadow``, ``stamps``, ``group``, ``ignore_result`` and all others, whatever they hold:
    ordinary clients send them, a job has the worker's time limit, and it always has an answer, by which a second
    delivery sees that it is done.

    Args:
        headers: as `worker.delivery.envelope.read_envelope` has them.
        now: with a time zone.

    Raises:
        Malformed: it cannot become a job.
    """
    if fault := headers.get(FAULT_HEADER):
        raise Malformed(fault)
    if not is_id(headers.get("id")):
        raise Malformed("the header id is not a task id")
    if content_type != "application/json":
        raise Malformed("the body is not announced as application/json")
    try:
        payload = strict_json.loads(body, max_parts=MAX_PARTS)
    except strict_json.NotStrictJson as error:
        raise Malformed(f"the body cannot be decoded as JSON, {error}") from None
    if not isinstance(payload, list) or len(payload) != 3:
        raise Malformed("the body is not [args, kwargs, embed]")
    args, kwargs, embed = payload
    if not isinstance(args, list) or not isinstance(kwargs, dict) or not isinstance(embed, dict | None):
        raise Malformed("the body is not [list, object, object]")
    if "self" in kwargs:  # which Celery's own call of a task takes by name
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
        # Where Celery would put the arguments, should it ever print them.
        "argsrepr": REDACTED,
        "kwargsrepr": REDACTED,
        SENT_AT_HEADER: sent_at if isinstance(sent_at, int | float) else None,
        LIFE_HEADER: headers.get(LIFE_HEADER, ""),
        TAKEN_HEADER: headers.get(TAKEN_HEADER),
        DEATHS_HEADER: headers.get(DEATHS_HEADER, 0),
        DEATHS_ALONE_HEADER: headers.get(DEATHS_ALONE_HEADER, 0),
    }
    return TaskMessage(clean, args, kwargs, eta if eta is not None and eta > now else None)


def is_id(value: object) -> bool:
    """Whether a header can be the id of a job."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARACTERS and value.isprintable()


def careful_strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's own way of taking a message, behind a check; named by ``JobTask.Strategy``."""
    take = default(task, app, consumer, **options)

    def receive(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **kwargs: Any) -> Any:
        try:
            found = read_message(message.headers, message.content_type, message.body, datetime.now(UTC))
        except Malformed as fault:
            refuse(consumer, message, str(fault), lambda: ack(logger, consumer.connection_errors))
            return None
        if found.not_before is not None:
            message.channel.postpone(message.delivery_tag, found.not_before.timestamp())
            return None
        message.headers = found.headers
        # Celery's form of a message that needs no further decoding; with its arguments by name, nothing can follow it.
        message._decoded_cache = {"args": found.args, "kwargs": found.kwargs}
        return take(message, body, ack, reject, callbacks, **kwargs)

    return receive


def refuse(consumer: Any, message: Any, fault: str, acknowledge: Callable[[], object]) -> None:
    """Have a malformed message kept, and answered if it says which job it is; soon, in another thread.

    Args:
        fault: what is wrong with it, in a few words without its content.
        acknowledge: called once that is done.
    """
    logger.warning("refused a malformed message: %s", fault)
    headers = message.headers
    job_id, task, life = headers.get("id"), headers.get("task"), headers.get(LIFE_HEADER)
    consumer.app.refusals.refuse(
        Refusal(
            tag=message.delivery_tag,
            job_id=job_id if is_id(job_id) else None,
            # A name that is not ours may be any text of a stranger.
            task=task if task in (CLASSIFY, CLASSIFY_MANY) else None,
            message=Message(life if isinstance(life, str) else "", headers.get(TAKEN_HEADER)),
            fault=fault,
            acknowledge=acknowledge,
            tell=partial(_tell_refused, consumer, job_id),
        )
    )


def _tell_refused(consumer: Any, job_id: str) -> None:
    """Say that it failed to those who watch events, and may know it as sent. In any thread, as Celery's pool does."""
    eventer = consumer.event_dispatcher
    if sends_task_events(eventer):
        eventer.send("task-failed", uuid=job_id, exception="JobFailed('invalid_job')", traceback="")


def _moment(headers: Mapping[str, Any], name: str) -> datetime | None:
    """A header that is a time in ISO 8601, in UTC unless it says otherwise, or that is not there."""
    text = headers.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise Malformed(f"the header {name} is not a time in ISO 8601") from None
