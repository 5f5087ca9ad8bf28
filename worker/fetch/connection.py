"""Connections that dial only addresses which the policy has judged.

The seam is urllib3's ``_new_conn``, which alone decides which address a socket is dialled to. Replacing only this
method keeps the Host header, SNI and the certificate check on the URL's name. The name is resolved once per connection,
every address is judged, and a judged address is dialled, so no second look-up can give a different answer.
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
from worker.concurrency.cancel_scope import CancelScope
from worker.fetch.address_policy import Address, parse_address
from worker.fetch.answer import HttpAnswer
from worker.fetch.deadline import Watch, Watchdog
from worker.fetch.failures import FetchFailed
from worker.fetch.resolver import BoundedResolver
from worker.fetch.slots import Slots
from worker.fetch.url_policy import Target, UrlPolicy

#: A name with many dead addresses must not use up the whole download's time.
MAX_DIALS: Final = 3
#: A public host that has not answered a SYN by now will not: the time allows for two retransmissions.
CONNECT_TIMEOUT_S: Final = 3.0
#: With a timeout above the default 10 s, connecting may take this share of it, so that `MAX_DIALS` dead addresses
#: leave some time for the request.
CONNECT_SHARE: Final = 0.3
#: A server that is silent for this long counts as gone. Services that resize on demand take seconds to their first
#: byte, so they get most of the default 10 s; the rest is for one more attempt on a fresh connection.
SILENCE_TIMEOUT_S: Final = 8.0
#: With a timeout above the default, a server may be silent for the same share of it.
SILENCE_SHARE: Final = 0.8
#: A socket's timeout is never below this, since 0 would make the socket non-blocking.
_SHORTEST_WAIT_S: Final = 0.001


class Dialer:
    """Resolves a target once, judges every address, and connects to one that was judged.

    Args:
        timeout_s: the longest download's duration, in seconds.

    Attributes:
        slots: bound the concurrent exchanges with one address, whatever names lead to it.
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
        """Connect and return the socket and its address, of which one slot is held for this queue.

        Raises:
            FetchFailed: also for refused addresses, since callers might retry an OSError.
            Cancelled: the scope was cancelled.
        """
        if target.address is not None:
            addresses: list[Address] = [target.address]
        else:
            answers = self._resolver.look_up(target.host, target.port, scope, queue)
            addresses = self._policy.choose(target, answers)
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
    """Interleave IPv6 and IPv4 addresses, so that with broken IPv6 the second dial already uses IPv4."""
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
    """An ``http`` connection to a judged target, with a scope and a dup for the watchdog.

    `begin` starts each exchange, on new and on reused connections.
    """

    scope: CancelScope
    queue: Queue
    address: Address | None = None
    dup: socket.socket | None = None
    _watch: Watch | None = None
    _has_slot = False
    _answer: HttpAnswer | None = None

    def __init__(self, target: Target, dialer: Dialer, watchdog: Watchdog, **options: Any) -> None:
        super().__init__(target.host, target.port, **options)
        self.target = target
        self.born_s = self.idle_since_s = time.monotonic()
        self._dialer = dialer
        self._watchdog = watchdog

    @property
    def answer(self) -> HttpAnswer:
        """The last answer, whose body may be unread."""
        if self._answer is None:
            raise http.client.ResponseNotReady
        return self._answer

    @property
    def has_surplus(self) -> bool:
        """Whether the server sent more than its last answer."""
        return self._answer is not None and self._answer.has_surplus

    def response_class(self, *arguments: Any, **options: Any) -> HttpAnswer:  # type: ignore[override]
        """Create and keep an answer for http.client: urllib3 drops it when the headers don't parse."""
        self._answer = HttpAnswer(*arguments, **options)
        return self._answer

    def begin(self, scope: CancelScope, queue: Queue) -> None:
        """Start an exchange that ends with its scope, whatever the server does."""
        self.scope, self.queue = scope, queue
        self.timeout = min(self._dialer.silence_s, max(_SHORTEST_WAIT_S, scope.left_s))
        if self.dup is not None and self.address is not None:  # a reused connection
            self._dialer.slots.take(self.address, scope, queue)
            self._has_slot = True
            self._watch = self._watchdog.watch(self.dup, scope)

    def end(self) -> bool:
        """End the exchange; return whether its time ran out, even if the answer looks complete."""
        if self._has_slot and self.address is not None:
            self._has_slot = False
            self._dialer.slots.give_back(self.address, self.queue)
        watch, self._watch = self._watch, None
        return watch.end() if watch is not None else self.scope.is_over

    def _new_conn(self) -> socket.socket:
        """Connect, and put the new socket under the watchdog before TLS begins."""
        sock, self.address = self._dialer.dial(self.target, self.scope, self.queue)
        self._has_slot = True
        # TLS detaches this socket object's descriptor; the watchdog shuts the dup down instead.
        self.dup = sock.dup()
        self._watch = self._watchdog.watch(self.dup, self.scope)
        sock.settimeout(self.timeout)
        return sock

    def dispose(self) -> bool:
        """End the exchange and close everything; return whether its time ran out.

        ``close`` alone leaves the dup open: for answers without keep-alive http.client calls it before the body is
        read, through the closed socket object.
        """
        # First of all stop watching: once closed, the descriptor's number may be that of another socket.
        expired = self.end()
        self.close()
        if self._answer is not None:
            self._answer.close()
        dup, self.dup = self.dup, None
        if dup is not None:
            dup.close()
        return expired


class TlsConnection(Connection, HTTPSConnection):
    """An ``https`` connection; the certificate is verified against the name in the URL."""


def open_connection(target: Target, dialer: Dialer, watchdog: Watchdog, tls: ssl.SSLContext) -> Connection:
    """Create a connection for a target; ``connect`` dials it."""
    if target.scheme == "https":
        return TlsConnection(target, dialer, watchdog, ssl_context=tls)
    return Connection(target, dialer, watchdog)


@functools.cache
def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Create a context for TLS 1.2 or later that checks host names; cached, since loading authorities takes 20 ms.

    Args:
        ca_file: the operator's own authorities, trusted in addition to the public ones.
    """
    context = create_urllib3_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    context.load_verify_locations(cafile=DEFAULT_CA_BUNDLE_PATH)
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context
