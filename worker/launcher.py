"""``nameshot worker``: the worker of this machine, as Celery runs it."""

from __future__ import annotations

import os


def launch(*, gpus: str | None = None) -> int:
    """Run one worker in this process until it is told to stop.

    Args:
        gpus: ``none`` for the CPU, a device number, or None to leave ``NAMESHOT_DEVICE`` as it is.

    Returns:
        The process's exit status.
    """
    if gpus is not None:
        os.environ["NAMESHOT_DEVICE"] = "cpu" if gpus == "none" else f"cuda:{gpus}"
    from worker.celery import app  # the environment is complete only now

    # A name of its own for each process, so that several workers of one machine can be told apart.
    app.worker_main(["worker", "-n", f"nameshot-{os.getpid()}@%h", "--without-heartbeat"])
    return 0
