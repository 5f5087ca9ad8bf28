"""Decides which URLs the worker may fetch; `worker.fetch` lists the error codes. This module does no I/O.

Parsers disagree on hostile URLs, so the check must use the parser of the library that connects, which is urllib3. The
policy refuses unusual URLs instead of repairing them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Self

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from producer.contract.image_url import authority_of, fault_of
from producer.errors import SettingsError
from worker.fetch.address_policy import Address, AllowedAddress, is_public, parse_allow
from worker.fetch.failures import FetchFailed
from worker.fetch.refusals import bad_host, bad_port, bad_port_of_blocked, blocked, invalid, local_name
from worker.fetch.url_parts import ascii_host, request_target

#: DNS allows no longer names; the trailing dot does not count.
MAX_HOST_CHARACTERS: Final = 253
DEFAULT_PORTS: Final = {"http": 80, "https": 443}

SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,63}):")
_LABEL: Final = re.compile(r"[a-z0-9_-]{1,63}")  # real bucket names contain underscores
_IPV4: Final = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})")
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: No public host has a name with one of these endings, which are reserved for local names and for other networks.
SPECIAL_SUFFIXES: Final = (".localhost", ".local", ".internal", ".home.arpa", ".onion", ".svc.cluster.local")


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """A URL that the policy allows, in the parts that a request needs.

    Attributes:
        scheme: ``http`` or ``https``.
        host: the IDNA-encoded host in lower case without brackets; a trailing dot is kept, because DNS respects it.
        port: 1 to 65535.
        path: the path and query for the request line.
        address: the host as an address that the policy allows; None if the host is a name.
        refusal: creates the failure of a URL that may be fetched only if its host resolves to an excepted address; None
            if the URL breaks no rule.
    """

    scheme: str
    host: str
    port: int
    path: str
    address: Address | None
    refusal: Callable[[], FetchFailed] | None

    @property
    def url(self) -> str:
        """The normalised URL, against which a relative redirect is resolved."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    def __repr__(self) -> str:
        return f"<Target {self.scheme}>"  # a URL may be a secret


class UrlPolicy:
    """The rules for URLs (scheme, syntax, host and port) and for the addresses of their hosts.

    Args:
        ports: the ports that URLs may use on public hosts.
        allow: the operator's exceptions to the rules for ports, addresses and local names.
        hosts: globs; if there are any, a host must match one of them, and all other rules still apply.
    """

    def __init__(self, ports: frozenset[int], allow: Sequence[AllowedAddress] = (), hosts: Sequence[str] = ()) -> None:
        self._ports = ports
        self._allow = allow
        self._hosts = [re.compile(fnmatch.translate(glob)) for glob in hosts]

    @classmethod
    def parsed(cls, ports: str, allow: str, hosts: str) -> Self:
        """Read the settings ``NAMESHOT_FETCH_PORTS``, ``_ALLOW`` and ``_HOSTS``.

        Raises:
            SettingsError: an entry cannot be used; the message is one sentence about the first such entry.
        """
        return cls(parse_ports(ports), parse_allow(allow), parse_hosts(hosts))

    def check(self, url: object) -> Target:
        """Check a URL and return its target.

        Raises:
            FetchFailed: the URL breaks a rule; of several, the first in the order scheme, URL, host, port, address.
        """
        if not isinstance(url, str):
            raise FetchFailed("invalid_url", f"the image URL must be a string, not {type(url).__name__}.")
        target = plain_target(url)
        host, port, address = target.host, target.port, target.address
        is_local_name = address is None and not _is_public_name(host)
        may_except = any(entry.port in (None, port) for entry in self._allow)
        if is_local_name and not may_except:
            raise local_name()
        refusal = local_name if is_local_name else bad_port if port not in self._ports else None
        if address is not None:
            if self._excepted([address], port):
                refusal = None
            elif not is_public(address):
                refusal = blocked if refusal is None else bad_port_of_blocked
        if self._hosts and not any(glob.match(host.removesuffix(".")) for glob in self._hosts):
            raise bad_host(refusal)
        if refusal is not None and (address is not None or not may_except):
            raise refusal()
        return replace(target, refusal=refusal)

    def choose(self, target: Target, resolved: Sequence[Address | None]) -> list[Address]:
        """Return those of a resolver's addresses that the worker may connect to for this target.

        If exceptions cover some of the addresses, these are returned. Otherwise all addresses must be public, so a name
        with public and private addresses is refused.

        Raises:
            FetchFailed: ``invalid_url``, ``port_not_allowed`` or ``address_blocked``.
        """
        known = [address for address in resolved if address is not None]
        if excepted := self._excepted(known, target.port):
            return excepted
        if target.refusal is bad_port and not all(map(is_public, known)):
            raise bad_port_of_blocked()
        if target.refusal is not None:
            raise target.refusal()
        if not known or len(known) != len(resolved) or not all(is_public(address) for address in known):
            raise blocked()
        return known

    def _excepted(self, addresses: Sequence[Address], port: int) -> list[Address]:
        """Return those of the addresses that exceptions cover."""
        return [address for address in addresses if any(entry.covers(address, port) for entry in self._allow)]


def plain_target(url: str) -> Target:
    """Return the parts of an http(s) URL, whatever host, port and address it names; raises `FetchFailed`."""
    scheme = _scheme_of(url)
    host, port, path = _parse(url, scheme)
    return Target(scheme, host, port, path, _as_address(host), None)


def _scheme_of(url: str) -> str:
    if (match := SCHEME.match(url)) is None:
        raise invalid()
    scheme = match[1].lower()
    if scheme not in DEFAULT_PORTS:
        raise FetchFailed("scheme_not_allowed")
    return scheme


def _parse(url: str, scheme: str) -> tuple[str, int, str]:
    """Return the normalised host, the port, and the request line's path and query."""
    if fault := fault_of(url):
        raise invalid(f"the image URL {fault}")
    rest = url[len(scheme) + 1 :]
    authority = authority_of(url)
    if not rest.startswith("//") or not authority or "%" in authority:  # % is in zone ids too, as in [fe80::1%25eth0]
        raise invalid()
    host, colon, port_text = authority.partition(":")
    try:
        # An IPv6 address, in which the first colon is not the port's, is ASCII.
        parsed = parse_url(f"{scheme}://{authority if authority.isascii() else ascii_host(host) + colon + port_text}")
    except (LocationParseError, UnicodeError):
        raise invalid() from None
    if not parsed.host or parsed.auth is not None or parsed.scheme != scheme or not parsed.host.isascii():
        raise invalid()
    port = DEFAULT_PORTS[scheme] if parsed.port is None else parsed.port
    if not 1 <= port <= 65_535:
        raise FetchFailed("port_not_allowed", "the URL names a port that is not in 1 to 65535; correct it.")
    return _checked_host(parsed.host.lower()), port, request_target(rest[2 + len(authority) :])


def _checked_host(host: str) -> str:
    if host.startswith("["):
        return host[1:-1]
    if _IPV4.fullmatch(host):
        return host
    labels = host.removesuffix(".").split(".")
    # A name that ends in a number is refused, because the resolver reads 2130706433, 0x7f.1 and 127.1 as addresses.
    if _NUMERIC_LABEL.fullmatch(labels[-1]) or sum(map(len, labels)) + len(labels) - 1 > MAX_HOST_CHARACTERS:
        raise invalid()
    if not all(_LABEL.fullmatch(label) and _is_readable(label) for label in labels):
        raise invalid()
    return host


def _is_readable(label: str) -> bool:
    """Return False if a label begins with ``xn--`` but is not valid Punycode; unlike in IDNA 2008, emoji are valid."""
    if not label.startswith("xn--"):
        return True
    try:
        return bool(label[4:].encode("ascii").decode("punycode"))
    except UnicodeError:
        return False


def _as_address(host: str) -> Address | None:
    try:
        if ":" in host:
            return IPv6Address(host)
        return IPv4Address(host) if _IPV4.fullmatch(host) else None
    except ValueError:  # 256.1.1.1
        raise invalid() from None


def _is_public_name(host: str) -> bool:
    """Return whether a name may be public; a single label may not, since the resolver appends local search domains."""
    name = host.removesuffix(".")
    return "." in name and not name.endswith(SPECIAL_SUFFIXES)


def parse_ports(text: str) -> frozenset[int]:
    """Read ``NAMESHOT_FETCH_PORTS``: ``80,443``.

    Raises:
        SettingsError: an entry is not a port; the message is one sentence about the first such entry.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    for entry in entries:
        if not re.fullmatch(r"[0-9]{1,5}", entry) or not 1 <= int(entry) <= 65_535:
            raise SettingsError(
                f"NAMESHOT_FETCH_PORTS has the entry {entry!r}; write ports from 1 to 65535, such as 80,443."
            )
    if not entries:
        raise SettingsError("NAMESHOT_FETCH_PORTS is empty; write at least one port, such as 80,443.")
    return frozenset(map(int, entries))


def parse_hosts(text: str) -> tuple[str, ...]:
    """Read ``NAMESHOT_FETCH_HOSTS``: ``images.example.com,*.cdn.example.com``; ``*`` also matches dots.

    Raises:
        SettingsError: an entry can never match a host; the message is one sentence about the first such entry.
    """
    globs = tuple(entry.strip().lower().removesuffix(".") for entry in text.split(",") if entry.strip())
    for glob in globs:
        if not re.fullmatch(r"[a-z0-9_.*?-]+|\[?[0-9a-f:.*]+\]?", glob):
            raise SettingsError(
                f"NAMESHOT_FETCH_HOSTS has the entry {glob!r}; write host names or globs such as *.example.com, "
                "without scheme, port or path."
            )
    return tuple(glob.strip("[]") for glob in globs)
