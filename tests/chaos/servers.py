"""The two Valkey servers of a run, and the ways in which each may fail; all faults are those of a real server."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer.embedded.valkey import RunningValkey

#: The timeout of the harness's own commands, which it never sends to a frozen server.
READ_TIMEOUT_S = 5.0

Undo = Callable[[], None]


class Server:
    """A Valkey server. Each fault is a method that returns a function to undo it.

    Attributes:
        is_disturbed: whether a fault lasts; there is at most one at a time.
        is_reachable: whether the harness can send commands to the server.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        # A folder of this name makes saving fail, which `refuse` uses.
        (folder / "dump.rdb").mkdir()
        self.valkey = RunningValkey(folder, persistent=True)
        self.is_disturbed = False
        self.is_reachable = True

    @property
    def url(self) -> str:
        """The URL for a program that connects directly, without a line that can be cut."""
        return self.valkey.url(0)

    def connect(self) -> redis.Redis:
        """Return a connection of the harness, which never repeats a command."""
        return redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0), socket_timeout=READ_TIMEOUT_S)

    def leave(self) -> Undo:
        """Stop the server, so that its port is closed."""
        self.is_reachable = False
        self.valkey.stop()

        def undo() -> None:
            self.valkey.restart()
            self.is_reachable = True

        return undo

    def freeze(self) -> Undo:
        """Freeze the server, so that it accepts connections but answers no command."""
        self.is_reachable = False
        self.valkey.process.send(signal.SIGSTOP)

        def undo() -> None:
            self.valkey.process.send(signal.SIGCONT)
            self.is_reachable = True

        return undo

    def fill(self) -> Undo:
        """Fill the server's memory."""
        self._configure(maxmemory="1")
        return lambda: self._configure(maxmemory="0")

    def refuse(self, draw: float) -> Undo:
        """Make the server refuse writes: it cannot save to its disk, or it is a replica, perhaps without a primary."""
        if draw < 1 / 3:
            with self.connect() as admin:
                admin.config_set("save", "100000 100000")
                admin.bgsave()
            return lambda: self._configure(save="")
        self._configure(**{"replica-serve-stale-data": "yes" if draw < 2 / 3 else "no"})
        # No server listens at this primary's address; from a real primary the server would take over all data.
        self._replicate("127.0.0.1", "1")
        return lambda: self._replicate("NO", "ONE")

    def end_connections(self) -> None:
        """Close all connections, so that all clients must connect again."""
        with self.connect() as admin:
            for kind in ("normal", "pubsub"):
                admin.execute_command("CLIENT", "KILL", "TYPE", kind)

    def _configure(self, **settings: str) -> None:
        with self.connect() as admin:
            for name, value in settings.items():
                admin.config_set(name, value)

    def _replicate(self, *of: str) -> None:
        with self.connect() as admin:
            admin.execute_command("REPLICAOF", *of)
