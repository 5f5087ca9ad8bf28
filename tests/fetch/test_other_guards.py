"""We block every address that either of two other guards against SSRF blocks."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
import requests_hardened.ip_filter
from hypothesis import given, settings
from hypothesis import strategies as st
from ssrfguard import DEFAULT_DENIED, Policy

from worker.fetch.address_policy import NOT_PUBLIC_IPV4, NOT_PUBLIC_IPV6, PUBLIC_IPV6, Address, is_public

Blocks = Callable[[Address], bool]


def ssrfguard_blocks(address: Address) -> bool:
    return not Policy().permits_address(address)


def requests_hardened_blocks(address: Address) -> bool:
    try:
        # For a literal address getaddrinfo asks no name server.
        requests_hardened.ip_filter.get_ip_address(str(address), 80, allow_loopback=False)
    except requests_hardened.ip_filter.InvalidIPAddress:
        return True
    return False


@pytest.fixture(autouse=True, scope="module")
def on_any_machine() -> Iterator[None]:
    """Otherwise requests-hardened checks IPv6 addresses only on machines with IPv6."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests_hardened.ip_filter, "allowed_gai_family", lambda: socket.AF_UNSPEC)
        yield


GUARDS: list[Blocks] = [ssrfguard_blocks, requests_hardened_blocks]
both_guards = pytest.mark.parametrize("blocks", GUARDS, ids=["ssrfguard", "requests-hardened"])

#: Every range in one of the tables, and the ranges behind the properties of Python's ipaddress.
NETWORKS = {
    *NOT_PUBLIC_IPV4,
    *NOT_PUBLIC_IPV6,
    PUBLIC_IPV6,
    *(block.network for block in DEFAULT_DENIED.blocks),
    *requests_hardened.ip_filter.EXTRA_BLOCKED_NET_RANGES,
    *map(
        ip_network,
        [
            *("0.0.0.0/0", "224.0.0.0/4", "::/0", "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "fec0::/10", "ff00::/8"),
            *("2001::/32", "2001:10::/28", "2001:30::/28", "100::/64", "fe00::/9", "4000::/3", "8000::/1"),
        ],
    ),
}


def boundaries() -> Iterator[Address]:
    for network in NETWORKS:
        kind = IPv4Address if network.version == 4 else IPv6Address
        first, last = int(network.network_address), int(network.broadcast_address)
        for number in (first - 1, first, first + 1, (first + last) // 2, last - 1, last, last + 1):
            if 0 <= number < 1 << network.max_prefixlen:
                yield kind(number)


def disguises(address: IPv4Address) -> Iterator[IPv6Address]:
    """Yield IPv6 addresses that a translator, a tunnel or a careless stack turns into this IPv4 address."""
    number, inverted = int(address), int(address) ^ 0xFFFFFFFF
    for prefix in (
        *("::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::", "64:ff9b:1:ffff::"),  # at the end
        *("2606:4700::5efe:0:0", "2606:4700::200:5efe:0:0", "fe80::5efe:0:0"),  # ISATAP
    ):
        yield IPv6Address(int(IPv6Address(prefix)) | number)
    yield IPv6Address(0x2002 << 112 | number << 80 | 1)  # 6to4
    teredo = 0x20010000 << 96
    yield IPv6Address(teredo | number << 64 | 0xFEFEFEFE)  # as the server
    yield IPv6Address(teredo | 0x08080808 << 64 | inverted)  # as the client


EDGES = sorted(set(boundaries()), key=lambda address: (address.version, int(address)))
DISGUISES = [other for edge in EDGES if isinstance(edge, IPv4Address) for other in disguises(edge)]


@both_guards
def test_no_edge_of_any_range_is_public_here_and_blocked_by_another_guard(blocks: Blocks) -> None:
    assert len(EDGES) > 300
    assert [str(address) for address in EDGES if is_public(address) and blocks(address)] == []


@both_guards
def test_no_ipv4_address_in_disguise_is_public_here_and_blocked_by_another_guard(blocks: Blocks) -> None:
    assert len(DISGUISES) > 1_000
    assert [str(address) for address in DISGUISES if is_public(address) and blocks(address)] == []


def test_no_ipv4_address_in_disguise_is_public() -> None:
    assert [str(address) for address in DISGUISES if is_public(address)] == []


ANY_ADDRESS = st.one_of(
    st.ip_addresses(v=4),
    st.ip_addresses(v=6),
    st.ip_addresses(network=PUBLIC_IPV6),
    st.sampled_from(sorted(map(str, NETWORKS))).flatmap(lambda text: st.ip_addresses(network=text)),
    st.integers(0, 2**32 - 1).flatmap(lambda number: st.sampled_from(list(disguises(IPv4Address(number))))),
)


@both_guards
@settings(deadline=None)
@given(address=ANY_ADDRESS)
def test_no_address_is_public_here_and_blocked_by_another_guard(blocks: Blocks, address: Address) -> None:
    assert not is_public(address) or not blocks(address)


@pytest.mark.parametrize("text", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "127.0.0.1", "::1", "100.64.0.1"])
def test_the_other_guards_permit_public_addresses_and_block_others(text: str) -> None:
    address = ip_address(text)
    assert [blocks(address) for blocks in GUARDS] == [not is_public(address)] * 2
