"""Celery's request for a job in hand, without the job's content and without Celery's list of revoked ids.

Celery remembers revoked and expired ids for hours and discards any message with one of them, even if a client has
submitted the job again under its id. It also answers such a job in the event loop. Our request ignores that list; the
task reads the stored answer in its own thread (`worker.jobs.tasks`).
"""

from __future__ import annotations

import logging
from typing import Any, Final

from celery.exceptions import Ignore
from celery.states import FAILURE, RETRY, REVOKED, SUCCESS
from celery.worker.request import Request

from producer.contract.request_id import REQUEST_ID_HEADER

logger = logging.getLogger(__name__)

#: After each of these events, a monitor shows the job as ended.
ENDINGS: Final = frozenset({"task-succeeded", "task-failed", "task-revoked"})


class JobRequest(Request):  # type: ignore[misc]  # celery is untyped
    """The request class of our tasks."""

    def revoked(self) -> bool:
        """Return False, because the task itself checks whether its job was revoked or has expired."""
        return False

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        """Return what ``celery inspect`` shows: the job without its arguments, because a URL may be signed."""
        shown: dict[str, Any] = super().info(safe=True)
        return shown

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Handle a failure as Celery does; if the task raised `Ignore`, also send the event that `_ending` chooses."""
        result = super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        error = exc_info.exception
        if isinstance(getattr(error, "exc", error), Ignore):  # billiard wraps an exception to carry its traceback
            self.send_event("task-revoked", terminated=False, signum=None, expired=False)
        return result

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's signature
        """Send an event as Celery does, but one that agrees with the stored answer and holds no traceback.

        Another worker, or a client that cancelled the job, may have stored an answer first. A traceback may hold a
        library's message with a URL.
        """
        if not sends_task_events(self._eventer):
            return
        ending, sent = self._ending(type, fields) if type in ENDINGS else (type, fields)
        if "traceback" in sent:
            sent["traceback"] = ""
        super().send_event(ending, **sent)

    def _ending(self, ending: str, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the event that agrees with the stored answer, and its fields; called in a thread of the pool."""
        try:
            answer = self.task.backend._get_task_meta_for(self.id)
        except Exception as error:  # an event is not worth the wait for an unreachable result backend
            logger.debug("could not read the answer of job %s for its event: %s", self.id, type(error).__name__)
            return ending, fields
        result = answer.get("result")
        stored: dict[str, tuple[str, dict[str, Any]]] = {
            SUCCESS: ("task-succeeded", {"result": "", "runtime": None}),
            FAILURE: ("task-failed", {"exception": repr(result), "traceback": ""}),
            RETRY: ("task-retried", {"exception": repr(result), "traceback": ""}),
            REVOKED: (
                "task-revoked",
                {"terminated": False, "signum": None, "expired": getattr(result, "args", ())[:1] == ("expired",)},
            ),
        }
        known = stored.get(answer.get("status"), (ending, fields))
        return known if known[0] != ending or ending == "task-revoked" else (ending, fields)


def named(request: Any) -> str:
    """Return a job's id for a log line and, if an HTTP request submitted the job, that request's id."""
    request_id = getattr(request, REQUEST_ID_HEADER, None)
    return f"{request.id} (request {request_id})" if request_id else str(request.id)


def sends_task_events(eventer: Any) -> bool:
    """Return whether ``-E`` or ``enable_events`` has switched task events on; the worker's own events need neither."""
    return bool(eventer and eventer.enabled and (not eventer.groups or "task" in eventer.groups))
