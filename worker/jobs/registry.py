"""Restricts the app's task registry to our own tasks.

Celery registers its built-in tasks in every app, and so does any library that uses ``shared_task``. Messages for these
tasks would bypass our validation: one message could end the worker, have it publish any message that the sender wants,
or stay in its memory for days.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from celery.app.registry import TaskRegistry

from producer.contract.names import CLASSIFY, CLASSIFY_MANY
from worker.jobs.tasks import JobTask

logger = logging.getLogger(__name__)

OURS: Final = (CLASSIFY, CLASSIFY_MANY)


class OnlyOurs(TaskRegistry):  # type: ignore[misc]  # celery is untyped
    """Registers the tasks of `worker.jobs.tasks` and ignores all others, so that messages for them are refused."""

    def __setitem__(self, name: str, task: Any) -> None:
        if name in OURS and isinstance(task, JobTask):
            super().__setitem__(name, task)
        elif not name.startswith("celery."):  # Celery's own tasks are in every app, so they need no warning
            logger.warning("the task %s is left out: this worker runs %s only", name, " and ".join(OURS))
