"""HTTP connections that connect only to addresses that the URL policy allows.

urllib3's ``_new_conn`` alone decides the address of a connection's socket, and this module overrides that method. The
Host header, SNI and the certificate check therefore still use the URL's name. The worker resolves the name once for
each connection, checks every address, and connects to one of those addresses. There is no second look-up, which could
return another address.
"""

from __future__ import annotations

import functools
import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

from producer.contract.names import Queue
from producer.errors import SettingsError
from worker.concurrency.cancel_scope import CancelScope
from worker.fetch.address_policy import Address
from worker.fetch.deadline import Watch, Watchdog
from worker.fetch.dialer import SHORTEST_WAIT_S, Dialer
from worker.fetch.proxy import Proxy, absolute_form
from worker.fetch.response import StrictResponse
from worker.fetch.url_policy import Target


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
        self.timeout = min(self._dialer.silence_s, max(SHORTEST_WAIT_S, scope.left_s))
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

    @property
    def forwarder(self) -> Proxy | None:
        """The proxy that reads this connection's requests; None if the server itself reads them, even via a tunnel."""
        proxy = self._dialer.proxy
        if proxy is None or self.address is None or proxy.tunnels(self.target.scheme):
            return None
        return proxy if proxy.serves(self.address, self.target.port) else None

    def addressed(self, path: str, headers: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
        """Return the request target and the header fields for a request on this connection, which must be connected."""
        if (proxy := self.forwarder) is None or self.address is None:
            return path, headers
        host = f"[{self.host}]" if ":" in self.host else self.host
        host += "" if self.port == self.default_port else f":{self.port}"
        return absolute_form(self.address, self.target.port, path), {**headers, "Host": host, **proxy.headers}

    def _new_conn(self) -> socket.socket:
        """Connect, and have the watchdog watch the new socket before TLS begins."""
        sock, self.address = self._dialer.dial(self.target, self.scope, self.queue, self._watchdog)
        self._has_slot = True
        # TLS detaches the descriptor from this socket object, so the watchdog gets a duplicate to shut down.
        try:
            self.duplicate = sock.dup()
        except OSError:
            sock.close()
            raise
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
    """Return a new, unconnected connection for a target."""
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
                f"NAMESHOT_FETCH_CA_FILE is {ca_file!r}, but the worker cannot read PEM certificates from this file "
                f"({error.strerror or type(error).__name__})."
            ) from None
    return context
