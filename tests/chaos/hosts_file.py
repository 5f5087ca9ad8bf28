"""Gives names new addresses while a process runs, as a change in the DNS would."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any


def looking_into(hosts: Path) -> Callable[..., Any]:
    """Return a ``socket.getaddrinfo`` that first reads the file's ``<address> <name>`` lines at each call."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        addresses = {name: address for address, name in map(str.split, hosts.read_text().splitlines())}
        return resolve(addresses.get(host, host), *arguments, **options)

    return getaddrinfo
