"""A name is looked up once per connection; all its addresses are checked, and only a checked one is dialled."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, code_of
from worker.concurrency.cancel_scope import CancelScope
from worker.fetch.failures import FetchFailed
from worker.fetch.resolver import BoundedResolver

PRIVATE_ANSWERS: list[list[str]] = [
    ["10.0.0.1"],
    ["1.1.1.1", "10.0.0.1"],
    ["10.0.0.1", "1.1.1.1"],
    ["1.1.1.1", "::1"],
    ["64:ff9b::a00:1"],
    ["::ffff:10.0.0.1"],
    ["fe80::1%eth0"],
    ["2606:4700::1%eth0"],
    ["127.1"],
    ["1.1.1.1", "127.1"],
    ["1.1.1.1", "nonsense"],
    ["nonsense"],
    [],
]


@pytest.mark.parametrize("answers", PRIVATE_ANSWERS, ids=str)
def test_a_name_is_refused_if_one_of_its_addresses_is_not_public(
    answers: list[str], make_fetcher: MakeFetcher, dialled: list[Any]
) -> None:
    assert code_of(make_fetcher(resolve=lambda *_: answers), "http://h.example/") == "address_blocked"
    assert dialled == []


def test_dns_rebinding_is_refused(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE, headers=["Connection: close"]))
    lookups: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[str]:
        lookups.append((host, port))
        return ["127.0.0.1"] if len(lookups) == 1 else ["169.254.169.254"]

    fetcher = make_fetcher(server, resolve=resolve)
    url = f"http://rebind.example:{server.port}/"
    assert fetcher.fetch(url) == IMAGE
    assert lookups == [("rebind.example", server.port)]
    # The exception covers only 127.0.0.1, so no other address may be dialled at this port.
    assert code_of(fetcher, url) == "port_not_allowed"
    assert len(server.requests) == 1


def test_the_checked_address_is_dialled_and_the_request_names_the_host(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    fetcher = make_fetcher(server, resolve=lambda *_: ["127.0.0.1"])
    assert fetcher.fetch(f"http://H.example.:{server.port}/a?b") == IMAGE
    assert server.requests[0].startswith("GET /a?b HTTP/1.1\r\n")
    assert f"Host: h.example:{server.port}\r\n" in server.requests[0]


def test_an_international_name_is_looked_up_and_requested_in_its_ascii_form(
    serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    lookups: list[str] = []

    def resolve(host: str, _port: int) -> list[str]:
        lookups.append(host)
        return ["127.0.0.1"]

    assert make_fetcher(server, resolve=resolve).fetch(server.url(host="faß.example")) == IMAGE
    assert lookups == ["xn--fa-hia.example"]
    assert f"Host: xn--fa-hia.example:{server.port}\r\n" in server.requests[0]


def test_a_connection_that_reached_another_address_is_not_used(
    serve: Serve, make_fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    fetcher = make_fetcher(server)
    monkeypatch.setattr(socket.socket, "getpeername", lambda _sock: ("10.0.0.1", server.port))
    assert code_of(fetcher, server.url()) == "address_blocked"
    assert server.requests == []


def test_at_most_three_addresses_are_dialled_alternating_between_the_families(
    make_fetcher: MakeFetcher, dialled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.fetch.retries.MAX_ATTEMPTS", 1)
    answers = [f"2606:4700::{number:x}" for number in range(1, 100)] + [f"1.1.1.{number}" for number in range(100)]
    assert code_of(make_fetcher(resolve=lambda *_: answers), "http://h.example/") == "connect_failed"
    assert [address[0] for address in dialled] == ["2606:4700::1", "1.1.1.0", "2606:4700::2"]


def test_a_name_that_does_not_exist_is_looked_up_once(make_fetcher: MakeFetcher) -> None:
    lookups = []

    def resolve(host: str, port: int) -> list[str]:
        lookups.append((host, port))
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert code_of(make_fetcher(resolve=resolve), "http://h.example/") == "dns_failed"
    assert len(lookups) == 1


def test_a_look_up_that_fails_temporarily_is_repeated(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    lookups = []

    def resolve(host: str, port: int) -> list[str]:
        lookups.append((host, port))
        if len(lookups) == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return ["127.0.0.1"]

    assert make_fetcher(server, resolve=resolve).fetch(server.url(host="h.example")) == IMAGE
    assert len(lookups) == 2


def test_hanging_look_ups_end_at_the_download_s_deadline_and_their_number_is_bounded() -> None:
    hanging, free = threading.Semaphore(0), threading.Event()

    def resolve(_host: str, _port: int) -> list[str]:
        hanging.release()
        free.wait()
        return ["1.1.1.1"]

    resolver = BoundedResolver(resolve, max_lookups=2)
    for number in range(4):
        with pytest.raises(FetchFailed, match="fetch_timeout"):
            resolver.look_up(f"h.domain{number}.example", 80, CancelScope(time.monotonic() + 0.05))
    assert sum(hanging.acquire(blocking=False) for _ in range(4)) == 2
    free.set()
    assert [str(address) for address in resolver.look_up("h.example", 80, CancelScope(time.monotonic() + 5))] == [
        "1.1.1.1"
    ]


def test_a_domain_whose_name_servers_are_silent_does_not_block_other_look_ups() -> None:
    free = threading.Event()

    def resolve(host: str, _port: int) -> list[str]:
        if host.endswith("silent.example"):
            free.wait()
        return ["1.1.1.1"]

    resolver = BoundedResolver(resolve, max_lookups=8)
    for number in range(8):
        with pytest.raises(FetchFailed, match="fetch_timeout" if number < 2 else "host_unavailable"):
            resolver.look_up(f"h{number}.silent.example", 80, CancelScope(time.monotonic() + 0.05))
    assert resolver.look_up("h.lively.example", 80, CancelScope(time.monotonic() + 5))
    free.set()
    assert resolver.look_up("h.silent.example", 80, CancelScope(time.monotonic() + 5))


class TestExceptions:
    """Which rules an exception in ``NAMESHOT_FETCH_ALLOW`` lifts, and which it does not."""

    def test_an_excepted_address_may_be_fetched_by_its_number_and_by_any_name(
        self, serve: Serve, make_fetcher: MakeFetcher
    ) -> None:
        server = serve(lambda exchange: exchange.answer(IMAGE))
        fetcher = make_fetcher(server, resolve=lambda *_: ["127.0.0.1"])
        for host in ("127.0.0.1", "localhost", "minio", "metadata.google.internal", "h.example"):
            assert fetcher.fetch(server.url(host=host)) == IMAGE

    def test_the_system_s_resolver_finds_localhost(self, serve: Serve, make_fetcher: MakeFetcher) -> None:
        server = serve(lambda exchange: exchange.answer(IMAGE))
        assert make_fetcher(server).fetch(server.url(host="localhost")) == IMAGE

    def test_only_the_excepted_addresses_of_a_name_are_dialled(self, serve: Serve, make_fetcher: MakeFetcher) -> None:
        server = serve(lambda exchange: exchange.answer(IMAGE))
        fetcher = make_fetcher(server, resolve=lambda *_: ["::1", "10.0.0.1", "127.0.0.1"])
        assert fetcher.fetch(server.url(host="localhost")) == IMAGE

    @pytest.mark.parametrize(
        ("url", "answers", "code"),
        [
            ("http://localhost:8099/", ["127.0.0.2"], "invalid_url"),
            ("http://localhost:8099/", ["1.1.1.1"], "invalid_url"),
            ("http://h.example:8099/", ["127.0.0.2"], "port_not_allowed"),
            ("http://h.example:8099/", ["1.1.1.1"], "port_not_allowed"),
            ("http://h.example:80/", ["127.0.0.1"], "address_blocked"),
            ("http://h.example:8099/", ["::ffff:127.0.0.1"], "port_not_allowed"),
        ],
    )
    def test_other_addresses_and_ports_stay_refused(
        self, url: str, answers: list[str], code: str, make_fetcher: MakeFetcher, dialled: list[Any]
    ) -> None:
        fetcher = make_fetcher(allow="127.0.0.1/32:8099", resolve=lambda *_: answers)
        assert code_of(fetcher, url) == code
        assert dialled == []

    @pytest.mark.parametrize(
        ("url", "code"),
        [
            ("http://localhost/", "invalid_url"),
            ("http://localhost:8100/", "invalid_url"),
            ("http://h.example:8100/", "port_not_allowed"),
            ("http://127.0.0.1:8100/", "port_not_allowed"),
            ("http://127.0.0.1/", "address_blocked"),
            ("http://127.0.0.2:8099/", "port_not_allowed"),
            ("http://[::ffff:127.0.0.1]:8099/", "port_not_allowed"),
            ("http://127.1:8099/", "invalid_url"),
            ("http://u@127.0.0.1:8099/", "invalid_url"),
            ("ftp://127.0.0.1:8099/", "scheme_not_allowed"),
        ],
    )
    def test_a_url_that_no_exception_permits_is_not_looked_up(
        self, url: str, code: str, make_fetcher: MakeFetcher, dialled: list[Any]
    ) -> None:
        def resolve(_host: str, _port: int) -> list[str]:
            raise AssertionError("the name was looked up")

        fetcher = make_fetcher(allow="127.0.0.1/32:8099", resolve=resolve)
        assert code_of(fetcher, url) == code
        assert dialled == []

    def test_an_exception_does_not_widen_the_allowed_hosts(self, serve: Serve, make_fetcher: MakeFetcher) -> None:
        server = serve(lambda exchange: exchange.answer(IMAGE))
        fetcher = make_fetcher(server, hosts="h.example", resolve=lambda *_: ["127.0.0.1"])
        assert code_of(fetcher, server.url(host="127.0.0.1")) == "host_not_allowed"
        assert code_of(fetcher, server.url(host="localhost")) == "host_not_allowed"
        assert fetcher.fetch(server.url(host="h.example")) == IMAGE

    def test_an_allowed_host_lifts_no_other_check(self, make_fetcher: MakeFetcher, dialled: list[Any]) -> None:
        fetcher = make_fetcher(hosts="h.example,localhost,127.0.0.1", resolve=lambda *_: ["127.0.0.1"])
        assert code_of(fetcher, "http://h.example/") == "address_blocked"
        assert code_of(fetcher, "http://localhost/") == "invalid_url"
        assert code_of(fetcher, "http://127.0.0.1/") == "address_blocked"
        assert dialled == []
