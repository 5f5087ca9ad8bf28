"""Celery's view of a message in hand, which here never stores an answer from the event loop."""

from __future__ import annotations

from celery.worker.request import Request


class JobRequest(Request):  # type: ignore[misc]  # celery is untyped
    """Named by ``JobTask.Request``."""

    def revoked(self) -> bool:
        """False: Celery would answer here an expired or revoked job, in the event loop, while Redis may be away.

        A job looks at its time, and for an answer that stands, in its own thread, before it begins. `Revoker` writes
        the answer of each revoked one.
        """
        return False
