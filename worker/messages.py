"""What comes in: a message that is not shaped like one of ours is refused before Celery works on it.

Celery trusts its broker: a body of ``null`` ends the worker, and returns to the queue to end the next one; and what it
cannot use it prints in full. Here each message of our tasks is looked at first; a malformed one is answered, kept as a
dead letter, acknowledged, and logged in one line without its content.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from celery.worker.strategy import default

from producer.contract import CLASSIFY, CLASSIFY_MANY
from producer.errors import JobFailed

logger = logging.getLogger(__name__)

#: What Celery's own reading of headers raises for values that it does not expect; any of it would end the worker.
UNEXPECTED: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
#: Ours are 36 characters (a UUID) or at most 128; other clients may choose, within reason.
MAX_ID_CHARACTERS: Final = 512


def careful_strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's own way of taking a message, behind a check; named by ``JobTask.Strategy``."""
    take = default(task, app, consumer, **options)

    def receive(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **kwargs: Any) -> Any:
        if (fault := _fault(message, body)) is None:
            try:
                return take(message, body, ack, reject, callbacks, **kwargs)
            except UNEXPECTED:
                fault = "a header cannot be used"
        refuse(app, message, fault)
        ack(logger, consumer.connection_errors)
        return None

    return receive


def refuse(app: Any, message: Any, fault: str) -> None:
    """Answer a malformed message, if it says which job it is, and keep it; the caller acknowledges it.

    Args:
        fault: what is wrong with it, in a few words without its content.
    """
    logger.warning("refused a malformed message: %s", fault)
    job_id, task = message.headers.get("id"), message.headers.get("task")
    app.delivery.dead_letters.malformed(
        message.delivery_tag,
        job_id=job_id if _is_id(job_id) else None,
        # A name that is not ours may be any text of a stranger.
        task=task if task in (CLASSIFY, CLASSIFY_MANY) else None,
    )
    if _is_id(job_id):
        app.backend.mark_as_failure(job_id, JobFailed("invalid_job", f"the message is malformed: {fault}."))


def _fault(message: Any, body: Any) -> str | None:
    """What is wrong with a message, in a few words; None when it has the shape of task protocol 2."""
    if body is not None:
        return "task protocol 1 is not supported"
    if not _is_id(message.headers.get("id")):
        return "the header id is not a task id"
    try:
        payload = message.payload
    except Exception:  # whatever a decoder raises: the body is a stranger's
        return "the body cannot be decoded as JSON"
    if not isinstance(payload, list) or len(payload) != 3:
        return "the body is not [args, kwargs, embed]"
    args, kwargs, embed = payload
    if not isinstance(args, list) or not isinstance(kwargs, dict) or not isinstance(embed, dict | None):
        return "the body is not [list, object, object]"
    return None


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARACTERS and value.isprintable()
