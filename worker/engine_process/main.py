"""An engine process, which the launcher starts by ``python -m worker.engine_process SOCKET [HEARTBEAT]``."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from producer.processes.leash import continue_when_parent_ends
from producer.processes.queued_signals import SAME_REQUEST_S, QueuedSignals, queued_signals
from producer.settings import read_settings
from worker.engine.capacity import BULK_TIME_FACTOR
from worker.engine.device import load_engine
from worker.engine.failures import failed_start
from worker.engine.local import LocalEngine
from worker.engine_process.device_use import DeviceUse
from worker.engine_process.gpu_in_use import GpuInUse
from worker.engine_process.info import info_for
from worker.engine_process.serving import Server
from worker.model import Model, load_model
from worker.runtime import logs
from worker.runtime.garbage import freeze_garbage
from worker.runtime.heartbeat import HeartbeatSender
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

#: The interval at which the engine sends its state to the fronts and checks whether the device hangs.
STATE_S: Final = 1.0
#: A working GPU takes less than a second for a batch. If a batch takes HUNG_S, and HUNG_FACTOR times as long as a full
#: batch should, the GPU hangs. Even after one image has hung two engines, the others have half of their 60 s left.
HUNG_S: Final = 15.0
HUNG_FACTOR: Final = 10
#: After a stop signal, the engine waits for its fronts this much longer than ``NAMESHOT_DRAIN_TIMEOUT``, because fronts
#: may have to requeue jobs in a slow Redis. The launcher waits even longer, so that an engine with a frozen front ends
#: in order.
STOPPING_S: Final = 5.0


def main(arguments: Sequence[str], load: Callable[..., Model] = load_model) -> int:
    """Load the model, then serve fronts until a stop signal has arrived and no front is connected.

    Call this in the main thread.

    Args:
        arguments: the socket's path, and the descriptor for heartbeats if there is one.
        load: has the signature of `worker.model.load_model`.

    Returns:
        The exit status: 0 after an orderly end, 78 when the configuration or the model cannot be used, 70 otherwise.
    """
    path, heart = Path(arguments[0]), HeartbeatSender(int(arguments[1]) if arguments[1:] else None)
    logs.configure("INFO", "human")
    continue_when_parent_ends()
    faulthandler.register(signal.SIGUSR1)  # prints all threads' stacks, even while native code runs
    try:
        settings = read_settings(WorkerSettings)
        logs.configure(settings.log_level, settings.log_format)
        gpu = GpuInUse(path.with_name(f"{path.name}-gpu"))
        if settings.device == "auto" and (predecessors := gpu.read()):
            # The previous engine may have died because its GPU was lost; `auto` would silently choose the CPU then.
            settings = settings.model_copy(update={"device": predecessors})
        model, engine = load_engine(settings, load_model=load, on_device_lost=_end_now, around_batch=DeviceUse().around)
        gpu.name = model.device if model.device != "cpu" else ""
        gpu.keep()
        freeze_garbage()
        server = Server(engine, *info_for(model, engine.max_batch), path)
        heart.has_loaded()  # before serving, since the first image could freeze this process
        server.keep_listening()
    except Exception as error:
        return failed_start(error, "engine")
    logger.info("engine ready: %s on %s in batches of %d", model.name, model.device, engine.max_batch)
    with queued_signals() as signals:
        _serve(
            server,
            signals,
            engine,
            gpu,
            may_take_s=lambda: _may_take_s(
                model.device,
                engine.batch_cost_s,
                engine.max_batch,
                BULK_TIME_FACTOR * settings.job_timeout,
            ),
            stopping_s=settings.drain_timeout + STOPPING_S,
        )
    server.close()
    engine.close()
    gpu.forget()
    with suppress(OSError):  # if the launcher has died, the last engine removes the folder
        path.parent.rmdir()
    return 0


def _may_take_s(device: str, cost_s: tuple[float, float], max_batch: int, limit_s: float) -> float:
    """Return the seconds after which a running batch counts as hung.

    Args:
        device: the device's name; a CPU may be slow, so it gets all of `limit_s`.
        cost_s: the learned cost of a batch and of each image in it; both 0 before the first batch.
        limit_s: the longest timeout of any job.
    """
    fixed_s, item_s = cost_s
    full_s = fixed_s + item_s * max_batch
    if device == "cpu" or not full_s:
        return limit_s
    return min(limit_s, max(HUNG_S, HUNG_FACTOR * full_s))


def _serve(
    server: Server,
    signals: QueuedSignals,
    engine: LocalEngine,
    gpu: GpuInUse,
    *,
    may_take_s: Callable[[], float],
    stopping_s: float,
) -> None:
    """Serve until a signal has arrived and no front is connected, because fronts that drain still need the device.

    SIGQUIT, or another signal well after the first, ends the wait for the fronts. If a batch hangs, this process ends.

    Args:
        may_take_s: returns the seconds after which a running batch counts as hung.
        stopping_s: the longest wait after the first signal; a front that is still connected then is frozen or was not
            stopped.
    """
    stopping_since_s: float | None = None
    while True:
        arrived = signals.wait(STATE_S if stopping_since_s is None else 0.1)
        now_s = time.monotonic()
        if signal.SIGQUIT in arrived:
            return
        if arrived and stopping_since_s is not None and now_s - stopping_since_s > SAME_REQUEST_S:
            return
        if arrived and stopping_since_s is None:
            stopping_since_s = now_s
        if stopping_since_s is not None and not server.fronts:
            return
        if stopping_since_s is not None and now_s - stopping_since_s > stopping_s:
            logger.warning("ending with %d fronts still connected", server.fronts)
            return
        server.keep_listening()
        gpu.keep()
        server.send_state()
        if (busy_s := engine.busy_s) > may_take_s():
            logger.critical("the device has been busy with one batch for %.0f s", busy_s)
            _end_now()


def _end_now() -> None:
    """End this process, whose device no longer answers; fronts send their unanswered requests to the next engine."""
    logger.critical("the device stopped answering: this engine ends, so that a new process can take over")
    logging.shutdown()
    os._exit(os.EX_SOFTWARE)
