"""Decides which addresses the worker may connect to; this module does no I/O.

The tables are our own, because ``ipaddress.is_global`` differs between Python versions, and is true for multicast,
NAT64 and IPv4 addresses embedded in IPv6. For IPv6 the rule is an allowlist: global unicast (2000::/3) without those of
its ranges that hold no public hosts. No address outside 2000::/3 therefore needs an entry: not ``::1``,
``::a.b.c.d``, ``::ffff:a.b.c.d``, NAT64, unique local, link-local, site-local or multicast addresses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from producer.errors import SettingsError

Address = IPv4Address | IPv6Address

NOT_PUBLIC_IPV4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to the machine itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT, and Alibaba's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure WireServer: a public address that leads to the virtual machine's host
        "169.254.0.0/16",  # link-local, and the metadata service of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, and Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
PUBLIC_IPV6: Final = IPv6Network("2000::/3")
NOT_PUBLIC_IPV6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an embedded IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
#: An ISATAP address embeds an IPv4 address: it ends in ``0:5efe:a.b.c.d``, or ``200:5efe:…`` with the "universal" bit.
_ISATAP_MASK: Final = 0xFDFFFFFF
_ISATAP: Final = 0x00005EFE


def is_public(address: Address) -> bool:
    """Return whether a host on the internet could have this address; the result is the same in all Python versions."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_IPV4)
    if address.scope_id is not None or address not in PUBLIC_IPV6:
        return False
    if (int(address) >> 32) & _ISATAP_MASK == _ISATAP:
        return False
    return not any(address in network for network in NOT_PUBLIC_IPV6)


@dataclass(frozen=True, slots=True)
class AllowedAddress:
    """One entry of ``NAMESHOT_FETCH_ALLOW`` or ``_DIRECT``: a network and a port, where None means every port."""

    network: IPv4Network | IPv6Network
    port: int | None

    def covers(self, address: Address, port: int) -> bool:
        """Return whether this exception covers a connection to this address and port."""
        return self.port in (None, port) and address.version == self.network.version and address in self.network


_EXCEPTION: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+))(?P<prefix>/\d{1,3})?:(?P<port>\*|\d{1,5})"
)


def parse_allow(text: str, setting: str = "NAMESHOT_FETCH_ALLOW") -> tuple[AllowedAddress, ...]:
    """Read ``NAMESHOT_FETCH_ALLOW`` or ``_DIRECT``: ``127.0.0.1/32:8099,[fd00::]/8:443,10.0.0.0/8:*``.

    Raises:
        SettingsError: an entry cannot be used; the message is one sentence about the first such entry.
    """
    return tuple(_parse_exception(entry.strip(), setting) for entry in text.split(",") if entry.strip())


def _parse_exception(entry: str, setting: str) -> AllowedAddress:
    form = "write CIDR:PORT or CIDR:*, for example 127.0.0.1/32:8099 or [fd00::]/8:443"
    if (match := _EXCEPTION.fullmatch(entry)) is None:
        raise SettingsError(f"{setting} has the entry {entry!r}; {form}.")
    try:
        network = ip_network((match["v6"] or match["v4"]) + (match["prefix"] or ""))
    except ValueError as error:
        raise SettingsError(f"{setting} has the entry {entry!r}: {error}; {form}.") from None
    port = None if match["port"] == "*" else int(match["port"])
    if port is not None and not 1 <= port <= 65_535:
        raise SettingsError(f"{setting} has the entry {entry!r}, whose port is not in 1 to 65535; {form}.")
    return AllowedAddress(network, port)


def parse_address(text: str) -> Address | None:
    """Parse an address from the resolver; return None if the text is not a plain address."""
    try:
        return ip_address(text)
    except ValueError:
        return None
