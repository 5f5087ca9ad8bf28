"""What a Redis answers, or does not, while it cannot serve: each on a real server, and over when its block ends."""

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

#: So long each key takes to load that `loading` goes on for some seconds. Valkey answers after each 1,024 keys.
LOAD_DELAY_US = 200
KEYS_TO_LOAD = 40_000


@contextmanager
def away(server: ValkeyServer) -> Iterator[None]:
    """Its port is closed."""
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def frozen(server: ValkeyServer) -> Iterator[None]:
    """It takes connections and answers nothing."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@contextmanager
def misconf(server: ValkeyServer) -> Iterator[None]:
    """It could not save to its disk."""
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
    """A failover has made it a replica."""
    with server.connect() as admin:
        # What it has shall stay: a primary that answers would have it all replaced.
        admin.config_set("replica-serve-stale-data", "yes")
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            admin.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def masterdown(server: ValkeyServer) -> Iterator[None]:
    """It is a replica whose primary is away."""
    with server.connect() as admin:
        admin.config_set("replica-serve-stale-data", "no")
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            admin.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def noreplicas(server: ValkeyServer) -> Iterator[None]:
    """Too few replicas are in touch with it."""
    with server.connect() as admin:
        admin.config_set("min-replicas-to-write", "1")
        try:
            yield
        finally:
            admin.config_set("min-replicas-to-write", "0")


@contextmanager
def oom(server: ValkeyServer) -> Iterator[None]:
    """Its memory is full."""
    with server.connect() as admin:
        admin.config_set("maxmemory", "1")
        try:
            yield
        finally:
            admin.config_set("maxmemory", "0")


@contextmanager
def busy(server: ValkeyServer) -> Iterator[None]:
    """A script runs in it and does not end."""

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
    """Its administrator has taken a right from the workers."""
    server.permit("worker", without=("evalsha", "eval"))
    try:
        yield
    finally:
        server.permit("worker")


@contextmanager
def too_few_databases(server: ValkeyServer) -> Iterator[None]:
    """It was set up anew, without the database of the answers."""
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
    """Its provider answers each command with an error of its own."""

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
    """It was restarted, and reads its data; the block ends once it has."""
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


#: `oom` is none: what a worker has to write needs no memory, or is let pass.
ALL: Final[tuple[Trouble, ...]] = (
    *(away, frozen, loading, misconf, readonly, masterdown, noreplicas, busy, forbidden),
    *(too_few_databases, over_quota),
)


def each(*troubles: Trouble) -> pytest.MarkDecorator:
    """Run a test under each of them."""
    return pytest.mark.parametrize("trouble", troubles, ids=lambda trouble: trouble.__name__)
