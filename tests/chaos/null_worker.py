"""The real worker app with a null model: ``celery -A tests.chaos.null_worker worker`` is ready in a second.

Unless its settings say otherwise, every job fetches and runs its image, whatever others do: that is what tests count.

Environment:
    NULL_FORWARD_MS: what a forward pass takes, whatever its size (5).
    NULL_IMAGE_MS: what each image adds to it (0).
    NULL_BURN_MS: CPU time that preparing an image takes under Python's lock (0).
    NULL_POISON_LABEL: a prompt with this label ends the process.
    NULL_POISONED_STAGE: where it does so, or an image of `tests.chaos.null_model.POISON_COLOUR` (prompts).
    NULL_BREAKING_LABEL: a prompt with this label loses the device.
    NULL_HANG: a file; while it exists, every forward pass hangs.
    NULL_LOAD_ERROR: what loading the model fails with, as a text that no log may hold.
    NULL_ERROR_TEXT: what images of three colours fail with, see `tests.chaos.null_model`; no log may hold it either.
    NULL_TIME_SCALE: what every time of the delivery is multiplied by (1): leases, silence, jobs that hang.
    NULL_RETRY_PAUSE_S: the pause before the first retry of a job that asks for some.
    NULL_HOSTS: a file of addresses and names, see `tests.chaos.hosts_file`.
    NULL_EXECUTIONS: a file that gets a line ``<job id> <pid> taken`` when a task starts, and one that ends in ``run``
        when its image is about to be embedded. A job that had its answer already is taken and not run.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path
from typing import Any, cast

from celery import current_task, signals

from tests.chaos.hosts_file import looking_into
from tests.chaos.null_model import NullModel, PoisonedStage
from tests.chaos.scaled_times import scaled_times
from worker.celery import app, lifecycle
from worker.jobs import retrying

__all__ = ["app"]


def _load_null_model(_model: str, **_: Any) -> NullModel:
    if "NULL_LOAD_ERROR" in os.environ:
        raise RuntimeError(os.environ["NULL_LOAD_ERROR"])
    return NullModel(
        forward_ms=float(os.environ.get("NULL_FORWARD_MS", "5")),
        image_ms=float(os.environ.get("NULL_IMAGE_MS", "0")),
        burn_ms=float(os.environ.get("NULL_BURN_MS", "0")),
        poison_label=os.environ.get("NULL_POISON_LABEL"),
        poisoned_stage=cast(PoisonedStage, os.environ.get("NULL_POISONED_STAGE", "prompts")),
        breaking_label=os.environ.get("NULL_BREAKING_LABEL"),
        hangs=Path(os.environ["NULL_HANG"]).exists if "NULL_HANG" in os.environ else lambda: False,
        on_prepare=_run,
        error_text=os.environ.get("NULL_ERROR_TEXT"),
    )


def _write(executions: int, job_id: str, event: str) -> None:
    # One write in append mode: lines of several processes never mix, and kill -9 loses none.
    os.write(executions, f"{job_id} {os.getpid()} {event}\n".encode())


def _log_executions(path: str) -> None:
    global _run
    executions = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    write = partial(_write, executions)
    signals.task_prerun.connect(lambda task_id, **_: write(task_id, "taken"), weak=False)

    def run() -> None:
        if current_task:  # the images of a bulk message are prepared in threads that know no task
            write(current_task.request.id, "run")

    _run = run


def _run() -> None:
    """Replaced when executions are logged."""


for setting, off in (("NAMESHOT_EMBEDDING_CACHE_BYTES", "0"), ("NAMESHOT_FETCH_COALESCE", "false")):
    os.environ.setdefault(setting, off)
if "NULL_EXECUTIONS" in os.environ:
    _log_executions(os.environ["NULL_EXECUTIONS"])
if "NULL_HOSTS" in os.environ:
    socket.getaddrinfo = looking_into(Path(os.environ["NULL_HOSTS"]))
if "NULL_RETRY_PAUSE_S" in os.environ:
    vars(retrying)["FIRST_PAUSE_S"] = float(os.environ["NULL_RETRY_PAUSE_S"])
app.load_model = _load_null_model
lifecycle.times = scaled_times(float(os.environ.get("NULL_TIME_SCALE", "1")))
