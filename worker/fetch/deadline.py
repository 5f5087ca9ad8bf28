"""Ends downloads from outside when their time is up or their job is cancelled.

A socket's timeout bounds one ``recv``; a server that sends a byte a second, or ``100 Continue`` forever, never exceeds
it. So one thread, shared by all downloads, shuts each socket down at its deadline; a cancelling thread shuts it down at
once. Any call blocked on the socket, in the TLS handshake, the headers or the body, then returns.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from worker.concurrency.cancel_scope import CancelScope


class Watch:
    """One socket in one scope; made by `Watchdog.watch`."""

    __slots__ = ("_fired", "_sock", "_watchdog", "deadline_s")

    def __init__(self, watchdog: Watchdog, sock: socket.socket, deadline_s: float) -> None:
        self._watchdog = watchdog
        self._sock = sock
        self._fired = False
        self.deadline_s = deadline_s

    def end(self) -> bool:
        """Stop watching; return whether the socket was shut down, which can look like a clean end of the body."""
        self._watchdog._forget(self)
        return self._fired

    def _fire(self) -> None:
        """Shut the socket down and forget it; the caller holds the watchdog's lock."""
        self._watchdog._watches.discard(self)
        self._fired = True
        with contextlib.suppress(OSError):  # the peer may have gone already
            self._sock.shutdown(socket.SHUT_RDWR)


class Watchdog:
    """Shuts sockets down when their scopes end. Thread-safe; its one thread starts with the first watch."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watches: set[Watch] = set()
        self._wakes_s = float("inf")
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, sock: socket.socket, scope: CancelScope) -> Watch:
        """Shut ``sock`` down when the scope ends, unless `Watch.end` is called first.

        ``sock`` should be a ``dup()``: wrapping a socket in TLS detaches the original object.
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
                self._thread = thread  # only once started: if no thread can be started now, the next watch retries
            elif scope.deadline_s < self._wakes_s:
                self._changed.notify()
        scope.on_cancel(lambda: self._end_early(watch))
        return watch

    def close(self) -> None:
        """Shut down all watched sockets and any watched later, and end the thread."""
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
        # Under the lock, so that this watch cannot shut the socket down after it has gone back to the pool.
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
