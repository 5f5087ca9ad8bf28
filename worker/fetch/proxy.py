"""The operator's HTTP proxy, through which downloads leave a network that has no other way out.

The worker resolves a URL's host and checks its addresses as it does without a proxy. It then gives the proxy a checked
address, never the name, because a proxy that resolved the name again could connect to another address. For ``https``
the proxy opens a tunnel (CONNECT; RFC 9110, 9.3.6), through which the worker checks the certificate against the URL's
name. For ``http`` the request line holds a URL with the address (RFC 9112, 3.2.2), and the Host field holds the name.
RFC 9112 requires proxies to replace that field by the address, and Squid and tinyproxy do so; a server of several sites
then serves the wrong one. With such a proxy, ``http`` needs a tunnel too.
"""

from __future__ import annotations

import base64
import io
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, Self
from urllib.parse import unquote_to_bytes, urlsplit

from producer.errors import SettingsError
from worker.fetch.address_policy import Address, AllowedAddress, parse_allow
from worker.fetch.failures import FetchFailed
from worker.fetch.head import MAX_HEAD_BYTES, read_head
from worker.fetch.meter import Meter
from worker.fetch.url_policy import DEFAULT_PORTS

_FORM: Final = "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with special characters percent-encoded"


@dataclass(frozen=True, slots=True, repr=False)
class Proxy:
    """The proxy of ``NAMESHOT_FETCH_PROXY``; `repr` shows none of its fields, because they may hold a password.

    Attributes:
        host: the proxy's name or address, without brackets.
        port: the proxy's port.
        headers: the fields that identify the worker to the proxy; empty if the setting names no user.
        direct: the addresses that the worker reaches without the proxy.
        tunnels_http: whether requests for ``http`` URLs go through a tunnel too.
    """

    host: str
    port: int
    headers: Mapping[str, str]
    direct: Sequence[AllowedAddress]
    tunnels_http: bool

    @classmethod
    def parsed(cls, url: str, direct: str = "", tunnels_http: bool = False) -> Self | None:
        """Read ``NAMESHOT_FETCH_PROXY``, ``_DIRECT`` and ``_PROXY_TUNNEL``; return None if there is no proxy.

        Raises:
            SettingsError: a value cannot be used; the message does not repeat the URL, which may hold a password.
        """
        exceptions = parse_allow(direct, "NAMESHOT_FETCH_DIRECT")
        if not url:
            return None
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or not port or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise SettingsError(f"NAMESHOT_FETCH_PROXY is not the URL of a proxy; {_FORM}.")
        if parts.scheme != "http":
            raise SettingsError(f"NAMESHOT_FETCH_PROXY begins with {parts.scheme}://, which is not supported; {_FORM}.")
        headers = {}
        if parts.username is not None:
            pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return cls(host, port, headers, exceptions, tunnels_http)

    def serves(self, address: Address, port: int) -> bool:
        """Return whether the worker reaches this address and port through the proxy."""
        return not any(entry.covers(address, port) for entry in self.direct)

    def tunnels(self, scheme: str) -> bool:
        """Return whether requests for URLs of this scheme go through a tunnel."""
        return scheme == "https" or self.tunnels_http

    def open_tunnel(self, sock: socket.socket, address: Address, port: int) -> None:
        """Have the proxy connect this socket to the address.

        Raises:
            ConnectionRefusedError: the proxy could not connect.
            FetchFailed: the proxy refuses to connect, or has a problem of its own.
            OSError, http.client.HTTPException: the proxy closed the connection, was silent, or does not speak HTTP/1.
        """
        authority = f"{_bracketed(address)}:{port}"
        fields = {"Host": authority, **self.headers}
        lines = [f"CONNECT {authority} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        sock.sendall("\r\n".join(lines).encode("ascii") + b"\r\n\r\n")
        meter = Meter(sock.makefile("rb", buffering=0))
        meter.allow(MAX_HEAD_BYTES)
        # The buffer holds one byte, so that reading the head consumes no byte after it, which belongs to the tunnel.
        with io.BufferedReader(meter, 1) as wire:
            head = read_head(wire)
        raise_for_status(int(head[9:12]))


def raise_for_status(status: int) -> None:
    """Raise if the proxy did not open a tunnel.

    Raises:
        ConnectionRefusedError: the proxy could not connect.
        FetchFailed: the proxy refuses to connect, or has a problem of its own.
    """
    if status == 407:
        raise unauthorized()
    if status in (502, 503, 504):  # the host failed, or the proxy has no route to this one of its addresses
        raise ConnectionRefusedError
    if status in (429, 500):
        message = f"the worker's proxy responded with status {status}; try again later."
        raise FetchFailed("connect_failed", message, of_host=False)
    if not 200 <= status < 300:
        raise refused(f"does not connect to this host and port (status {status})")


def refused(how: str) -> FetchFailed:
    """Return the failure of a download that the proxy refuses; trying again does not help."""
    return FetchFailed("connect_failed", f"the worker's proxy {how}; correct its configuration.", False)


def unauthorized() -> FetchFailed:
    """Return the failure of a download for which the proxy responds with 407."""
    return refused("requires a valid user name and password")


def unreachable() -> FetchFailed:
    """Return the failure of a download while the proxy cannot be reached, which says nothing about the host."""
    return FetchFailed("connect_failed", "the worker's proxy cannot be reached; try again.", of_host=False)


def absolute_form(address: Address, port: int, path: str) -> str:
    """Return the request target for a proxy that is to fetch ``path`` from this address over ``http``."""
    return f"http://{_bracketed(address)}{'' if port == DEFAULT_PORTS['http'] else f':{port}'}{path}"


def _bracketed(address: Address) -> str:
    return f"[{address}]" if isinstance(address, IPv6Address) else str(address)
