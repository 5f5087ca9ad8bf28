"""Connects to one of a host's addresses, after the policy has checked all of them."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address
from typing import Final, Protocol

from producer.contract.names import Queue
from worker.concurrency.cancel_scope import CancelScope
from worker.fetch.address_policy import Address, parse_address
from worker.fetch.deadline import Watchdog
from worker.fetch.failures import FetchFailed, shortage
from worker.fetch.proxy import Proxy, unreachable
from worker.fetch.resolver import BoundedResolver
from worker.fetch.slots import Slots
from worker.fetch.url_policy import Target
from worker.runtime.shortages import is_shortage

#: The worker tries at most this many addresses, so that a name with many dead ones cannot use up the download's time.
MAX_DIALS: Final = 3
#: A host may take this long to accept a connection. Hosts accept within a round trip; if the SYN is lost, the kernel
#: sends it again after 1 s.
CONNECT_TIMEOUT_S: Final = 3.0
#: If the download's timeout is above the default 10 s, each address may take this share of the timeout to accept a
#: connection, so that `MAX_DIALS` dead addresses leave some time for the request.
CONNECT_SHARE: Final = 0.3
#: A server that sends nothing for this long counts as failed. Services that resize images on demand need seconds before
#: they send their first byte, so a server gets most of the default 10 s, and a second attempt gets the remaining time.
SILENCE_TIMEOUT_S: Final = 8.0
#: If the download's timeout is above the default, a server may be silent for this share of it; 8 s are this share of
#: the default 10 s.
SILENCE_SHARE: Final = 0.8
#: The shortest timeout for a response or for connecting to a proxy: 0 would make the socket non-blocking.
SHORTEST_WAIT_S: Final = 0.001


class Policy(Protocol):
    """Decides what a fetcher may request, and from which addresses."""

    def check(self, url: object) -> Target:
        """Return the target of a URL; raises `FetchFailed` if no fetcher with this policy may request it."""

    def choose(self, target: Target, resolved: Sequence[Address | None]) -> list[Address]:
        """Return those of a name's addresses to connect to, at least one; raises `FetchFailed` if there is none."""


class Dialer:
    """Resolves a target once, checks every address, and connects to one that the policy allows.

    Args:
        timeout_s: the longest time that one download may take, in seconds.
        proxy: the operator's proxy; None if the worker connects to the addresses directly.

    Attributes:
        slots: limits the concurrent exchanges with each address, whichever names resolve to it.
        proxy: as above.
        connect_s: how long an address may take to accept a connection, in seconds.
        silence_s: how long a server may be silent, in seconds.
    """

    def __init__(
        self,
        policy: Policy,
        resolver: BoundedResolver,
        slots: Slots,
        *,
        timeout_s: float,
        proxy: Proxy | None = None,
    ) -> None:
        self._policy = policy
        self._resolver = resolver
        self.connect_s = max(CONNECT_TIMEOUT_S, CONNECT_SHARE * timeout_s)
        self.slots = slots
        self.proxy = proxy
        self.silence_s = max(SILENCE_TIMEOUT_S, SILENCE_SHARE * timeout_s)

    def dial(
        self, target: Target, scope: CancelScope, queue: Queue, watchdog: Watchdog
    ) -> tuple[socket.socket, Address]:
        """Connect; return the socket and its address. The caller's queue then holds one slot of that address.

        Raises:
            FetchFailed: no connection could be made, or the policy refuses an address, for which an OSError would be
                wrong, because callers might retry it.
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
                if self.proxy is not None and self.proxy.serves(address, target.port):
                    return self._dial_proxy(self.proxy, target, address, scope, queue, watchdog), address
                return _connect(address, target.port, min(self.connect_s, scope.left_s)), address
            except BaseException as error:
                self.slots.give_back(address, queue)
                if is_shortage(error):  # another address would fail for the same reason
                    raise shortage() from None
                if not isinstance(error, OSError):
                    raise
        if scope.is_over:
            raise FetchFailed("fetch_timeout")
        raise FetchFailed("connect_failed", "no connection could be made; try again.")

    def _dial_proxy(
        self, proxy: Proxy, target: Target, address: Address, scope: CancelScope, queue: Queue, watchdog: Watchdog
    ) -> socket.socket:
        """Connect to the proxy, and have it open a tunnel to the address if the target's scheme needs one.

        Raises:
            ConnectionRefusedError: the proxy could not connect to the address.
            FetchFailed: the proxy cannot be reached, or refuses to connect.
            OSError: the worker is short of memory or open files.
            Cancelled: the scope was cancelled.
        """
        try:
            sock = self._reach(proxy, scope, queue)
        except (OSError, FetchFailed) as error:
            if scope.is_over:
                raise FetchFailed("fetch_timeout", of_host=False) from None
            if is_shortage(error) or (isinstance(error, FetchFailed) and error.code == "out_of_memory"):
                raise
            raise unreachable() from None
        watch = watchdog.watch(sock, scope)
        try:
            if proxy.tunnels(target.scheme):
                sock.settimeout(min(self.silence_s, max(SHORTEST_WAIT_S, scope.left_s)))
                proxy.open_tunnel(sock, address, target.port)
        except BaseException as error:
            # Stop watching first: after the close, the kernel may reuse the descriptor number for another socket.
            expired = watch.end()
            sock.close()
            if expired or scope.is_over:
                raise FetchFailed("fetch_timeout", of_host=False) from None
            is_proxys = isinstance(error, OSError | http.client.HTTPException) and not is_shortage(error)
            if is_proxys and not isinstance(error, ConnectionRefusedError):
                raise unreachable() from None
            raise
        watch.end()
        return sock

    def _reach(self, proxy: Proxy, scope: CancelScope, queue: Queue) -> socket.socket:
        """Connect to the first of the proxy's addresses that accepts the connection."""
        known = parse_address(proxy.host)
        found = [known] if known is not None else self._resolver.look_up(proxy.host, proxy.port, scope, queue)
        failure: OSError = ConnectionRefusedError()
        for address in alternate_families(address for address in found if address is not None)[:MAX_DIALS]:
            try:
                return _connect(address, proxy.port, min(self.connect_s, max(SHORTEST_WAIT_S, scope.left_s)))
            except OSError as error:
                if is_shortage(error):
                    raise
                failure = error
        raise failure


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
