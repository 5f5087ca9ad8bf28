"""Ends a download when its time is over or its job is cancelled, even while its thread is blocked.

A socket's timeout limits one ``recv``; a server that sends one byte a second, or ``100 Continue`` forever, never
exceeds it. One thread for all downloads therefore shuts each socket down at its deadline, and the thread that cancels a
job shuts the job's socket down at once. Any call that is blocked on the socket then returns, be it in the TLS
handshake, the headers or the body.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from worker.concurrency.cancel_scope import CancelScope


class Watch:
    """The watch over one socket for one scope; `Watchdog.watch` creates it."""

    __slots__ = ("_fired", "_sock", "_watchdog", "deadline_s")

    def __init__(self, watchdog: Watchdog, sock: socket.socket, deadline_s: float) -> None:
        self._watchdog = watchdog
        self._sock = sock
        self._fired = False
        self.deadline_s = deadline_s

    def end(self) -> bool:
        """Stop watching; return whether the socket was shut down, which a reader can mistake for the body's end."""
        self._watchdog._forget(self)
        return self._fired

    def _fire(self) -> None:
        """Shut the socket down and stop watching it; the caller holds the watchdog's lock."""
        self._watchdog._watches.discard(self)
        self._fired = True
        with contextlib.suppress(OSError):  # the peer may have closed the connection
            self._sock.shutdown(socket.SHUT_RDWR)


class Watchdog:
    """Shuts sockets down when their scopes end. Thread-safe; the first watch starts its thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watches: set[Watch] = set()
        self._wakes_s = float("inf")
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, sock: socket.socket, scope: CancelScope) -> Watch:
        """Shut ``sock`` down when the scope ends, unless `Watch.end` is called first.

        ``sock`` should be a duplicate, because wrapping a socket in TLS detaches the original object.
        """
        watch = Watch(self, sock, scope.deadline_s)
        with self._changed:
            if self._closed:
                watch._fire()
                return watch
            self._watches.add(watch)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="fetch-deadlines", daemon=True)
                thread.start()
                self._thread = thread  # set after the start, so that the next watch retries a start that failed
            elif scope.deadline_s < self._wakes_s:
                self._changed.notify()
        scope.on_cancel(lambda: self._end_early(watch))
        return watch

    def close(self) -> None:
        """Shut down all watched sockets and end the thread; sockets watched later are shut down at once."""
        with self._changed:
            self._closed = True
            for watch in self._watches.copy():
                watch._fire()
            self._changed.notify()

    def _end_early(self, watch: Watch) -> None:
        with self._changed:
            if watch in self._watches:
                watch._fire()

    def _forget(self, watch: Watch) -> None:
        # The lock ensures that this watch cannot shut the socket down after its connection has returned to the pool.
        with self._changed:
            self._watches.discard(watch)

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now_s = time.monotonic()
                for watch in [watch for watch in self._watches if watch.deadline_s <= now_s]:
                    watch._fire()
                self._wakes_s = min((watch.deadline_s for watch in self._watches), default=float("inf"))
                self._changed.wait(None if self._wakes_s == float("inf") else self._wakes_s - now_s)
