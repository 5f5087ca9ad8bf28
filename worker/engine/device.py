"""Loads the model onto its device and builds the engine around it, from the process's settings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.resources import files

from producer.settings import BUNDLED
from worker.concurrency.threads import run_in_short_lived_thread
from worker.engine.capacity import measured_max_batch, rehearsed_max_batch
from worker.engine.local import PROMPT_BATCH, AroundBatch, LocalEngine
from worker.engine.stages import Stages
from worker.model.interface import Model
from worker.runtime.allocator import bound_malloc
from worker.runtime.garbage import uncollected
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)


def load_engine(
    settings: WorkerSettings,
    *,
    load_model: Callable[..., Model],
    on_device_lost: Callable[[], None],
    around_batch: AroundBatch = nullcontext,
    stages: Stages | None = None,
) -> tuple[Model, LocalEngine]:
    """Load and warm up the model, start its engine, and return both.

    Args:
        load_model: has the signature of `worker.model.load_model`.
        on_device_lost: see `LocalEngine`.
        around_batch: see `LocalEngine`.
        stages: see `LocalEngine`.

    Raises:
        ModelLoadError: the checkpoint cannot be used.
        DeviceLostError: the device failed during loading; a new process may succeed.
    """
    bound_malloc()
    started = time.monotonic()
    logger.info("loading %s", settings.model)

    wanted = None if settings.max_batch == "auto" else settings.max_batch

    @uncollected()
    def warm() -> tuple[Model, int | Callable[[], int]]:
        model = load_model(
            checkpoint(settings.model), revision=settings.revision, device=settings.device, dtype=settings.dtype
        )
        model.warm_up()
        if model.device != "cpu":
            return model, lambda: rehearsed_max_batch(model, wanted, PROMPT_BATCH)
        return model, wanted or measured_max_batch(model)

    model, max_batch = run_in_short_lived_thread(warm)
    engine = LocalEngine(
        model,
        max_batch=max_batch,
        max_wait_s=settings.max_wait_ms / 1000,
        latency_target_s=settings.latency_target_ms / 1000 or None,
        on_device_lost=on_device_lost,
        around_batch=around_batch,
        stages=stages,
    )
    logger.info(
        "%s (%s) on %s in %s, ready after %.1f s: batches of %d",
        model.name,
        model.family,
        model.device,
        model.dtype,
        time.monotonic() - started,
        engine.max_batch,
    )
    return model, engine


def checkpoint(model: str) -> str:
    """Return the Hub id or the folder to load for this value of ``NAMESHOT_MODEL``."""
    return str(files("worker") / "bundled" / "emoji-clip") if model == BUNDLED else model
