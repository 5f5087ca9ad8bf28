"""HTTP connections that connect only to addresses that the URL policy allows.

The only method replaced is urllib3's ``_new_conn``, which alone decides the address of a connection's socket. The Host
header, SNI and the certificate check therefore still use the URL's name. The worker resolves the name once for each
connection, checks every address, and connects to one of those addresses. No second look-up can return another one.
"""

from __future__ import annotations

import functools
import http.client
import socket
import ssl
import time
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Any, Final

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

from producer.contract.names import Queue
from producer.errors import SettingsError
from worker.concurrency.cancel_scope import CancelScope
from worker.fetch.address_policy import Address, parse_address
from worker.fetch.deadline import Watch, Watchdog
from worker.fetch.failures import FetchFailed
from worker.fetch.resolver import BoundedResolver
from worker.fetch.response import StrictResponse
from worker.fetch.slots import Slots
from worker.fetch.url_policy import Target, UrlPolicy

#: The worker tries at most this many addresses, so that a name with many dead ones cannot use up the download's time.
MAX_DIALS: Final = 3
#: A host may take this long to accept a connection. Hosts accept within a round trip; if the SYN is lost, the kernel
#: sends it again after 1 s.
CONNECT_TIMEOUT_S: Final = 3.0
#: With a timeout above the default 10 s, each address may take this share of it to accept a connection, so that
#: `MAX_DIALS` dead addresses leave some time for the request.
CONNECT_SHARE: Final = 0.3
#: A server that sends nothing for this long counts as failed. Services that resize images on demand need seconds before
#: they send their first byte, so a server gets most of the default 10 s. The rest is for a second attempt.
SILENCE_TIMEOUT_S: Final = 8.0
#: With a timeout above the default, a server may be silent for this share of it, as 8 s are of 10 s.
SILENCE_SHARE: Final = 0.8
#: A socket's timeout is never shorter, because 0 would make the socket non-blocking.
_SHORTEST_WAIT_S: Final = 0.001


class Dialer:
    """Resolves a target once, checks every address, and connects to one that the policy allows.

    Args:
        timeout_s: the longest time that one download may take, in seconds.

    Attributes:
        slots: limits the concurrent exchanges with each address, whichever names resolve to it.
        connect_s: how long an address may take to accept a connection, in seconds.
        silence_s: how long a server may be silent, in seconds.
    """

    def __init__(self, policy: UrlPolicy, resolver: BoundedResolver, slots: Slots, *, timeout_s: float) -> None:
        self._policy = policy
        self._resolver = resolver
        self.connect_s = max(CONNECT_TIMEOUT_S, CONNECT_SHARE * timeout_s)
        self.slots = slots
        self.silence_s = max(SILENCE_TIMEOUT_S, SILENCE_SHARE * timeout_s)

    def dial(self, target: Target, scope: CancelScope, queue: Queue) -> tuple[socket.socket, Address]:
        """Connect; return the socket and its address. The caller's queue then holds one slot of that address.

        Raises:
            FetchFailed: no connection could be made; a refused address also raises it, because callers might retry an
                OSError.
            Cancelled: the scope was cancelled.
        """
        if target.address is not None:
            addresses: list[Address] = [target.address]
        else:
            resolved = self._resolver.look_up(target.host, target.port, scope, queue)
            addresses = self._policy.choose(target, resolved)
        for address in alternate_families(addresses)[:MAX_DIALS]:
            if scope.is_over:
                raise FetchFailed("fetch_timeout")
            self.slots.take(address, scope, queue)
            try:
                return _connect(address, target.port, min(self.connect_s, scope.left_s)), address
            except BaseException as error:
                self.slots.give_back(address, queue)
                if not isinstance(error, OSError):
                    raise
        if scope.is_over:
            raise FetchFailed("fetch_timeout")
        raise FetchFailed("connect_failed", "no connection could be made; try again.")


def alternate_families(addresses: Iterable[Address]) -> list[Address]:
    """Interleave IPv6 and IPv4 addresses, so that the second attempt uses IPv4 if IPv6 does not work."""
    addresses = list(addresses)
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    turns = [address for pair in zip(first, second, strict=False) for address in pair]
    shorter = min(len(first), len(second))
    return turns + first[shorter:] + second[shorter:]


def _connect(address: Address, port: int, timeout_s: float) -> socket.socket:
    is_v6 = isinstance(address, IPv6Address)
    sock = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((str(address), port, 0, 0) if is_v6 else (str(address), port))
        peer = sock.getpeername()
        if parse_address(peer[0]) != address or peer[1] != port:
            raise FetchFailed("address_blocked")
    except BaseException:
        sock.close()
        raise
    return sock


class Connection(HTTPConnection):
    """An ``http`` connection to a checked target. Call `begin` before each exchange, on new and on reused connections.

    Attributes:
        scope: limits the current exchange.
        queue: the queue whose slot the current exchange uses.
        address: the address that the socket is connected to; None before the first exchange.
        duplicate: a duplicate of the socket, which the watchdog shuts down.
    """

    scope: CancelScope
    queue: Queue
    address: Address | None = None
    duplicate: socket.socket | None = None
    _watch: Watch | None = None
    _has_slot = False
    _last_response: StrictResponse | None = None

    def __init__(self, target: Target, dialer: Dialer, watchdog: Watchdog, **options: Any) -> None:
        super().__init__(target.host, target.port, **options)
        self.target = target
        self.born_s = self.idle_since_s = time.monotonic()
        self._dialer = dialer
        self._watchdog = watchdog

    @property
    def last_response(self) -> StrictResponse:
        """The last response, whose body may be unread."""
        if self._last_response is None:
            raise http.client.ResponseNotReady
        return self._last_response

    @property
    def has_surplus(self) -> bool:
        """Whether the server sent bytes after its last response."""
        return self._last_response is not None and self._last_response.has_surplus

    def response_class(self, *arguments: Any, **options: Any) -> StrictResponse:  # type: ignore[override]
        """Create a response for http.client and keep it: urllib3 discards a response whose headers cannot be parsed."""
        self._last_response = StrictResponse(*arguments, **options)
        return self._last_response

    def begin(self, scope: CancelScope, queue: Queue) -> None:
        """Start an exchange; it ends when its scope ends, whatever the server does."""
        self.scope, self.queue = scope, queue
        self.timeout = min(self._dialer.silence_s, max(_SHORTEST_WAIT_S, scope.left_s))
        if self.duplicate is not None and self.address is not None:  # a reused connection
            self._dialer.slots.take(self.address, scope, queue)
            self._has_slot = True
            self._watch = self._watchdog.watch(self.duplicate, scope)

    def end(self) -> bool:
        """End the exchange; return whether its time ran out, after which even a complete response cannot be trusted."""
        if self._has_slot and self.address is not None:
            self._has_slot = False
            self._dialer.slots.give_back(self.address, self.queue)
        watch, self._watch = self._watch, None
        return watch.end() if watch is not None else self.scope.is_over

    def _new_conn(self) -> socket.socket:
        """Connect, and have the watchdog watch the new socket before TLS begins."""
        sock, self.address = self._dialer.dial(self.target, self.scope, self.queue)
        self._has_slot = True
        # TLS detaches the descriptor from this socket object, so the watchdog gets a duplicate to shut down.
        self.duplicate = sock.dup()
        self._watch = self._watchdog.watch(self.duplicate, self.scope)
        sock.settimeout(self.timeout)
        return sock

    def dispose(self) -> bool:
        """End the exchange and close everything; return whether its time ran out.

        ``close`` alone must leave the duplicate open: if the server does not keep the connection, http.client calls
        ``close`` before the body is read.
        """
        # Stop watching first: after the close, the kernel may reuse the descriptor number for another socket.
        expired = self.end()
        self.close()
        if self._last_response is not None:
            self._last_response.close()
        duplicate, self.duplicate = self.duplicate, None
        if duplicate is not None:
            duplicate.close()
        return expired


class TlsConnection(Connection, HTTPSConnection):
    """An ``https`` connection, which checks the certificate against the name in the URL."""


def open_connection(target: Target, dialer: Dialer, watchdog: Watchdog, tls: ssl.SSLContext) -> Connection:
    """Return a connection for a target that is not connected yet."""
    if target.scheme == "https":
        return TlsConnection(target, dialer, watchdog, ssl_context=tls)
    return Connection(target, dialer, watchdog)


@functools.cache
def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a context for TLS 1.2 or later that checks host names, cached because loading authorities takes 20 ms.

    Args:
        ca_file: the operator's own certificate authorities, trusted in addition to the public ones.

    Raises:
        SettingsError: the file cannot be used.
    """
    context = create_urllib3_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    context.load_verify_locations(cafile=DEFAULT_CA_BUNDLE_PATH)
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one too
            raise SettingsError(
                f"NAMESHOT_FETCH_CA_FILE is {ca_file!r}, which holds no certificates in PEM form that can be read "
                f"({error.strerror or type(error).__name__})."
            ) from None
    return context
