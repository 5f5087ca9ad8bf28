"""Context managers that make a real Redis fail in one way each, until their block ends."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

import pytest
import redis

from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

Trouble = Callable[[ValkeyServer], AbstractContextManager[None]]

#: A delay for each key with which loading takes some seconds. Valkey answers clients after each 1,024 keys.
LOAD_DELAY_US = 200
KEYS_TO_LOAD = 40_000


@contextmanager
def away(server: ValkeyServer) -> Iterator[None]:
    """The server's port is closed."""
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def frozen(server: ValkeyServer) -> Iterator[None]:
    """The server accepts connections and answers no command."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@contextmanager
def misconf(server: ValkeyServer) -> Iterator[None]:
    """The server could not save to its disk."""
    obstacle = server.folder / "dump.rdb"
    obstacle.mkdir()
    with server.connect() as admin:
        admin.config_set("save", "3600 1")
        admin.config_set("stop-writes-on-bgsave-error", "yes")
        admin.bgsave()
        eventually(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err")
        try:
            yield
        finally:
            admin.config_set("save", "")
    obstacle.rmdir()


@contextmanager
def readonly(server: ValkeyServer) -> Iterator[None]:
    """A failover has made the server a replica."""
    with server.connect() as admin:
        # The primary must not answer, because the server would replace all its data with the primary's.
        admin.config_set("replica-serve-stale-data", "yes")
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            admin.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def masterdown(server: ValkeyServer) -> Iterator[None]:
    """The server is a replica whose primary is down."""
    with server.connect() as admin:
        admin.config_set("replica-serve-stale-data", "no")
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            admin.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def noreplicas(server: ValkeyServer) -> Iterator[None]:
    """Too few replicas are connected to the server."""
    with server.connect() as admin:
        admin.config_set("min-replicas-to-write", "1")
        try:
            yield
        finally:
            admin.config_set("min-replicas-to-write", "0")


@contextmanager
def oom(server: ValkeyServer) -> Iterator[None]:
    """The server's memory is full."""
    with server.connect() as admin:
        admin.config_set("maxmemory", "1")
        try:
            yield
        finally:
            admin.config_set("maxmemory", "0")


@contextmanager
def busy(server: ValkeyServer) -> Iterator[None]:
    """The server runs a script that does not end."""

    def run() -> None:
        with server.connect() as stuck, suppress(redis.RedisError):
            stuck.eval("while true do end", 0)

    with server.connect() as admin:
        admin.config_set("busy-reply-threshold", "1")
        thread = threading.Thread(target=run)
        thread.start()
        eventually(lambda: _says(admin, redis.ResponseError))
        try:
            yield
        finally:
            admin.execute_command("SCRIPT", "KILL")
    thread.join()


@contextmanager
def forbidden(server: ValkeyServer) -> Iterator[None]:
    """The administrator has taken a right from the workers."""
    server.permit("worker", without=("evalsha", "eval"))
    try:
        yield
    finally:
        server.permit("worker")


@contextmanager
def too_few_databases(server: ValkeyServer) -> Iterator[None]:
    """The server was set up again without the database of the answers."""
    server.stop()
    before = server.options
    server.options += ("--databases", "1")
    server.start()
    try:
        yield
    finally:
        server.stop()
        server.options = before
        server.start()


@contextmanager
def over_quota(server: ValkeyServer) -> Iterator[None]:
    """The server's provider answers each command with its own error."""

    class Refuse(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().startswith(b"*"):
                self.request.recv(1 << 16)
                self.wfile.write(b"-ERR max requests limit exceeded. Limit: 500000\r\n")

    class Provider(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    server.stop()
    with Provider((server.host, server.port), Refuse) as provider:
        thread = threading.Thread(target=provider.serve_forever)
        thread.start()
        try:
            yield
        finally:
            provider.shutdown()
            thread.join()
    server.start()


@contextmanager
def loading(server: ValkeyServer) -> Iterator[None]:
    """The server was restarted and loads its data; leaving the block waits until it has."""
    with server.connect(9) as admin, admin.pipeline(transaction=False) as pipe:
        for number in range(KEYS_TO_LOAD):
            pipe.set(f"slow-{number}", "")
        pipe.execute()
    server.stop()
    before = server.options
    server.options += ("--key-load-delay", str(LOAD_DELAY_US))
    server.start(wait=False)
    with server.connect() as admin:
        eventually(lambda: _says(admin, redis.BusyLoadingError))
        try:
            yield
        finally:
            eventually(lambda: _says(admin, None))
            server.options = before


def _says(server: redis.Redis, expected: type[redis.RedisError] | None) -> bool:
    try:
        server.ping()
    except redis.RedisError as error:
        return expected is not None and isinstance(error, expected)
    return expected is None


#: Without `oom`, because workers' writes either need no memory or are permitted at ``maxmemory``.
ALL: Final[tuple[Trouble, ...]] = (
    *(away, frozen, loading, misconf, readonly, masterdown, noreplicas, busy, forbidden),
    *(too_few_databases, over_quota),
)


def each(*troubles: Trouble) -> pytest.MarkDecorator:
    """Parametrize a test with each of these troubles."""
    return pytest.mark.parametrize("trouble", troubles, ids=lambda trouble: trouble.__name__)
