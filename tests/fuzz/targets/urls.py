"""Hostile URLs: a permitted URL leads to the host that the policy checked, and to a public or excepted address."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests_hardened.ip_filter
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from ssrfguard import Policy

from producer.errors import ERROR_CODES
from tests.fuzz.target import of_hypothesis
from worker.fetch.address_policy import Address, AllowedAddress, is_public, parse_address, parse_allow
from worker.fetch.failures import FetchFailed
from worker.fetch.refusals import bad_host, bad_port, bad_port_of_blocked, blocked
from worker.fetch.url_policy import Target, UrlPolicy

PORTS = frozenset({80, 443})
ALLOW = parse_allow("10.0.0.0/8:8080,[fd00::]/8:*,127.0.0.1:443")
HOSTS = ("*.example", "1?.*", "fd*")
POLICIES = [
    (UrlPolicy(PORTS), ()),
    (UrlPolicy(PORTS, (), HOSTS), ()),
    (UrlPolicy(PORTS, ALLOW), ALLOW),
    (UrlPolicy(PORTS, ALLOW, HOSTS), ALLOW),
]


def sentence_of(failure: FetchFailed) -> str:
    """Return the message without its only variable part, a number of characters."""
    return re.sub(r"[\d,]+ characters", "N characters", failure.message)


def refusal_of(url: object) -> str:
    try:
        POLICIES[1][0].check(url)
    except FetchFailed as failure:
        return sentence_of(failure)
    raise AssertionError(f"{url!r} is not refused")


#: The messages of all refusals, produced by one URL each; a message that is not among them may quote a URL.
SENTENCES = {
    *map(refusal_of, (None, b"", 0, "word", "ftp://a.example/", "http://a.example/" + 9_000 * "a")),
    *map(refusal_of, ("http://a.example/ ", "http://a@a.example/", "http://a/", "http://a.b/", "http://a.example:1/")),
    refusal_of("http://10.0.0.1/"),
    *(bad_host(also).message for also in (None, bad_port, blocked)),
    *map(refusal_of, ("http://a.example:0/", "http://a.example:65536/")),
    bad_port_of_blocked().message,
}

NUMBER = st.integers(0, 2**33).flatmap(lambda number: st.sampled_from([str(number), hex(number), f"0{number:o}"]))
BYTE = st.sampled_from(["0", "1", "10", "127", "169", "254", "255", "256", "01", "0x7f", "１２７", "①", ""]) | NUMBER
ADDRESS = st.one_of(
    st.ip_addresses().map(str),
    st.lists(BYTE, min_size=1, max_size=5).map(".".join),
    NUMBER,
    st.ip_addresses(v=4).map(lambda address: f"::ffff:{address}"),
    st.ip_addresses(v=6).map(lambda address: address.exploded.upper()),
    st.sampled_from(["10.0.0.1", "127.0.0.1", "fd00::1", "fe80::1%25eth0", "v1.a", "1.1.1.1", "2606:4700::1111"]),
)
LABEL = st.one_of(
    st.sampled_from(["example", "localhost", "internal", "xn--fa-hia", "xn--", "a_b", "🦉", "faß", "ⓛ", "%6c", ""]),
    st.text(max_size=8),
    BYTE,
)
NAME = st.builds(
    lambda labels, dot, end: dot.join(labels) + end,
    st.lists(LABEL, min_size=1, max_size=5),
    st.sampled_from([".", ".", ".", "。", "．", ".."]),
    st.sampled_from(["", "", ".", ".example", ".example.", ".localhost", ".internal"]),
)
BRACKETED = st.builds("{}{}{}".format, st.sampled_from(["[", "[", ""]), ADDRESS, st.sampled_from(["]", "]", "", "]x"]))
PORT = st.sampled_from(["", "", ":", ":80", ":443", ":8080", ":0", ":080", ":65536", ":-1", ":８０", ":80:443"])
USER = st.sampled_from(["", "", "", "", "@", "u:p@", "h.example@", "%40", "\\@", "h.example#@", "h.example?@"])
SCHEME = st.sampled_from(["http", "http", "https", "HTTP", "hTTps", "ftp", "file", "", "http+unix", "ｈttp"])
SLASHES = st.sampled_from(["://", "://", "://", "://", ":", ":/", ":///", ":\\\\", "//", ":// "])
AFTER = st.one_of(
    st.just("/"),
    st.sampled_from(["", "/a.png", "/\r\nX: 1", "/ HTTP/1.1", "?q", "#f", "/%0d%0a", "/../..", "/🦉", "/\ud800", "\\"]),
    st.text().map("/{}".format),
)
#: URLs that some policy probably permits, so that the checks of permitted URLs run.
PLAIN = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https"]),
    st.one_of(
        st.from_regex(r"[a-z0-9_-]{1,9}(\.[A-Za-z_-]{1,9}){1,3}\.?", fullmatch=True),
        st.ip_addresses(v=4).map(str),
        st.ip_addresses(v=6, network="2000::/3").map("[{}]".format),
        st.ip_addresses(network="10.0.0.0/8").map(str),
        st.ip_addresses(network="fd00::/16").map("[{}]".format),
    ),
    st.sampled_from(["", ":80", ":443", ":8080"]),
    AFTER,
)
URL = st.one_of(
    PLAIN,
    PLAIN,
    st.builds("{}{}{}{}{}{}".format, SCHEME, SLASHES, USER, NAME | ADDRESS | BRACKETED, PORT, AFTER),
    st.builds("http{}{}{}{}".format, st.sampled_from(["://", "s://"]), NAME | BRACKETED | ADDRESS, PORT, AFTER),
    st.text(),
    st.none() | st.binary() | st.integers(),
)
KNOWN = st.sampled_from(["1.1.1.1", "2606:4700::1111", "10.0.0.1", "127.0.0.1"]).map(ip_address)
ANSWERS = st.lists(KNOWN | KNOWN | st.ip_addresses() | st.none(), max_size=4)


@given(url=URL, answers=ANSWERS, policy=st.sampled_from(POLICIES))
def judge(url: Any, answers: list[Address | None], policy: tuple[UrlPolicy, Sequence[AllowedAddress]]) -> None:
    urls, allow = policy
    try:
        target = urls.check(url)
    except FetchFailed as failure:
        check_failure(failure)
        return
    check_where_it_leads(target, url)
    assert urls.check(target.url).url == target.url, "the policy must check a URL's normalised form alike"
    if target.address is not None:
        check_address(target.address, target.port, allow)
        return
    try:
        chosen = urls.choose(target, answers)
    except FetchFailed as failure:
        check_failure(failure)
        return
    assert chosen
    assert set(chosen) <= set(answers)
    for address in chosen:
        check_address(address, target.port, allow)


def check_failure(failure: FetchFailed) -> None:
    assert failure.code in ERROR_CODES
    assert sentence_of(failure) in SENTENCES, f"the message may contain a part of the URL: {failure.message}"


def check_where_it_leads(target: Target, url: str) -> None:
    """Check that two other parsers find the same host and port, and that the resolver takes no name for an address."""
    # For hosts outside ASCII, urllib3 accepts fewer names than browsers do.
    urllib3_sees = urllib3.PoolManager().connection_from_url(url if url.isascii() else target.url)
    assert (urllib3_sees.scheme, urllib3_sees.host.strip("[]").lower()) == (target.scheme, target.host)
    assert urllib3_sees.port == target.port
    assert target.host.isascii()
    if url.isascii():
        split = urlsplit(url)
        assert (split.scheme, split.hostname, split.port or 0) == (
            target.scheme,
            target.host,
            0 if split.port is None else target.port,
        )
    assert target.path.startswith("/")
    assert target.path.isascii()
    assert target.path.isprintable()
    assert " " not in target.path
    try:
        numeric = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        assert target.address is None
    else:
        assert [parse_address(str(sockaddr[0])) for *_, sockaddr in numeric] == [target.address]


def check_address(address: Address, port: int, allow: Sequence[AllowedAddress]) -> None:
    if any(entry.covers(address, port) for entry in allow):
        return
    assert port in PORTS
    assert is_public(address)
    assert Policy().permits_address(address)
    requests_hardened.ip_filter.get_ip_address(str(address), port, allow_loopback=False)


# By default requests-hardened checks IPv6 addresses only on machines with IPv6.
requests_hardened.ip_filter.allowed_gai_family = lambda: socket.AF_UNSPEC

TARGET = of_hypothesis(judge)
