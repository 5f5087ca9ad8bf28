"""An engine process from start to end: ``python -m worker.engine_process SOCKET [HEARTBEAT]``, for the launcher."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from producer.errors import NameshotError
from producer.processes.queued_signals import SAME_REQUEST_S, QueuedSignals, queued_signals
from producer.settings import read_settings
from worker.engine.capacity import BULK_TIME_FACTOR
from worker.engine.device import load_engine
from worker.engine.local import LocalEngine
from worker.engine_process.rides import DeviceUse
from worker.engine_process.serving import Server
from worker.engine_process.terms import terms_for
from worker.model import DeviceLostError, Model, ModelError, load_model
from worker.runtime import logs
from worker.runtime.garbage import freeze_garbage
from worker.runtime.heartbeat import Heart
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

#: How often fronts are told how the device is, and whether it hangs is looked at.
STATE_S: Final = 1.0
#: A GPU that has run batches takes less than a second for one, and so many times what a full one took is no slow one.
#: An image that hangs two engines leaves its neighbours half of their 60 s.
HUNG_S: Final = 15.0
HUNG_FACTOR: Final = 10
#: Beyond ``NAMESHOT_DRAIN_TIMEOUT``, for fronts that give their jobs back to a slow Redis. It is less than the launcher
#: gives all of them, so that an engine that waits for a frozen front ends in order.
LEAVING_S: Final = 5.0


def main(arguments: Sequence[str], load: Callable[..., Model] = load_model) -> int:
    """As `run`.

    Args:
        arguments: the socket's path, and the descriptor for signs of life if there is one.
        load: called as `worker.model.load_model` is.
    """
    path, *heartbeat = arguments
    return run(Path(path), Heart(int(heartbeat[0]) if heartbeat else None), load)


def run(path: Path, heart: Heart, load: Callable[..., Model]) -> int:
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
        loaded = load_engine(settings, load_model=load, on_device_lost=_end_now, around_batch=DeviceUse().around)
        if loaded.model.device != "cpu":
            predecessors_gpu.write_text(loaded.model.device)
        freeze_garbage()
        server = Server(loaded.engine, *terms_for(loaded.model, loaded.max_batch), path)
        heart.has_loaded()  # first: an image could freeze this process at once
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
    with queued_signals() as signals:
        _serve(
            server,
            signals,
            loaded.engine,
            may_take_s=lambda: _may_take_s(
                loaded.model.device,
                loaded.engine.batch_cost_s,
                loaded.max_batch,
                BULK_TIME_FACTOR * settings.job_timeout,
            ),
            leaving_s=settings.drain_timeout + LEAVING_S,
        )
    server.close()
    loaded.engine.close()
    predecessors_gpu.unlink(missing_ok=True)
    with suppress(OSError):  # the launcher's, which may be gone; the last engine finds it empty
        path.parent.rmdir()
    return 0


def _may_take_s(device: str, cost_s: tuple[float, float], max_batch: int, limit_s: float) -> float:
    """What a batch may take before it is known that it never ends.

    Args:
        device: a CPU may be slow, and is given all of `limit_s`.
        cost_s: of a batch and of each image in it, as learned; 0 and 0 before the first.
        limit_s: the longest that any job waits.
    """
    fixed_s, item_s = cost_s
    full_s = fixed_s + item_s * max_batch
    if device == "cpu" or not full_s:
        return limit_s
    return min(limit_s, max(HUNG_S, HUNG_FACTOR * full_s))


def _serve(
    server: Server, signals: QueuedSignals, engine: LocalEngine, *, may_take_s: Callable[[], float], leaving_s: float
) -> None:
    """Until a signal has come and no front is connected: fronts that drain still need the device.

    Args:
        may_take_s: a batch that takes longer never ends.
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
        if (busy_s := engine.busy_s) > may_take_s():
            logger.critical("the device has been busy with one batch for %.0f s", busy_s)
            _end_now()


def _end_now() -> None:
    """The device is of no use to this process; fronts ask the next one for what this one has not answered."""
    logger.critical("the device stopped answering: this engine ends, so that a new process can take over")
    logging.shutdown()
    os._exit(os.EX_SOFTWARE)
