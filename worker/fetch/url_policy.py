"""Decides which URLs may be fetched. Pure; no I/O. The table of codes is in `worker.fetch`.

It uses urllib3's parser because urllib3 dials: parsers disagree on hostile URLs, so the same one must judge and act.
Nothing is stripped or repaired; unusual URLs are refused.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Self

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from producer.errors import SettingsError
from worker.fetch.address_policy import Address, AllowedAddress, is_public, parse_allow
from worker.fetch.failures import FetchFailed

#: Browsers, proxies and CDNs all support URLs of this length.
MAX_URL_CHARACTERS: Final = 2048
#: DNS allows no longer name, without the trailing dot.
MAX_HOST_CHARACTERS: Final = 253
DEFAULT_PORTS: Final = {"http": 80, "https": 443}

SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,63}):")
# Controls (C0, DEL, C1), space, the backslash that parsers disagree on, and lone surrogates.
FORBIDDEN: Final = re.compile("[\x00-\x20\x7f-\x9f\\\\\u2028\u2029\ud800-\udfff]")
_LABEL: Final = re.compile(r"[a-z0-9_-]{1,63}")  # underscore: real buckets have it
_IPV4: Final = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})")
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: No public host has a name under these: they belong to this machine, this network, this cluster or another network.
SPECIAL_SUFFIXES: Final = (".localhost", ".local", ".internal", ".home.arpa", ".onion", ".svc.cluster.local")


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """A judged URL: what to dial and what to request.

    Attributes:
        scheme: ``http`` or ``https``.
        host: lower case, IDNA-encoded, no brackets; one trailing dot is kept, as it matters to DNS.
        port: 1 to 65535.
        path: path and query for the request line.
        address: the host's address if the host is one; already judged.
        refusal: creates the failure for the rule that this URL breaks unless it connects to an excepted address.
    """

    scheme: str
    host: str
    port: int
    path: str
    address: Address | None
    refusal: Callable[[], FetchFailed] | None

    @property
    def url(self) -> str:
        """The normalised URL, to resolve a relative redirect against."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    def __repr__(self) -> str:
        return f"<Target {self.scheme}>"  # a URL may be a secret


class UrlPolicy:
    """Judges URLs by scheme, shape, host and port, and by address where the host is one.

    Args:
        ports: the ports that may be dialled on public hosts.
        allow: the operator's exceptions to the rules for ports, addresses and local names.
        hosts: globs; if given, only hosts that match one are fetched, and all other rules still apply.
    """

    def __init__(self, ports: frozenset[int], allow: Sequence[AllowedAddress] = (), hosts: Sequence[str] = ()) -> None:
        self._ports = ports
        self._allow = allow
        self._hosts = [re.compile(fnmatch.translate(glob)) for glob in hosts]

    @classmethod
    def parsed(cls, ports: str, allow: str, hosts: str) -> Self:
        """Read the settings ``NAMESHOT_FETCH_PORTS``, ``_ALLOW`` and ``_HOSTS``.

        Raises:
            SettingsError: one sentence about the first entry that cannot be used.
        """
        return cls(parse_ports(ports), parse_allow(allow), parse_hosts(hosts))

    def judge(self, url: object) -> Target:
        """Judge a URL, or raise `FetchFailed` with the first rule it breaks: scheme, URL, host, port, address."""
        if not isinstance(url, str):
            raise FetchFailed("invalid_url", f"the image URL must be a string, not {type(url).__name__}.")
        scheme = _scheme_of(url)
        host, port, path = _parse(url, scheme)
        address = _as_address(host)
        misnamed = address is None and not _is_public_name(host)
        may_except = any(entry.port in (None, port) for entry in self._allow)
        if misnamed and not may_except:
            raise _misnamed()
        if self._hosts and not any(glob.match(host.removesuffix(".")) for glob in self._hosts):
            raise FetchFailed("host_not_allowed", "the host is outside NAMESHOT_FETCH_HOSTS; use an allowed host.")
        refusal = _misnamed if misnamed else _bad_port if port not in self._ports else None
        if address is not None:
            if self._excepted([address], port):
                refusal = None
            elif refusal is None and not is_public(address):
                refusal = _blocked
        if refusal is not None and (address is not None or not may_except):
            raise refusal()
        return Target(scheme, host, port, path, address, refusal)

    def choose(self, target: Target, answers: Sequence[Address | None]) -> list[Address]:
        """Return those of a resolver's addresses that may be dialled for this target.

        Where exceptions cover some of them, only those are dialled. Otherwise all must be public, so a name that mixes
        public and private addresses is refused.

        Raises:
            FetchFailed: ``invalid_url``, ``port_not_allowed`` or ``address_blocked``.
        """
        known = [address for address in answers if address is not None]
        if excepted := self._excepted(known, target.port):
            return excepted
        if target.refusal is not None:
            raise target.refusal()
        if not known or len(known) != len(answers) or not all(is_public(address) for address in known):
            raise _blocked()
        return known

    def _excepted(self, addresses: Sequence[Address], port: int) -> list[Address]:
        """Return those of the addresses that exceptions cover."""
        return [address for address in addresses if any(entry.covers(address, port) for entry in self._allow)]


def _misnamed() -> FetchFailed:
    return FetchFailed(
        "invalid_url",
        "the image URL's host is a local or reserved name; use a public host name, "
        "or add an exception to NAMESHOT_FETCH_ALLOW for its address.",
    )


def _bad_port() -> FetchFailed:
    return FetchFailed("port_not_allowed")


def _blocked() -> FetchFailed:
    return FetchFailed("address_blocked")


def _invalid(message: str | None = None) -> FetchFailed:
    return FetchFailed("invalid_url", message)


def _scheme_of(url: str) -> str:
    if (match := SCHEME.match(url)) is None:
        raise _invalid()
    scheme = match[1].lower()
    if scheme not in DEFAULT_PORTS:
        raise FetchFailed("scheme_not_allowed")
    return scheme


def _parse(url: str, scheme: str) -> tuple[str, int, str]:
    """Return the normalised host, the port, and the request line's path and query."""
    if len(url) > MAX_URL_CHARACTERS:
        raise _invalid(f"the image URL has {len(url):,} characters; at most {MAX_URL_CHARACTERS:,} are allowed.")
    if FORBIDDEN.search(url):
        raise _invalid("the image URL contains a space, a backslash or an invisible character; percent-encode it.")
    rest = url[len(scheme) + 1 :]
    authority = re.split("[/?#]", rest[2:], maxsplit=1)[0]
    if not rest.startswith("//") or not authority:
        raise _invalid()
    if "@" in authority:
        raise _invalid("the image URL contains a user name or password; leave it out.")
    if "%" in authority:  # a zone id too: [fe80::1%25eth0]
        raise _invalid()
    try:
        parsed = parse_url(url)
    except (LocationParseError, UnicodeError):
        raise _invalid() from None
    if not parsed.host or parsed.auth is not None or parsed.scheme != scheme or not parsed.host.isascii():
        raise _invalid()
    port = DEFAULT_PORTS[scheme] if parsed.port is None else parsed.port
    if not 1 <= port <= 65_535:
        raise _bad_port()
    return _checked_host(parsed.host.lower()), port, parsed.request_uri


def _checked_host(host: str) -> str:
    if host.startswith("["):
        return host[1:-1]
    if _IPV4.fullmatch(host):
        return host
    labels = host.removesuffix(".").split(".")
    # The resolver turns 2130706433, 0x7f.1 and 127.1 into addresses, so names that end in a number are refused.
    if _NUMERIC_LABEL.fullmatch(labels[-1]) or sum(map(len, labels)) + len(labels) - 1 > MAX_HOST_CHARACTERS:
        raise _invalid()
    if not all(_LABEL.fullmatch(label) and _is_readable(label) for label in labels):
        raise _invalid()
    return host


def _is_readable(label: str) -> bool:
    """Whether a label that begins with ``xn--`` is valid Punycode, emoji included, which IDNA 2008 excludes."""
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
        raise _invalid() from None


def _is_public_name(host: str) -> bool:
    """Whether a name may be public; the resolver would complete a single label from the search list of its network."""
    name = host.removesuffix(".")
    return "." in name and not name.endswith(SPECIAL_SUFFIXES)


def parse_ports(text: str) -> frozenset[int]:
    """Read ``NAMESHOT_FETCH_PORTS``: ``80,443``.

    Raises:
        SettingsError: one sentence about the first entry that is not a port.
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
    """Read ``NAMESHOT_FETCH_HOSTS``: ``images.example.com,*.cdn.example.com``; ``*`` stands for dots too.

    Raises:
        SettingsError: one sentence about the first entry that could never match a host.
    """
    globs = tuple(entry.strip().lower().removesuffix(".") for entry in text.split(",") if entry.strip())
    for glob in globs:
        if not re.fullmatch(r"[a-z0-9_.*?-]+|\[?[0-9a-f:.*]+\]?", glob):
            raise SettingsError(
                f"NAMESHOT_FETCH_HOSTS has the entry {glob!r}; write host names or globs such as *.example.com, "
                "without scheme, port or path."
            )
    return tuple(glob.strip("[]") for glob in globs)
