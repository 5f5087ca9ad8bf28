"""One worker process, as ``nameshot worker`` starts it: ``python -m worker``."""

from __future__ import annotations

import os

from worker.celery import app

if __name__ == "__main__":
    # A name of its own for each process, so that several workers of one machine can be told apart.
    app.worker_main(["worker", "-n", f"nameshot-{os.getpid()}@%h", "--without-heartbeat"])
