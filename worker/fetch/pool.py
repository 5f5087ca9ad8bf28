"""A pool of idle connections, bounded in number and age.

One host has at most half of the places, so that it cannot push out all other hosts' connections.

An idle connection leads to an address that the same policy has judged (a fetcher's policy never changes), for the same
scheme, host and port. Its age is bounded, so that a change in DNS takes effect.
"""

from __future__ import annotations

import ssl
import threading
import time
from typing import Final

from worker.fetch.connection import Connection
from worker.fetch.url_policy import Target

#: A connection is not reused beyond this age, used or not. DNS records of hosts that move seldom have a shorter TTL.
MAX_AGE_S: Final = 60.0
#: A connection is reused only this long after its last answer. A server may have sent more than that answer, and its
#: kernel may hold the rest back until ours acknowledges what came before, within 40 ms. Then the surplus is seen, and
#: the connection is closed before it passes for the next answer. A request in between costs a new connection.
QUIET_S: Final = 0.05


class KeptConnections:
    """At most ``max_idle`` idle connections, each at most ``max_age_s`` seconds old. Thread-safe.

    Args:
        quiet_s: how long after its last answer a connection may be used again.
    """

    def __init__(self, max_idle: int, max_age_s: float = MAX_AGE_S, quiet_s: float = QUIET_S) -> None:
        self._max_idle = max_idle
        self._max_age_s = max_age_s
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    def take(self, target: Target) -> Connection | None:
        """Take the most recently used idle connection to this origin that has been quiet for `quiet_s`."""
        while (found := self._pop(target)) is not None:
            if found.is_connected and not _has_unread_bytes(found):
                return found
            found.dispose()
        return None

    def give(self, connection: Connection) -> None:
        """Keep a connection whose answer was read to its end; above the bound, close the least recently used one."""
        connection.idle_since_s = time.monotonic()
        with self._lock:
            surplus: Connection | None = connection
            if not self._closed and self._max_idle > 0 and self._is_young(connection, time.monotonic()):
                self._idle.append(connection)
                surplus = self._surplus(connection.target)
                if surplus is not None:
                    self._idle.remove(surplus)
        if surplus is not None:
            surplus.dispose()

    def close(self) -> None:
        """Close all connections, and keep none from now on."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.dispose()

    def _surplus(self, target: Target) -> Connection | None:
        """Return the connection to close after one to this target was added, if any."""
        most_of_one = max(1, self._max_idle // 2)
        if len(self._idle) > most_of_one:
            of_same = [connection for connection in self._idle if _place_of(connection.target) == _place_of(target)]
            if len(of_same) > most_of_one:
                return of_same[0]
        return self._idle[0] if len(self._idle) > self._max_idle else None

    def _pop(self, target: Target) -> Connection | None:
        now_s = time.monotonic()
        with self._lock:
            old = [connection for connection in self._idle if not self._is_young(connection, now_s)]
            if old:
                self._idle = [connection for connection in self._idle if self._is_young(connection, now_s)]
            found = None
            for position in range(len(self._idle) - 1, -1, -1):
                idle = self._idle[position]
                if _place_of(idle.target) == _place_of(target) and now_s - idle.idle_since_s >= self._quiet_s:
                    found = self._idle.pop(position)
                    break
        for connection in old:
            connection.dispose()
        return found

    def _is_young(self, connection: Connection, now_s: float) -> bool:
        return now_s - connection.born_s < self._max_age_s


def _place_of(target: Target) -> tuple[str, str, int]:
    return target.scheme, target.host, target.port


def _has_unread_bytes(connection: Connection) -> bool:
    """Whether TLS holds unrequested bytes; ``is_connected`` sees those on the socket itself."""
    sock = connection.sock
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
