"""A Redis that cannot serve just now, told apart from a key that never will; and how a thread waits for the former."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, TypeVar

import redis
from redis.exceptions import AskError, ClusterDownError, InvalidResponse, TryAgainError

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: A thread tries again after about so long, and then ever later. The last pause is short, since a worker takes jobs
#: again only once all its threads have stored what they have; a Redis that is back bears some hundred tries a second.
FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 2.0
#: One line for all threads of a worker.
SAY_EVERY_S: Final = 30.0

#: These say that the server cannot serve, or not us, whichever key it is asked about. A permission belongs here: a role
#: names keys by patterns, so that it is missing for all jobs or for none, and an operator can grant it.
_WHOLE_SERVER: Final = (
    redis.ConnectionError,  # LOADING and a refused password are among these
    redis.TimeoutError,
    redis.OutOfMemoryError,
    redis.ReadOnlyError,
    redis.exceptions.NoPermissionError,
    ClusterDownError,  # MASTERDOWN is one of these
    AskError,
    TryAgainError,
    InvalidResponse,
)
#: The same as the server writes it. redis-py has no class for some; and Redis before 7 puts what a script ran into
#: behind ``ERR Error running script``.
_WHOLE_SERVER_TEXT: Final = re.compile(
    r"(?:^|[ -])(?:BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOAUTH|NOPERM|NOREPLICAS|NOSCRIPT|OOM|READONLY) "
    r"|user executing the script can't|unknown command|unknown Redis command"
)


def name_of(error: redis.RedisError) -> str:
    """The kind of an error in a word, as the server or redis-py names it; never a key, a host or a stranger's text."""
    code = str(error).split(" ", 1)[0]
    return code if type(error) is redis.ResponseError and code.isupper() else type(error).__name__


def is_outage(error: redis.RedisError) -> bool:
    """Whether the same command may succeed later; False where it fails because of what a key or a message holds."""
    return isinstance(error, _WHOLE_SERVER) or _WHOLE_SERVER_TEXT.search(str(error)) is not None


class Outage:
    """Whether one server is away: it is for as long as a thread waits for it here. Thread-safe.

    Args:
        server: what people call it, as in ``the result backend``.
        refusal: what it does then, as in ``does not take answers``.
    """

    def __init__(self, server: str, refusal: str) -> None:
        self._server, self._refusal = server, refusal
        self._lock = threading.Lock()
        self._waiting = 0
        self._since_s = 0.0
        self._said_at_s = 0.0
        self._reason = ""

    @property
    def description(self) -> str | None:
        """What keeps this worker from its work; None while the server is there."""
        with self._lock:
            if not self._waiting:
                return None
            return f"{self._server} {self._refusal} ({self._reason}), for {self._duration_s:.0f} s"

    def outlast(self, work: Callable[[], T]) -> T:
        """Do work that asks the server, again and again for as long as an outage lasts.

        Raises:
            RedisError: one that is no outage.
        """
        pause_s, waits = FIRST_PAUSE_S, False
        with ExitStack() as stack:
            while True:
                try:
                    return work()
                except redis.RedisError as error:
                    if not is_outage(error):
                        raise
                    if not waits:
                        stack.enter_context(self._wait())
                        waits = True
                    self._note(error)
                # Threads that failed at the same moment come back one after another.
                time.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    @contextmanager
    def _wait(self) -> Iterator[None]:
        with self._lock:
            if not self._waiting:
                self._since_s, self._said_at_s = time.monotonic(), float("-inf")
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    logger.info("%s is back, after %.1f s", self._server, self._duration_s)

    def _note(self, error: redis.RedisError) -> None:
        with self._lock:
            self._reason = name_of(error)
            now_s = time.monotonic()
            if now_s - self._said_at_s > SAY_EVERY_S:
                self._said_at_s = now_s
                reason = (str(error).splitlines() or [self._reason])[0]
                logger.warning("%s %s (%s): trying again", self._server, self._refusal, reason)

    @property
    def _duration_s(self) -> float:
        return time.monotonic() - self._since_s
