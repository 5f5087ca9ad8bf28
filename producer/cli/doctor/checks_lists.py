"""Look for lists into which a plain Celery client put jobs by mistake, so that no worker takes them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from producer.contract.names import CLASSIFY
from producer.findings import Finding

if TYPE_CHECKING:
    from redis import Redis

#: The scan for lists that no worker serves ends after this time, in which it covers some million keys. It reports at
#: most five lists, which are enough to show the mistake.
_SCAN_S: Final = 1.0
_SCAN_COUNT: Final = 5_000
_MOST_NAMED: Final = 5
#: Celery sends a task without a queue's name to the list ``celery``.
_CELERYS_QUEUE: Final = "celery"
#: The list ``celery`` may belong to another application, whose messages may be large, so at most this many are read.
_MOST_READ: Final = 10


def lists_that_no_worker_serves(server: Redis, prefix: str) -> Iterator[Finding]:
    """Yield a warning for each list in which jobs wait in vain, as far as this user may read the lists."""
    for name in _misnamed(server, prefix):
        yield Finding(
            "queues",
            "warning",
            f"messages wait in the list {name!r}, which no worker serves",
            "send to the queues by their own names: without global_keyprefix, and with priority_steps from 0 to 9",
        )
    for name in _without_prefix(server):
        queue = f"{prefix}.{'default' if name == _CELERYS_QUEUE else name}"
        yield Finding(
            "queues",
            "warning",
            f"jobs of {CLASSIFY} wait in the list {name!r}, which no worker serves",
            f"name the queue when you send them: send_task(…, queue={queue!r})",
        )


def _without_prefix(server: Redis) -> list[str]:
    """Return those of Celery's default list and the queues' short names that hold messages of our tasks."""
    from redis.exceptions import ResponseError  # raised without permission, or for a key of another type

    from producer.contract.names import QUEUES

    found = []
    for name in (_CELERYS_QUEUE, *QUEUES):
        try:
            messages = server.lrange(name, 0, _MOST_READ - 1)
        except ResponseError:
            continue
        # The search finds only the task in a message's headers: the body, which holds a user's texts, is in base64.
        if any(f'"{CLASSIFY}'.encode() in message for message in messages):
            found.append(name)
    return found


def _misnamed(server: Redis, prefix: str) -> list[str]:
    """Return the lists that a plain Celery client filled by mistake: with a key prefix, or with an unserved priority.

    The check needs permission to SCAN, which only the worker's role has; without it, the list is empty.
    """
    from redis.exceptions import NoPermissionError

    from producer.contract.names import QUEUES, queue_name, waiting_names

    queues = [queue_name(prefix, queue) for queue in QUEUES]
    served = {name for queue in queues for name in waiting_names(queue)}
    meant = re.compile(f"({'|'.join(map(re.escape, queues))})(\\W*[0-9]+)?$")
    found: set[str] = set()
    cursor, deadline_s = 0, time.monotonic() + _SCAN_S
    try:
        while time.monotonic() < deadline_s:
            cursor, keys = server.scan(cursor, match=f"*{prefix}.*", count=_SCAN_COUNT, _type="list")
            names = {text_of(key) for key in keys}
            found |= {name for name in names - served if meant.search(name)}
            if not cursor:
                break
    except NoPermissionError:
        return []
    return sorted(found)[:_MOST_NAMED]


def text_of(value: Any) -> str:
    """Return a key's name or value as text."""
    return bytes(value).decode(errors="replace")
