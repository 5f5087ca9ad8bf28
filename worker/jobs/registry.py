"""Restricts the app's task registry to our own tasks.

Celery registers its built-in tasks in every app, and so does any library that uses ``shared_task``. They would run
with Celery's own strategy, which trusts its broker: one message could end the worker, have it publish anything that
the sender likes, or wait for days in its memory.
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
        elif not name.startswith("celery."):  # leaving out Celery's built-in tasks is not worth a log line
            logger.warning("the task %s is left out: this worker runs %s only", name, " and ".join(OURS))
