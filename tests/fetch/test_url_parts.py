"""Which parts of a URL a request contains, and in which form."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fetch.conftest import MakeFetcher, Serve
from tests.fetch.servers import Exchange
from worker.fetch.url_parts import ascii_host, request_target


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        ("", "/"),
        ("?a=/../b", "/?a=/../b"),
        ("/a%3ab%3Ac", "/a%3ab%3Ac"),
        ('/a|b{c}"<d>^`[e]', '/a|b{c}"<d>^`[e]'),
        ("/100%/a%zz?x=%&y=%2", "/100%/a%zz?x=%&y=%2"),
        ("/a;b=1?X-Amz-Signature=a+b/c=", "/a;b=1?X-Amz-Signature=a+b/c="),
        ("/a#b?c", "/a"),
        ("/a?b#c", "/a?b"),
        ("/猫.png?q=é", "/%E7%8C%AB.png?q=%C3%A9"),
        ("/a/./b/../c", "/a/c"),
        ("/a/%2e/b/%2E%2e/c", "/a/c"),
        ("/../../a", "/a"),
        ("/a/..", "/"),
        ("/a/b/.", "/a/b/"),
        ("//a//b", "//a//b"),
        ("/a/...", "/a/..."),
        ("/.well-known/x", "/.well-known/x"),
    ],
)
def test_a_request_line_contains_the_url_as_it_was_written(rest: str, target: str) -> None:
    assert request_target(rest) == target


PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#\\."), max_size=80)


@given(PRINTABLE, PRINTABLE)
def test_printable_ascii_without_dots_is_never_changed(path: str, query: str) -> None:
    path = "/" + path.replace("?", "").replace("%2e", "").replace("%2E", "")
    assert request_target(f"{path}?{query}") == f"{path}?{query}"


@given(st.text(max_size=60))
def test_whatever_a_url_contains_the_request_line_is_printable_ascii_without_dot_segments(text: str) -> None:
    target = request_target(text)

    assert re.fullmatch(r"/[\x21-\x7e]*", target)
    assert ".." not in target.partition("?")[0].split("/")


@pytest.mark.parametrize(
    ("host", "known_as"),
    [
        ("Example.com", "Example.com"),
        ("ΕΛΛΆΔΑ.example", "xn--hxakic4aa.example"),
        ("ελλάδα.example", "xn--hxakic4aa.example"),
        ("ｅｘａｍｐｌｅ.com", "example.com"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("例え。example", "xn--r8jz45g.example"),
        ("i❤.example", "xn--i-7iq.example"),
        ("a_b.bücher.example", "a_b.xn--bcher-kva.example"),
        ("１２７.0.0.1", "127.0.0.1"),
    ],
)
def test_a_url_s_host_is_the_one_that_a_browser_would_request(host: str, known_as: str) -> None:
    assert ascii_host(host) == known_as


@pytest.mark.parametrize(
    "host",
    ["a\u200bb.example\ufffe", "a\ue000.example", *(f"h.example{mark}é" for mark in "／？＃＠：％［］＼:/?#@%[]\\ ")],
)
def test_a_host_with_a_character_that_no_name_has_is_an_error(host: str) -> None:
    with pytest.raises(UnicodeError):
        ascii_host(host)


def test_a_server_sees_the_path_that_was_signed(serve: Serve, make_fetcher: MakeFetcher) -> None:
    seen = []

    def script(exchange: Exchange) -> None:
        seen.append(exchange.path)
        exchange.answer(b"image")

    server = serve(script)
    path = "/a%3ab|c/50%/d?X-Amz-Signature=%2f~&e='f'"
    make_fetcher(server).fetch(server.url(path))

    assert seen == [path]
