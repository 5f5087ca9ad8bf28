"""The real worker app with a null model: ``celery -A tests.chaos.null_worker worker`` is ready in a second.

By default every job downloads and runs its own image and shares nothing with others, because tests count these runs.

Environment:
    NULL_FORWARD_MS: how long a forward pass takes, whatever its size (5).
    NULL_IMAGE_MS: how much each image adds to that (0).
    NULL_BURN_MS: CPU time that preparing an image takes under Python's lock (0).
    NULL_POISON_LABEL: a prompt with this label ends the process.
    NULL_POISONED_STAGE: the stage at which that label, or an image of `tests.chaos.null_model.POISON_COLOUR`, ends
        the process (prompts).
    NULL_BREAKING_LABEL: a prompt with this label loses the device.
    NULL_HANG: a file; while it exists, every forward pass hangs.
    NULL_LOAD_ERROR: the text of an error with which loading the model fails; no log may contain it.
    NULL_ERROR_TEXT: the text of the errors for images of three colours, see `tests.chaos.null_model`; no log may
        contain it either.
    NULL_TIME_SCALE: a factor for every time of the delivery (1): leases, silence, jobs that hang.
    NULL_RETRY_PAUSE_S: the pause before the first retry of a job with retries.
    NULL_HOSTS: a file of addresses and names, see `tests.chaos.hosts_file`.
    NULL_EXECUTIONS: a file to which the worker appends ``<job id> <pid> taken`` when a task starts, and a line that
        ends in ``run`` when its image is about to be embedded. A job that already had its answer is taken but not run.
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
    # With one write in append mode, lines of several processes never mix, and kill -9 loses none.
    os.write(executions, f"{job_id} {os.getpid()} {event}\n".encode())


def _log_executions(path: str) -> None:
    global _run
    executions = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    write = partial(_write, executions)
    signals.task_prerun.connect(lambda task_id, **_: write(task_id, "taken"), weak=False)

    def run() -> None:
        if current_task:  # the threads that prepare a bulk message's images have no current task
            write(current_task.request.id, "run")

    _run = run


def _run() -> None:
    """Do nothing; this function is replaced if executions are logged."""


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
