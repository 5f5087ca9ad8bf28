"""Names that a test gives other addresses while a process runs: what a change in the DNS looks like from there."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any


def looking_into(hosts: Path) -> Callable[..., Any]:
    """A ``socket.getaddrinfo`` that reads ``<address> <name>`` lines at each call; other names resolve as ever."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        addresses = {name: address for address, name in map(str.split, hosts.read_text().splitlines())}
        return resolve(addresses.get(host, host), *arguments, **options)

    return getaddrinfo
