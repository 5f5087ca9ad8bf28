from __future__ import annotations

from ipaddress import ip_address

import pytest

from producer.errors import SettingsError
from worker.fetch.address_policy import parse_allow
from worker.fetch.url_policy import parse_hosts, parse_ports


def test_ports_are_a_list() -> None:
    assert parse_ports("80,443") == {80, 443}
    assert parse_ports(" 8080 , 80,") == {80, 8080}


@pytest.mark.parametrize("text", ["", ",", "http", "0", "65536", "-1", "80;443", "80 443", "٨٠"])
def test_a_value_that_is_no_port_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^NAMESHOT_FETCH_PORTS .*\.$"):
        parse_ports(text)


def test_exceptions_are_networks_and_ports() -> None:
    one, other, third = parse_allow("127.0.0.1/32:8099, [fd00::]/8:443,10.0.0.0/8:*")
    assert one.covers(ip_address("127.0.0.1"), 8099)
    assert not one.covers(ip_address("127.0.0.2"), 8099)
    assert not one.covers(ip_address("127.0.0.1"), 8100)
    assert not one.covers(ip_address("::ffff:127.0.0.1"), 8099)
    assert other.covers(ip_address("fdab::1"), 443)
    assert third.covers(ip_address("10.255.0.1"), 65_535)
    assert parse_allow("") == ()
    assert parse_allow("[::1]:8080,192.168.1.7:80")[0].covers(ip_address("::1"), 8080)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.0.0.1/32",
        "localhost:80",
        "127.0.0.1/33:80",
        "10.1.2.3/8:80",
        "fd00::/8:443",
        "[fd00::/8]:443",
        "127.0.0.1/32:0",
        "127.0.0.1/32:65536",
        "127.0.0.1/32:http",
        "[127.0.0.1]/32",
        "*:80",
        "127.1:80",
        "1.2.3:*",
    ],
)
def test_a_value_that_is_no_network_with_a_port_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^NAMESHOT_FETCH_ALLOW .*CIDR:PORT.*\.$"):
        parse_allow(text)


def test_hosts_are_names_addresses_and_globs() -> None:
    assert parse_hosts("Images.Example.com., *.cdn.example ,1.1.1.1,[2606:4700::1]") == (
        "images.example.com",
        "*.cdn.example",
        "1.1.1.1",
        "2606:4700::1",
    )
    assert parse_hosts("") == ()


@pytest.mark.parametrize("text", ["http://h.example", "h.example:80", "h.example/a", "h example", "h.example[a]"])
def test_a_host_that_could_never_match_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^NAMESHOT_FETCH_HOSTS .*\.$"):
        parse_hosts(text)
