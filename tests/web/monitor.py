"""What a server is asked, command by command."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.valkey_server import ValkeyServer

_END = "the-end-of-the-block"


class Command(NamedTuple):
    """One command that a client sent; those inside of scripts do not count."""

    database: int
    name: str


@contextmanager
def commands_during(valkey: ValkeyServer) -> Iterator[list[Command]]:
    """Record all commands but transactions' and this function's own; the list is complete after the block."""
    found: list[Command] = []
    with valkey.connect() as connection, valkey.connect() as own, connection.monitor() as monitor:

        def listen() -> None:
            for entry in monitor.listen():
                words = entry["command"].split(" ")
                if words[-1] == _END:
                    return
                if entry["client_type"] != "lua":
                    found.append(Command(int(entry["db"]), words[0].upper()))

        listening = threading.Thread(target=listen)
        listening.start()
        try:
            yield found
        finally:
            own.execute_command("ECHO", _END)
            listening.join()
