"""Celery's request for a job in hand, which exposes no content and ignores Celery's memory of revoked ids.

Celery remembers revoked and expired ids for hours, and discards any message with one of them, even a job that was sent
again under its id; and it answers such a job in the event loop. Here only the stored answer decides, and the task reads
it in its own thread (`worker.jobs.tasks`).
"""

from __future__ import annotations

import logging
from typing import Any, Final

from celery.exceptions import Ignore
from celery.states import FAILURE, REVOKED, SUCCESS
from celery.worker.request import Request

logger = logging.getLogger(__name__)

#: These events tell a monitor that a job has ended.
ENDINGS: Final = frozenset({"task-succeeded", "task-failed", "task-revoked"})


class JobRequest(Request):  # type: ignore[misc]  # celery is untyped
    """The request class of our tasks, which ``JobTask.Request`` names."""

    def revoked(self) -> bool:
        """Return False: the task itself checks whether its job was revoked or has expired."""
        return False

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        """Return what ``celery inspect`` shows: the job without its arguments, since a URL may be signed."""
        shown: dict[str, Any] = super().info(safe=True)
        return shown

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Handle a failure as Celery does, and also send the event of a cancelled, expired or answered job."""
        result = super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        error = exc_info.exception
        if isinstance(getattr(error, "exc", error), Ignore):  # billiard wraps an exception to carry its traceback
            self.send_event("task-revoked", terminated=False, signum=None, expired=False)
        return result

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's signature
        """Send an event as Celery does, but with the stored answer's ending, and without a traceback.

        Another worker, or the client that cancelled the job, may have stored an answer first. A traceback may hold a
        library's message with a URL.
        """
        if not sends_task_events(self._eventer):
            return
        ending, sent = self._ending(type, fields) if type in ENDINGS else (type, fields)
        if "traceback" in sent:
            sent["traceback"] = ""
        super().send_event(ending, **sent)

    def _ending(self, ending: str, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the event for the stored answer, or Celery's own if it agrees. Runs in a thread of the pool."""
        try:
            answer = self.task.backend._get_task_meta_for(self.id)
        except Exception as error:  # the result backend may be away, and an event is not worth the wait
            logger.debug("could not read the answer of job %s for its event: %s", self.id, type(error).__name__)
            return ending, fields
        result = answer.get("result")
        stored: dict[str, tuple[str, dict[str, Any]]] = {
            SUCCESS: ("task-succeeded", {"result": "", "runtime": None}),
            FAILURE: ("task-failed", {"exception": repr(result), "traceback": ""}),
            REVOKED: (
                "task-revoked",
                {"terminated": False, "signum": None, "expired": getattr(result, "args", ())[:1] == ("expired",)},
            ),
        }
        known = stored.get(answer.get("status"), (ending, fields))
        return known if known[0] != ending or ending == "task-revoked" else (ending, fields)


def sends_task_events(eventer: Any) -> bool:
    """Return whether task events are on, by ``-E`` or ``enable_events``; events of the worker itself need neither."""
    return bool(eventer and eventer.enabled and (not eventer.groups or "task" in eventer.groups))
