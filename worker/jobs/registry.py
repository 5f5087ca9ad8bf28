"""The tasks of the worker's app: ours, and no others.

Celery registers tasks of its own in every app, and whatever a library marks with ``shared_task``. They would run
here with Celery's own strategy, which trusts its broker: one message could end the worker, have it publish what a
stranger likes, or wait for days in its memory.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from celery.app.registry import TaskRegistry

from producer.contract import CLASSIFY, CLASSIFY_MANY
from worker.jobs.tasks import JobTask

logger = logging.getLogger(__name__)

OURS: Final = (CLASSIFY, CLASSIFY_MANY)
#: Celery's own: that they are left out is no news.
BUILT_IN: Final = "celery."


class OnlyOurs(TaskRegistry):  # type: ignore[misc]  # celery is untyped
    """Keeps the tasks of `worker.jobs.tasks` and leaves out all others; a message for one of those is refused."""

    def __setitem__(self, name: str, task: Any) -> None:
        if name in OURS and isinstance(task, JobTask):
            super().__setitem__(name, task)
        elif not name.startswith(BUILT_IN):
            logger.warning("the task %s is left out: this worker runs %s only", name, " and ".join(OURS))
