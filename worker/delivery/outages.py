"""Distinguishes an outage of Redis from a lasting error of one key, and lets a thread wait until an outage ends.

A lasting error that is mistaken for an outage blocks a thread; an outage that is mistaken for a lasting error makes the
worker give up jobs. So only WRONGTYPE counts as a lasting error at once. After an error that is clearly an outage, the
thread just retries. After any other error the thread first runs a probe, a similar command on another key. The error
counts as a lasting one of that key or message only if Redis keeps accepting the probe and keeps refusing the command.
"""

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

#: A thread retries after about the first pause, and doubles the pause up to the longest one. The longest one is short,
#: since a worker takes jobs again only once all its threads have stored their answers; some hundred retries a second
#: are a light load for Redis.
FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 2.0
#: The same call must fail this many times in a row while Redis accepts each probe, before its error counts as lasting.
#: With the pauses this takes five seconds. Even if a server refuses half of all commands at random, only one call in a
#: million fails so often in a row.
STRIKES: Final = 10
#: All threads of a worker together log an outage at most once in this time.
LOG_EVERY_S: Final = 30.0
#: A log line holds at most this many characters of a server's error; the longest of Redis' own have about 150.
MAX_DESCRIBED: Final = 300

#: With these errors the server refuses commands on all keys, or on all of ours. A missing permission belongs here:
#: roles name keys by patterns, so that all jobs lack it or none does, and an operator can grant it.
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
#: The texts of these errors, as the server writes them. redis-py has no class for some of them, and Redis before 7 puts
#: an error within a script behind ``ERR Error running script``.
_WHOLE_SERVER_TEXT: Final = re.compile(
    r"(?:^|[ -])(?:BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOAUTH|NOPERM|NOREPLICAS|NOSCRIPT|OOM|READONLY) "
    r"|user executing the script can't|ACL failure in script|unknown command|unknown Redis command"
)
_WRONG_TYPE: Final = re.compile(r"(?:^|[ -])WRONGTYPE ")


def name_of(error: redis.RedisError) -> str:
    """Return the kind of an error as the server or redis-py names it; never a key, a host or untrusted text."""
    code = str(error).split(" ", 1)[0]
    return code if type(error) is redis.ResponseError and code.isupper() else type(error).__name__


def describe(error: Exception) -> str:
    """Return an error for the log: the first line of a server's error reply, or the kind of any other error."""
    if not isinstance(error, redis.ResponseError):
        return type(error).__name__
    return (str(error).splitlines() or [type(error).__name__])[0][:MAX_DESCRIBED]


def is_wrong_type(error: Exception) -> bool:
    """Return whether a command failed because a key holds a value of another type."""
    return isinstance(error, redis.ResponseError) and _WRONG_TYPE.search(str(error)) is not None


def is_outage(error: redis.RedisError) -> bool:
    """Return whether the server refuses commands on all keys, or on all of ours, whatever their content."""
    return isinstance(error, _WHOLE_SERVER) or _WHOLE_SERVER_TEXT.search(str(error)) is not None


class Outage:
    """Tracks whether one server is down: it counts as down while a thread waits for it in `outlast`. Thread-safe.

    Args:
        server: the server's name in messages, such as ``the result backend``.
        refusal: the predicate in messages about an outage, such as ``does not take answers``.
        probe: runs a harmless command like those in the work of `outlast`; fails only if the server refuses such
            commands.
    """

    def __init__(self, server: str, refusal: str, probe: Callable[[], object]) -> None:
        self._server, self._refusal = server, refusal
        self._probe = probe
        self._lock = threading.Lock()
        self._waiting = 0
        self._since_s = 0.0
        self._logged_at_s = 0.0
        self._reason = ""

    @property
    def description(self) -> str | None:
        """The current outage in one clause; None while the server is available."""
        with self._lock:
            if not self._waiting:
                return None
            return f"{self._server} {self._refusal} ({self._reason}), for {self._duration_s:.0f} s"

    def outlast(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, calling it again for as long as the server is down.

        Raises:
            RedisError: a lasting error of the key or the content.
        """
        pause_s, waits, strikes = FIRST_PAUSE_S, False, 0
        with ExitStack() as stack:
            while True:
                try:
                    return work()
                except redis.RedisError as error:
                    strikes = strikes + 1 if self._seems_lasting(error) else 0
                    if is_wrong_type(error) or strikes == STRIKES:
                        raise
                    if not waits:
                        stack.enter_context(self._wait())
                        waits = True
                    self._record(error)
                # Jitter spreads the retries of threads that failed at the same moment.
                time.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _seems_lasting(self, error: redis.RedisError) -> bool:
        """Return whether an error other than WRONGTYPE is due to the key or content: the server accepts the probe."""
        if is_outage(error) or is_wrong_type(error):
            return False
        try:
            self._probe()
        except redis.RedisError:
            return False
        return True

    @contextmanager
    def _wait(self) -> Iterator[None]:
        with self._lock:
            if not self._waiting:
                self._since_s, self._logged_at_s = time.monotonic(), float("-inf")
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    logger.info("%s is back, after %.1f s", self._server, self._duration_s)

    def _record(self, error: redis.RedisError) -> None:
        with self._lock:
            self._reason = name_of(error)
            now_s = time.monotonic()
            if now_s - self._logged_at_s > LOG_EVERY_S:
                self._logged_at_s = now_s
                logger.warning("%s %s (%s): retrying", self._server, self._refusal, describe(error))

    @property
    def _duration_s(self) -> float:
        return time.monotonic() - self._since_s
