"""The Celery app of a worker, for ``celery -A nameshot.worker worker``; the same as ``celery -A worker worker``."""

from nameshot.shadowed import check_worker

check_worker()

from worker.celery import app  # noqa: E402 - not before it is known to be ours

__all__ = ["app"]
