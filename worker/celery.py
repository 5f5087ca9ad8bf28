"""The Celery app of a worker: ``celery -A worker worker``.

Importing this module reads no settings and loads no model. Celery requests the configuration when it is needed, and a
worker process loads the model when it starts, before it takes the first job.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from worker.jobs import remote_control, tasks
from worker.jobs.app import Nameshot
from worker.jobs.celery_command import FIRST_OPTION
from worker.jobs.consumer import ImageCredit, Pulse
from worker.lifecycle import Lifecycle


def _keep_our_logging(**_: Any) -> None:
    """Do nothing; Celery does not configure logging if a handler is connected to this signal."""


app = Nameshot("nameshot", set_as_current=True)
app.add_defaults(app.own_configuration)
app.steps["consumer"].update((ImageCredit, Pulse))
app.user_options["worker"].add(FIRST_OPTION)
tasks.register(app)
remote_control.register()

lifecycle = Lifecycle(app)
signals.setup_logging.connect(_keep_our_logging)
signals.worker_init.connect(lifecycle.start)
signals.worker_ready.connect(lifecycle.ready)
signals.worker_shutting_down.connect(lifecycle.stopping)
signals.worker_shutdown.connect(lifecycle.close)
