"""Say once, while a command waits for answers, that no worker takes jobs from their queue."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from producer.cli import output
from producer.cli.connection import link_to_redis
from producer.errors import NameshotError

if TYPE_CHECKING:
    from producer.operations.exchanges import Operation

#: While no answer arrives, the command checks for a worker at this interval.
LOOK_AFTER_S: Final = 3.0


@contextlib.contextmanager
def told_of_missing_workers(lacks_worker: Callable[[str], Operation[bool]]) -> Iterator[Callable[[], None]]:
    """Check for workers during a ``with`` block while no answers arrive; yield a function to call at each answer.

    Args:
        lacks_worker: gets the queue prefix, and returns the operation that finds whether certainly no worker takes from
            the queue of the awaited jobs.
    """
    ended, answered = threading.Event(), threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_AFTER_S):
            if answered.is_set():
                answered.clear()
                continue
            try:
                with link_to_redis() as (link, config):
                    lacks = link.run(lacks_worker(config.queue_prefix))
            except NameshotError:  # the command itself reports a Redis that fails
                continue
            if lacks and not ended.is_set():
                output.notice(
                    "nameshot: no worker takes jobs from the queue, so this command waits; start one with "
                    "`nameshot worker`, or see `nameshot doctor`."
                )
                return

    threading.Thread(target=look, name="missing-worker", daemon=True).start()
    try:
        yield answered.set
    finally:
        ended.set()
