"""What a worker says of itself when `nameshot doctor` asks: a remote control command of Celery."""

from __future__ import annotations

from typing import Any

from celery.worker.control import Panel

from producer.contract import EXAMINE


def register() -> None:
    """Add the command to Celery's own."""
    Panel.register(name=EXAMINE, type="inspect")(_examine)


def _examine(state: Any) -> dict[str, Any]:
    """What ails this worker."""
    vitality = state.app.delivery.vitality
    return {"complaint": vitality.complaint(), "device_busy_s": round(vitality.device_busy_s(), 1)}
