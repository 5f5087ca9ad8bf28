"""A null worker that reports on SIGUSR2 which objects of its connections to the broker still exist.

Environment:
    COUNTS: a file to which the worker appends a line of JSON each time.
"""

import gc
import json
import os
import signal
from multiprocessing import util
from pathlib import Path

from kombu.asynchronous import get_event_loop

from tests.chaos.null_worker import app
from worker.delivery.transport import AtomicChannel, AtomicTransport

__all__ = ["app"]


def _count(*_: object) -> None:
    gc.collect()
    objects = gc.get_objects()
    loop = get_event_loop()
    assert loop is not None, "the worker runs without an event loop"
    counts = {
        "channels": sum(isinstance(each, AtomicChannel) for each in objects),
        "transports": sum(isinstance(each, AtomicTransport) for each in objects),
        "finalizers": len(util._finalizer_registry),  # type: ignore[attr-defined]  # where a leak would show
        "called each tick": len(loop.on_tick),
        "timers": sum(not scheduled.entry.canceled for scheduled in loop.timer.queue),
    }
    with Path(os.environ["COUNTS"]).open("a") as file:
        file.write(json.dumps(counts) + "\n")


signal.signal(signal.SIGUSR2, _count)
