"""Each redirect's target is checked like a first URL; at most three are followed; their bodies are never read."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from producer.errors import JobFailed
from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, code_of
from tests.fetch.servers import Exchange


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("location", ["/to", "to", "//127.0.0.1:{port}/to", "http://127.0.0.1:{port}/to#x", "?to"])
def test_relative_and_absolute_redirects_are_followed(
    status: str, location: str, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.path == "/from":
            exchange.redirect(location.format(port=server.port), status)
        else:
            exchange.answer(IMAGE)

    server = serve(script)
    assert make_fetcher(server).fetch(server.url("/from")) == IMAGE
    assert server.requests[1].split()[1] == ("/from?to" if location == "?to" else "/to")


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://169.254.169.254/latest/meta-data/", "address_blocked"),
        ("http://[::ffff:127.0.0.1]/", "address_blocked"),
        ("//10.0.0.1/", "address_blocked"),
        ("http://private.example/", "address_blocked"),
        ("http://localhost/", "invalid_url"),
        ("http://user:password@h.example/", "invalid_url"),
        ("http://2130706433/", "invalid_url"),
        ("http://h.example:6379/", "port_not_allowed"),
        ("file:///etc/passwd", "scheme_not_allowed"),
        ("data:image/png;base64,AAAA", "scheme_not_allowed"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "scheme_not_allowed"),
        ("", "bad_redirect"),
        ("http:\\\\127.0.0.1\\", "bad_redirect"),
        ("http://h.example/\tx", "bad_redirect"),
        ("\x01http://h.example/", "bad_redirect"),
        ("http://h\xe9.example/", "invalid_url"),
        ("http://[", "invalid_url"),
        ("//[", "bad_redirect"),
        ("http://127.0.0.1 @h.example/", "invalid_url"),
        ("http:///", "invalid_url"),
        ("http://user@127.0.0.1:{port}/to", "invalid_url"),  # a redirect to the same server is checked again
        ("http://127.1:{port}/to", "invalid_url"),
        ("http://127.0.0.1/to", "address_blocked"),
        ("https://127.0.0.1:22/to", "port_not_allowed"),
    ],
)
def test_a_redirect_that_breaks_a_rule_fails_with_that_rule_s_code(
    location: str, code: str, serve: Serve, make_fetcher: MakeFetcher, connected: list[Any]
) -> None:
    server = serve(lambda exchange: exchange.redirect(location.replace("{port}", str(server.port))))
    fetcher = make_fetcher(server, resolve=lambda *_: ["10.0.0.1"])
    assert code_of(fetcher, server.url()) == code
    assert len(server.requests) == 1
    assert connected == [("127.0.0.1", server.port)]


def test_a_redirect_without_a_location_is_bad(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(status="302 Found"))
    assert code_of(make_fetcher(server), server.url()) == "bad_redirect"


def test_three_redirects_are_followed_and_a_fourth_is_not(serve: Serve, make_fetcher: MakeFetcher) -> None:
    def script(exchange: Exchange) -> None:
        left = int(exchange.path[1:])
        if left:
            exchange.redirect(f"/{left - 1}")
        else:
            exchange.answer(IMAGE)

    server = serve(script)
    fetcher = make_fetcher(server)
    assert fetcher.fetch(server.url("/3")) == IMAGE
    del server.requests[:]
    assert code_of(fetcher, server.url("/4")) == "too_many_redirects"
    assert len(server.requests) == 4


def test_a_loop_of_redirects_fails_at_once(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.redirect("/image.png#again"))
    assert code_of(make_fetcher(server), server.url()) == "too_many_redirects"
    assert len(server.requests) == 1


@pytest.mark.parametrize("framing", ["Content-Length: 300000000", "Transfer-Encoding: chunked", "X-Endless: yes"])
def test_the_body_of_a_redirect_is_not_read(framing: str, serve: Serve, make_fetcher: MakeFetcher) -> None:
    sent_bytes = [0]

    def script(exchange: Exchange) -> None:
        if exchange.path == "/to":
            exchange.answer(IMAGE)
            return
        exchange.send(f"HTTP/1.1 302 Found\r\nLocation: /to\r\n{framing}\r\n\r\n".encode())
        piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        with contextlib.suppress(OSError):
            while sent_bytes[0] < 300_000_000:
                exchange.send(piece)
                sent_bytes[0] += len(piece)

    server = serve(script)
    assert make_fetcher(server).fetch(server.url("/from")) == IMAGE
    assert sent_bytes[0] < 20_000_000  # the capacity of the sockets' buffers


def test_a_redirect_without_a_body_leaves_the_connection_usable(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE) if exchange.path == "/to" else exchange.redirect("/to"))
    assert make_fetcher(server).fetch(server.url("/from")) == IMAGE
    assert server.connections == 1


def test_a_connection_is_not_reused_after_a_redirect_with_contradictory_framing(
    serve: Serve, make_fetcher: MakeFetcher
) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.path == "/to":
            exchange.answer(IMAGE)
            return
        exchange.send(b"HTTP/1.1 302 Found\r\nLocation: /to\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n")
        exchange.send(b"5\r\nhello\r\n0\r\n\r\n")

    server = serve(script)
    assert make_fetcher(server).fetch(server.url("/from")) == IMAGE
    assert server.connections == 2


def test_equal_locations_count_once_and_different_ones_are_bad(serve: Serve, make_fetcher: MakeFetcher) -> None:
    others = iter(("/to", "/other"))

    def script(exchange: Exchange) -> None:
        if exchange.path == "/to":
            exchange.answer(IMAGE)
        else:
            exchange.answer(status="302 Found", headers=["Location: /to", f"Location: {next(others)}"])

    server = serve(script)
    assert make_fetcher(server).fetch(server.url("/from")) == IMAGE
    assert code_of(make_fetcher(server), server.url("/from")) == "bad_redirect"


def test_white_space_round_a_location_is_no_part_of_it(serve: Serve, make_fetcher: MakeFetcher) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.path == "/to":
            exchange.answer(IMAGE)
        else:
            exchange.answer(status="302 Found", headers=["Location: \t /to \t "])

    server = serve(script)
    assert make_fetcher(server).fetch(server.url("/from")) == IMAGE


def test_bytes_of_a_location_that_are_not_utf_8_are_percent_encoded(serve: Serve, make_fetcher: MakeFetcher) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.path == "/caf%E9%20%C3/a%20b?%FF":
            exchange.answer(IMAGE)
        else:
            exchange.redirect("/caf\xe9%20\xc3/a b?\xff")

    server = serve(script)
    assert make_fetcher(server).fetch(server.url("/from")) == IMAGE


def test_a_failure_after_a_redirect_says_that_the_redirect_led_there(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.redirect("http://user:pw@h.example/"))
    with pytest.raises(JobFailed) as failed:
        make_fetcher(server).fetch(server.url())
    assert failed.value.code == "invalid_url"
    assert failed.value.message.startswith("a redirect leads to a URL that is refused: ")


@pytest.mark.parametrize("most", [0, 5])
def test_the_operator_sets_how_many_redirects_are_followed(most: int, serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.redirect(f"/{int(exchange.path[1:]) + 1}"))
    assert code_of(make_fetcher(server, max_redirects=most), server.url("/1")) == "too_many_redirects"
    assert len(server.requests) == most + 1
