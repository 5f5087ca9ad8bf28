"""The two Valkey servers of a run, and what each may do instead of serving; every trouble is a real server's own."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer.embedded.valkey import RunningValkey

#: The harness' own commands; a server that is frozen is not asked.
READ_TIMEOUT_S = 5.0

Undo = Callable[[], None]


class Server:
    """One of them. What a method does, the function that it returns undoes.

    Attributes:
        is_disturbed: while something of all this lasts; one at a time.
        is_reachable: whether it can be asked anything.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        # No file can take this name, so that `refuse` can have saving fail.
        (folder / "dump.rdb").mkdir()
        self.valkey = RunningValkey(folder, persistent=True)
        self.is_disturbed = False
        self.is_reachable = True

    @property
    def url(self) -> str:
        """As a program reaches it that no line can be cut to."""
        return self.valkey.url(0)

    def connect(self) -> redis.Redis:
        """A connection of the harness, which asks once."""
        return redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0), socket_timeout=READ_TIMEOUT_S)

    def leave(self) -> Undo:
        """Its port is closed."""
        self.is_reachable = False
        self.valkey.stop()

        def undo() -> None:
            self.valkey.restart()
            self.is_reachable = True

        return undo

    def freeze(self) -> Undo:
        """It takes connections and answers nothing."""
        self.is_reachable = False
        self.valkey.process.send(signal.SIGSTOP)

        def undo() -> None:
            self.valkey.process.send(signal.SIGCONT)
            self.is_reachable = True

        return undo

    def fill(self) -> Undo:
        """Its memory is full."""
        self._configure(maxmemory="1")
        return lambda: self._configure(maxmemory="0")

    def refuse(self, draw: float) -> Undo:
        """It could not save to its disk, or a failover has made it a replica, or one whose primary is away."""
        if draw < 1 / 3:
            with self.connect() as admin:
                admin.config_set("save", "100000 100000")
                admin.bgsave()
            return lambda: self._configure(save="")
        self._configure(**{"replica-serve-stale-data": "yes" if draw < 2 / 3 else "no"})
        # A primary that answered would have all its data replaced.
        self._replicate("127.0.0.1", "1")
        return lambda: self._replicate("NO", "ONE")

    def end_connections(self) -> None:
        """All clients have to connect anew."""
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
