"""A pool of idle connections, limited in number and age.

At most half of the connections lead to one host, so that this host cannot evict all other hosts' connections.

Requests reuse a connection only for the same scheme, host and port. The policy has allowed the connection's address and
never changes, so a reused connection needs no new check. The limit on age lets changes in DNS take effect.
"""

from __future__ import annotations

import ssl
import threading
import time
from typing import Final

from worker.fetch.connection import Connection
from worker.fetch.url_policy import Target

#: A connection is not reused beyond this age, counted from its creation. If a host's addresses change, its DNS records
#: rarely have a shorter TTL.
MAX_AGE_S: Final = 60.0
#: A connection is reused only after it has been idle for this long. A server may have sent more bytes than its last
#: response, and its kernel may delay them until our kernel acknowledges earlier bytes, which takes up to 40 ms. After
#: this pause the pool sees such bytes and closes the connection, so they cannot be mistaken for the next response.
QUIET_S: Final = 0.05


class KeptConnections:
    """At most ``max_idle`` idle connections, each at most ``max_age_s`` seconds old. Thread-safe.

    Args:
        quiet_s: how long a connection must have been idle before it may be reused, in seconds.
    """

    def __init__(self, max_idle: int, max_age_s: float = MAX_AGE_S, quiet_s: float = QUIET_S) -> None:
        self._max_idle = max_idle
        self._max_age_s = max_age_s
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    def take(self, target: Target) -> Connection | None:
        """Remove and return the most recent connection to this origin that was idle for `quiet_s`; None if none was."""
        while (found := self._pop(target)) is not None:
            if found.is_connected and not _has_unread_bytes(found):
                return found
            found.dispose()
        return None

    def give(self, connection: Connection) -> None:
        """Keep a connection whose response was read to its end; above the limit, close the least recently used one."""
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
        """Close all connections and keep none from now on."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.dispose()

    def _surplus(self, target: Target) -> Connection | None:
        """Return the connection to close after one to this target was added; None if there is room for all."""
        most_of_one = max(1, self._max_idle // 2)
        if len(self._idle) > most_of_one:
            of_same = [connection for connection in self._idle if _origin_of(connection.target) == _origin_of(target)]
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
                if _origin_of(idle.target) == _origin_of(target) and now_s - idle.idle_since_s >= self._quiet_s:
                    found = self._idle.pop(position)
                    break
        for connection in old:
            connection.dispose()
        return found

    def _is_young(self, connection: Connection, now_s: float) -> bool:
        return now_s - connection.born_s < self._max_age_s


def _origin_of(target: Target) -> tuple[str, str, int]:
    return target.scheme, target.host, target.port


def _has_unread_bytes(connection: Connection) -> bool:
    """Return whether TLS holds unread bytes; the caller's check of ``is_connected`` covers those of the socket."""
    sock = connection.sock
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
