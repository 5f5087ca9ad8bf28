"""Which URLs the policy refuses, and with which code; no test here opens a socket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fetch.conftest import code_of
from worker.fetch import Fetcher
from worker.fetch.address_policy import is_public, parse_address, parse_allow
from worker.fetch.failures import FetchFailed
from worker.fetch.url_policy import Target, UrlPolicy


def judge(url: str, hosts: tuple[str, ...] = ()) -> Target:
    return UrlPolicy(frozenset({80, 443}), hosts=hosts).check(url)


def urls(text: str) -> list[str]:
    return text.split()


BLOCKED_ADDRESSES = urls("""
    http://127.0.0.1/ http://127.255.255.254/ http://0.0.0.0/ http://10.0.0.1/ http://172.31.255.255/
    http://192.168.1.1/ http://169.254.169.254/latest/meta-data/ http://100.100.100.200/ http://168.63.129.16/
    http://192.0.0.192/ http://192.88.99.1/ http://224.0.0.1/ http://255.255.255.255/ http://0.1.2.3/
    http://[::]/ http://[::1]/ http://[0:0:0:0:0:0:0:1]/ http://[::ffff:127.0.0.1]/ http://[::ffff:a9fe:a9fe]/
    http://[::127.0.0.1]/ http://[::ffff:0:127.0.0.1]/ http://[64:ff9b::7f00:1]/ http://[64:ff9b:1::7f00:1]/
    http://[2002:7f00:1::]/ http://[2001:0:7f00:1::80ff:fffe]/ http://[fd00:ec2::254]/ http://[fec0::1]/
    http://[ff0e::1]/ http://[2606:4700::5efe:7f00:1]/ HTTP://127.0.0.1/ https://127.0.0.1/ https://[::1]:443/
    http://①②⑦.⓪.⓪.①/ http://127。0。0。1/ http://１２７.0.0.1/ http://127．0．0．1/ http://127｡0｡0｡1/
    http://127.0.0.1?x http://127.0.0.1#x http://127.0.0.1:80/ http://127.0.0.1:/ http://127.0.0.1:0080/
""")

# Forms that some resolvers, browsers or IDNA tables read as an address.
ADDRESSES_IN_DISGUISE = urls("""
    http://2130706433/ http://0x7f000001/ http://0x7f.1/ http://0177.0.0.1/ http://017700000001/ http://127.1/
    http://0/ http://2852039166/ http://0xA9.0xFE.0xA9.0xFE/ http://127.0.0.1./ http://256.1.1.1/ http://1.2.3/
    http://1.2.3.4.5/ http://127.0.0.01/ http://00.0.0.0/ http://a.example.1/ http://a.0x1f/ http://127.0.0.1%2e/
    http://[fe80::1%25eth0]/ http://[fe80::1%eth0]/ http://[::1/ http://::1/ http://[v1.a]/ http://[]/
    http://[127.0.0.1]/ http://[::1].example/ http://[::1]x/
""")

LOCAL_NAMES = urls("""
    http://localhost/ http://LOCALHOST/ http://localhost./ http://x.localhost/ http://redis/ http://minio/
    http://instance-data/ http://metadata.google.internal/ http://METADATA.GOOGLE.INTERNAL./ http://printer.local/
    http://router.home.arpa/ http://a.onion/ http://minio.default.svc.cluster.local/
""")

USERINFO = urls("""
    http://example.com@127.0.0.1/ http://example.com:80@127.0.0.1/ http://u:p@h.example/ http://@h.example/
    http://:@h.example/ http://u@ http://a@b@h.example/
""")

MALFORMED = [
    *urls("http:///x http:/x http:x http:\\\\x //x/ x.example/a.png http:// http://? http://#x https:// http://:80/"),
    *urls("http://h.example:65536/ http://h.example:-1/ http://h.example:80:443/ http://h.example:８０/"),
    *urls("http://h.example:x/ http://h.example:+80/ http://h.example:0x50/ http://h.example:999999999999/"),
    *urls("http://a..b.example/ http://.h.example/ http://h.example../ http://./ http://../ http://xn--.example/"),
    *urls("http://h,example.com/ http://h!.example/ http://h;.example/ http://*.example/ http://h.ex(ample/"),
    *urls("http://%6c%6f%63alhost/ http://h%2eexample/ http://127.0.0.1%00.example.com/ http://h.example%/"),
    *urls("http://127.0.0.1\\@h.example/ http://h.example\\@127.0.0.1/ http://h.example/a\\b"),
    f"http://{'a' * 64}.example/",
    f"http://{'.'.join(['a' * 61] * 4)}.exampl/",  # 254 characters
    "http://h.example/" + "a" * (8193 - len("http://h.example/")),
    "http://" + "a" * 5_000_000,
    "",
    " http://h.example/",
    "http://h.example/ ",
    "http://h.exam ple/",
    "http://h.exam\tple/",
    "http://h.exam\nple/",
    "http://h.example\r\n/",
    "http://h.example/\r\nX-Injected: 1",
    "\nhttp://h.example/",
    "http://h.example/\x00",
    "http://h\x00.example/",
    "http://h.example/\x7f",
    "http://h.example/\x85",
    "http://h.example/\u2028",
    "http://h.example/\ud800",
    "http://h\u200b.example/",
    "http://h\u00ad.example/\u202e",
    "http:// h.example/",
]

OTHER_SCHEMES = urls("""
    ftp://h.example/a.png gopher://127.0.0.1:6379/_x dict://h.example/ file:///etc/passwd jar:http://h.example!/x
    javascript:alert(1) unix:///var/run/docker.sock http+unix://%2Fvar%2Frun%2Fdocker.sock/x FILE:///etc/passwd
    data:image/png;base64,iVBORw0KGgo= ws://h.example/ s3://bucket/key blob:http://h.example/x C:\\image.png
    httpss://h.example/ ftp://u:p@localhost:6379/
""")

BAD_PORTS = urls("""
    http://h.example:6379/ http://h.example:22/ http://h.example:25/ http://h.example:11211/ http://h.example:8080/
    http://h.example:0/ http://127.0.0.1:6379/ http://[::1]:6379/
""")


@pytest.fixture(scope="module")
def looked_up() -> list[str]:
    return []


@pytest.fixture(scope="module")
def fetcher(looked_up: list[str]) -> Iterator[Fetcher]:
    def resolve(host: str, _port: int) -> list[str]:
        looked_up.append(host)
        return ["1.1.1.1"]

    with closing(Fetcher(UrlPolicy.parsed("80,443", "", ""), max_bytes=1, timeout_s=5, resolve=resolve)) as fetcher:
        yield fetcher


@pytest.mark.parametrize(
    ("code", "url"),
    [("address_blocked", url) for url in BLOCKED_ADDRESSES]
    + [("invalid_url", url) for url in ADDRESSES_IN_DISGUISE + LOCAL_NAMES + USERINFO + MALFORMED]
    + [("scheme_not_allowed", url) for url in OTHER_SCHEMES]
    + [("port_not_allowed", url) for url in BAD_PORTS],
    ids=lambda value: ascii(value)[1:60],
)
def test_a_refused_url_has_its_code_and_is_neither_looked_up_nor_dialled(
    code: str, url: str, fetcher: Fetcher, looked_up: list[str], dialled: list[Any]
) -> None:
    started_s = time.thread_time()
    assert code_of(fetcher, url) == code
    assert (looked_up, dialled) == ([], [])
    assert time.thread_time() - started_s < 0.5


@pytest.mark.parametrize("value", [None, 1, 1.5, True, ["http://h.example/"], b"http://h.example/", {}])
def test_a_value_that_is_no_string_is_no_url(value: Any, fetcher: Fetcher) -> None:
    assert code_of(fetcher, value) == "invalid_url"


def test_every_control_character_is_refused_wherever_it_stands() -> None:
    for number in [*range(0x21), *range(0x7F, 0xA0)]:
        for url in ("http://h.ex{}mple/", "http://h.example/{}", "{}http://h.example/", "http://h.example/?q={}"):
            with pytest.raises(Exception, match="invalid_url"):
                judge(url.format(chr(number)))


@pytest.mark.parametrize(
    ("url", "dialled"),
    [
        ("http://h.example", ("http", "h.example", 80, "/")),
        ("HTTPS://H.Example/A%2fb?C=d%20e#fragment", ("https", "h.example", 443, "/A%2fb?C=d%20e")),
        ("http://h.example:/a", ("http", "h.example", 80, "/a")),
        ("https://h.example:80/a", ("https", "h.example", 80, "/a")),
        ("http://h.example./a", ("http", "h.example.", 80, "/a")),
        ("http://my_bucket-1.s3.example/a", ("http", "my_bucket-1.s3.example", 80, "/a")),
        ("http://ΕΛΛΆΔΑ.example/", ("http", "xn--hxakic4aa.example", 80, "/")),
        ("http://ｅｘａｍｐｌｅ.com:80/", ("http", "example.com", 80, "/")),
        ("http://i❤.example/", ("http", "xn--i-7iq.example", 80, "/")),
        ("http://h.example/a%3ab|c%?x=%zz", ("http", "h.example", 80, "/a%3ab|c%?x=%zz")),
        ("http://h.example/a/../b", ("http", "h.example", 80, "/b")),
        ("http://faß.example/", ("http", "xn--fa-hia.example", 80, "/")),
        ("http://例え.example/猫.png", ("http", "xn--r8jz45g.example", 80, "/%E7%8C%AB.png")),
        ("http://xn--i-7iq.example/", ("http", "xn--i-7iq.example", 80, "/")),
        ("http://1.1.1.1/a", ("http", "1.1.1.1", 80, "/a")),
        ("http://[2606:4700:4700::1111]/a", ("http", "2606:4700:4700::1111", 80, "/a")),
        ("http://1.2.3.4.example/", ("http", "1.2.3.4.example", 80, "/")),
        ("http://h.example/a%0d%0ab", ("http", "h.example", 80, "/a%0d%0ab")),
        ("http://h.example/a@b:c", ("http", "h.example", 80, "/a@b:c")),
        ("http://h.example?a=/b", ("http", "h.example", 80, "/?a=/b")),
        ("http://h.example//127.0.0.1/", ("http", "h.example", 80, "//127.0.0.1/")),
        (f"http://{'.'.join(['a' * 61] * 4)}.examp/", None),  # 253 characters
        ("http://h.example/" + "a" * (8192 - len("http://h.example/")), None),
    ],
)
def test_an_ordinary_url_is_read_as_scheme_host_port_and_path(
    url: str, dialled: tuple[str, str, int, str] | None
) -> None:
    target = judge(url)
    if dialled is not None:
        assert (target.scheme, target.host, target.port, target.path) == dialled


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://u:p@localhost:6379/", "scheme_not_allowed"),
        ("http://u:p@h.example:6379/", "invalid_url"),
        ("http://localhost:6379/", "invalid_url"),
        ("http://other.example:6379/", "host_not_allowed"),
        ("http://127.0.0.1:6379/", "host_not_allowed"),
        ("http://images.example:6379/", "port_not_allowed"),
    ],
)
def test_of_several_broken_rules_the_first_is_named(url: str, code: str) -> None:
    with pytest.raises(Exception, match=code):
        judge(url, hosts=("images.example",))


@pytest.mark.parametrize(
    ("url", "hosts", "code", "advice"),
    [
        ("http://127.0.0.1:9000/", (), "port_not_allowed", "an exception in NAMESHOT_FETCH_ALLOW for this address and"),
        ("http://[fd00::1]:9000/", (), "port_not_allowed", "an exception in NAMESHOT_FETCH_ALLOW for this address and"),
        ("http://10.0.0.1/", (), "address_blocked", "add an exception to NAMESHOT_FETCH_ALLOW"),
        ("http://h.example:9000/", (), "port_not_allowed", "for an address that is not public, add an exception to"),
        ("http://1.1.1.1:0/", (), "port_not_allowed", "not in 1 to 65535"),
        (
            "http://10.0.0.1:9000/",
            ("h.example",),
            "host_not_allowed",
            "The host, too, is not public: its address and port need an exception in NAMESHOT_FETCH_ALLOW",
        ),
        ("http://1.1.1.1:9000/", ("h.example",), "host_not_allowed", "The port, too, is outside NAMESHOT_FETCH_PORTS"),
    ],
)
def test_a_refusal_names_all_settings_that_the_url_needs(
    url: str, hosts: tuple[str, ...], code: str, advice: str
) -> None:
    with pytest.raises(FetchFailed) as caught:
        judge(url, hosts=hosts)

    assert caught.value.code == code
    assert advice in caught.value.message


def test_a_private_name_at_another_port_needs_only_an_exception() -> None:
    policy = UrlPolicy(frozenset({80, 443}), parse_allow("127.0.0.9/32:9000"))
    target = policy.check("http://h.example:9000/")

    for address, advice in (("10.0.0.1", "an exception in NAMESHOT_FETCH_ALLOW for this"), ("1.1.1.1", "use port 80")):
        with pytest.raises(FetchFailed, match=f"port_not_allowed: .*{advice}"):
            policy.choose(target, [parse_address(address)])


@pytest.mark.parametrize(
    ("host", "matches"),
    [
        ("images.example", True),
        ("IMAGES.example.", True),
        ("a.cdn.example", True),
        ("a.b.cdn.example", True),
        ("cdn.example", False),
        ("images.example.evil.example", False),
        ("ximages.example", False),
        ("1.1.1.1", False),
    ],
)
def test_hosts_are_narrowed_by_globs(host: str, matches: bool) -> None:
    hosts = ("images.example", "*.cdn.example")
    if matches:
        judge(f"http://{host}/", hosts)
    else:
        with pytest.raises(Exception, match="host_not_allowed"):
            judge(f"http://{host}/", hosts)


def test_the_repr_of_a_target_does_not_show_its_url() -> None:
    assert "secret" not in repr(judge("http://h.example/secret?secret"))


# Pieces that confuse parsers, in any order.
PIECES = st.sampled_from(
    [
        *"/?#@:[]%\\.-_ \t\u3002\u200d",
        "http",
        "https",
        "://",
        "//",
        "127.0.0.1",
        "0x7f",
        "::1",
        "localhost",
        "xn--",
        "h.example",
        "80",
        "%2e",
        "%00",
        "faß",
        "１",
        "ftp:",
        "\ud800",
        "[::ffff:7f00:1]",
        "a" * 64,
    ]
)


@settings(deadline=None)
@given(st.sampled_from(["", "http://", "https://h.example"]), st.lists(PIECES, max_size=12))
def test_any_text_gives_either_a_permitted_target_or_a_failure(start: str, pieces: list[str]) -> None:
    try:
        target = judge(start + "".join(pieces))
    except FetchFailed as failure:
        code = failure.code
    else:
        assert target.port in (80, 443)
        assert target.address is None or is_public(target.address)
        assert target.url.isascii()
        # The checked parts are those that would be dialled and requested: checking them again changes nothing.
        again = judge(target.url)
        assert (again.host, again.port, again.path) == (target.host, target.port, target.path)
        return
    assert code in ("invalid_url", "scheme_not_allowed", "port_not_allowed", "address_blocked")
