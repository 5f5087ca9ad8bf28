"""The Celery app of a worker: ``celery -A nameshot.worker worker`` does the same as ``celery -A worker worker``."""

from nameshot.shadowed import check_worker

check_worker()

from worker.celery import app  # noqa: E402 - only after the check that `worker` is ours

__all__ = ["app"]
