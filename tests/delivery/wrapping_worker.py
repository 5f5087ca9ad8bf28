"""A user's program that extends the worker's app with tasks of its own and of libraries."""

from __future__ import annotations

import os
from pathlib import Path

import celery.contrib.testing.tasks  # noqa: F401 - it shares a task with every app of the process
from celery import shared_task

from tests.chaos.null_worker import app

__all__ = ["app"]


def _ran(name: str) -> None:
    Path(os.environ["NULL_STRANGERS"], name).touch()


@app.task(name="stranger.own")  # type: ignore[untyped-decorator]  # celery is untyped
def own() -> None:
    _ran("own")


@shared_task(name="stranger.shared")  # type: ignore[untyped-decorator]  # celery is untyped
def shared() -> None:
    _ran("shared")


@shared_task(name="nameshot.classify")  # type: ignore[untyped-decorator]  # celery is untyped
def usurper() -> None:
    _ran("usurper")
