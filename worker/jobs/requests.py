"""Celery's record of a job in hand, which tells no content and asks nothing of Celery's memory.

Celery remembers revoked and expired ids for hours, and discards whatever comes under one of them, a job that was sent
again under its id too; and it answers such a job in the event loop. Here the stored answer alone decides, and the task
looks at it in its own thread (`worker.jobs.tasks`).
"""

from __future__ import annotations

import logging
from typing import Any, Final

from celery.exceptions import Ignore
from celery.states import FAILURE, REVOKED, SUCCESS
from celery.worker.request import Request

logger = logging.getLogger(__name__)

#: Events that end a job for a monitor.
ENDINGS: Final = frozenset({"task-succeeded", "task-failed", "task-revoked"})


class JobRequest(Request):  # type: ignore[misc]  # celery is untyped
    """Named by ``JobTask.Request``."""

    def revoked(self) -> bool:
        """False: whether a job was revoked, or is too late, its task finds out."""
        return False

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        """What ``celery inspect`` shows: which job, never what it asks; a URL may be signed."""
        shown: dict[str, Any] = super().info(safe=True)
        return shown

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """As Celery, which says nothing of the end of a job that was cancelled, expired or answered before."""
        result = super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        error = exc_info.exception
        if isinstance(getattr(error, "exc", error), Ignore):  # billiard wraps what it carries a traceback for
            self.send_event("task-revoked", terminated=False, signum=None, expired=False)
        return result

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's signature
        """As Celery, but an ending says what the stored answer says, and no event has a traceback.

        Another worker, or the client that cancelled the job, may have been faster, and then that answer stands. A
        traceback shows what a library said of a URL.
        """
        if not sends_task_events(self._eventer):
            return
        ending, told = self._ending(type, fields) if type in ENDINGS else (type, fields)
        if "traceback" in told:
            told["traceback"] = ""
        super().send_event(ending, **told)

    def _ending(self, ending: str, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """What to send for the stored answer: Celery's event where it says the same. In a thread of the pool."""
        try:
            answer = self.task.backend._get_task_meta_for(self.id)
        except Exception as error:  # the result backend is away, and an event is not worth waiting for it
            logger.debug("no answer of job %s to tell of: %s", self.id, type(error).__name__)
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
    """Whether a worker runs with ``-E``, or was told to by ``enable_events``; its own events it may send without."""
    return bool(eventer and eventer.enabled and (not eventer.groups or "task" in eventer.groups))
