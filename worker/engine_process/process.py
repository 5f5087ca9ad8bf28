"""An engine process from start to end: ``python -m worker.engine_process SOCKET``, as the launcher starts it."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from producer.errors import NameshotError
from producer.settings import read_settings
from worker import logs
from worker.capacity import BULK_TIME_FACTOR
from worker.device import load_engine
from worker.engine_process.rides import Rides
from worker.engine_process.serving import Server
from worker.engine_process.terms import terms_for
from worker.garbage import settle
from worker.model import DeviceLostError, Model, ModelError, load_model
from worker.settings import WorkerSettings
from worker.stopping import SAME_REQUEST_S, StopSignals, stop_signals

logger = logging.getLogger(__name__)

#: How often fronts are told how the device is, and whether it hangs is looked at.
STATE_S: Final = 1.0
#: Beyond ``NAMESHOT_DRAIN_TIMEOUT``, for fronts that give their jobs back to a slow Redis. It is less than the launcher
#: gives all of them, so that an engine that waits for a frozen front ends in order.
LEAVING_S: Final = 5.0


def run(path: Path, load: Callable[..., Model] = load_model) -> int:
    """Load the model, then serve fronts until told to stop and they are gone; from the main thread.

    Returns:
        0 when it ended in order, 78 when the configuration or the model cannot be used, 70 otherwise.
    """
    logs.configure("INFO", "human")
    try:
        settings = read_settings(WorkerSettings)
        logs.configure(settings.log_level, settings.log_format)
        predecessors_gpu = path.with_name(f"{path.name}-gpu")
        if settings.device == "auto" and predecessors_gpu.exists():
            # It may have died because that GPU is lost: the CPU would take its place without a word.
            settings = settings.model_copy(update={"device": predecessors_gpu.read_text()})
        loaded = load_engine(settings, load_model=load, on_device_lost=_end_now, around_batch=Rides().around)
        if loaded.model.device != "cpu":
            predecessors_gpu.write_text(loaded.model.device)
        settle()
        server = Server(loaded.engine, *terms_for(loaded.model, loaded.max_batch), path)
        server.start()
    except DeviceLostError as error:
        logger.critical("%s", error)
        return os.EX_SOFTWARE
    except (NameshotError, ModelError) as error:
        logger.critical("%s", error)
        return os.EX_CONFIG
    except Exception as error:
        logger.critical("this engine cannot start: %s at %s", type(error).__name__, logs.place_of(error))
        return os.EX_SOFTWARE
    logger.info("engine ready: %s on %s in batches of %d", loaded.model.name, loaded.model.device, loaded.max_batch)
    with stop_signals() as signals:
        _serve(
            server,
            signals,
            lambda: loaded.engine.busy_s,
            limit_s=BULK_TIME_FACTOR * settings.job_timeout,
            leaving_s=settings.drain_timeout + LEAVING_S,
        )
    server.close()
    loaded.engine.close()
    predecessors_gpu.unlink(missing_ok=True)
    with suppress(OSError):  # the launcher's, which may be gone; the last engine finds it empty
        path.parent.rmdir()
    return 0


def _serve(
    server: Server, signals: StopSignals, busy_s: Callable[[], float], *, limit_s: float, leaving_s: float
) -> None:
    """Until a signal has come and no front is connected: fronts that drain still need the device.

    Args:
        busy_s: how long the oldest running batch has taken so far.
        limit_s: a batch that takes longer never ends.
        leaving_s: from the signal on; a front that is still there is frozen, or was not told to end.
    """
    leaving_since_s: float | None = None
    while True:
        arrived = signals.wait(STATE_S if leaving_since_s is None else 0.1)
        now_s = time.monotonic()
        if signal.SIGQUIT in arrived:
            return
        if arrived and leaving_since_s is not None and now_s - leaving_since_s > SAME_REQUEST_S:
            return
        if arrived and leaving_since_s is None:
            leaving_since_s = now_s
        if leaving_since_s is not None and not server.guests:
            return
        if leaving_since_s is not None and now_s - leaving_since_s > leaving_s:
            logger.warning("leaving: %d fronts are still here", server.guests)
            return
        server.tell_state()
        if busy_s() > limit_s:
            logger.critical("the device has been busy with one batch for %.0f s", busy_s())
            _end_now()


def _end_now() -> None:
    """The device is of no use to this process; fronts ask the next one for what this one has not answered."""
    logger.critical("the device stopped answering: this engine ends, so that a new process can take over")
    logging.shutdown()
    os._exit(os.EX_SOFTWARE)
