"""Which addresses are public: of each range that is not, the first, a middle and the last address are refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.fetch.address_policy import NOT_PUBLIC_IPV4, NOT_PUBLIC_IPV6, PUBLIC_IPV6, is_public

# Our tables lack these ranges; they are refused because only global unicast IPv6 addresses are public.
OTHER_IPV6 = [
    IPv6Network(text)
    for text in (
        "::/128",
        "::1/128",
        "::/96",  # IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64 of a local network
        "100::/64",  # discard
        "5f00::/16",  # segment routing
        "fc00::/7",  # unique local
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
    )
]


@pytest.mark.parametrize("network", [*NOT_PUBLIC_IPV4, *NOT_PUBLIC_IPV6, *OTHER_IPV6], ids=str)
def test_no_address_of_a_special_range_is_public(network: IPv6Network) -> None:
    first, last = network.network_address, network.broadcast_address
    middle = first + (int(last) - int(first)) // 2
    assert [is_public(address) for address in (first, middle, last)] == [False] * 3


@pytest.mark.parametrize("network", NOT_PUBLIC_IPV4, ids=str)
def test_the_neighbours_of_a_special_ipv4_range_follow_the_rule_of_their_own_range(network: IPv6Network) -> None:
    for number in (int(network.network_address) - 1, int(network.broadcast_address) + 1):
        if 0 <= number < 2**32:
            address = IPv4Address(number)
            assert is_public(address) == (not any(address in other for other in NOT_PUBLIC_IPV4))


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2001:4860:4860::8888",
        "2001:200::1",
        "2a00:1450:4001::200e",
        "2620:4f:8001::1",
    ],
)
def test_public_addresses_are_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:7f00:1::80ff:fffe",
    ],
)
def test_no_metadata_service_is_public_in_any_disguise(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", ["2606:4700::5efe:7f00:1", "2606:4700::200:5efe:7f00:1", "2606:4700::1%eth0"])
def test_isatap_and_scoped_addresses_are_not_public(text: str) -> None:
    assert not is_public(IPv6Address(text))


@settings(deadline=None)
@given(st.ip_addresses(v=6))
def test_a_public_ipv6_address_is_always_global_unicast(address: IPv6Address) -> None:
    assert not is_public(address) or address in PUBLIC_IPV6


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_an_ipv4_address_that_is_public_here_is_global_for_python_too(address: IPv4Address) -> None:
    assert not is_public(address) or (address.is_global and not address.is_multicast)
