"""The downloads from one host, and from one address under any names, are limited; further ones wait for a slot."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, code_of, failure_of, within
from tests.fetch.servers import Exchange, ScriptedServer
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.fetch import Fetcher
from worker.fetch.failures import FetchFailed
from worker.fetch.slots import Slots


class Crowd:
    """A script that responds once `open` is set, and records how many requests it had at a time at most."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.most = 0
        self._lock = threading.Lock()
        self._now = 0

    def __call__(self, exchange: Exchange) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.open.wait(10)
        time.sleep(0.01)  # so that further requests could arrive
        with self._lock:
            self._now -= 1
        exchange.answer(IMAGE)


def in_(timeout_s: float) -> CancelScope:
    return CancelScope(time.monotonic() + timeout_s)


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


@pytest.mark.parametrize(
    "host_of",
    [
        pytest.param(lambda _: "h.example", id="one name"),
        pytest.param(lambda number: "h.example" + "." * (number % 2), id="with and without its dot"),
        pytest.param(lambda number: f"{number}.wild.example", id="many names of one address"),
        pytest.param(lambda _: "127.0.0.1", id="the address"),
    ],
)
@pytest.mark.parametrize("kept", [False, True], ids=["new connections", "kept connections"])
def test_no_more_downloads_than_permitted_run_from_one_host_at_once(
    host_of: Callable[[int], str], kept: bool, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    crowd = Crowd()
    server = serve(crowd)
    fetcher = make_fetcher(server, per_host=3, timeout_s=30, resolve=lambda *_: ["127.0.0.1"])
    if kept:
        crowd.open.set()
        for number in range(12):
            fetcher.fetch(server.url(host=host_of(number)))
        crowd.open.clear()
    with ThreadPoolExecutor(12) as pool:
        images = [pool.submit(fetcher.fetch, server.url(host=host_of(number))) for number in range(12)]
        until(lambda: crowd.most == 3)
        crowd.open.set()
        assert [image.result() for image in images] == [IMAGE] * 12
    assert crowd.most == 3


def test_each_request_of_a_redirect_occupies_only_a_slot_of_its_own_host(
    serve: Serve, make_fetcher: MakeFetcher
) -> None:
    crowd = Crowd()
    server = serve(lambda exchange: exchange.redirect(target.url(host="b.example")))
    target = serve(crowd)
    addresses = {"a.example": "127.0.0.1", "b.example": "127.0.0.1"}
    fetcher = make_fetcher(server, target, per_host=2, timeout_s=30, resolve=lambda host, _port: [addresses[host]])
    with ThreadPoolExecutor(8) as pool:
        images = [pool.submit(fetcher.fetch, server.url(f"/{number}", "a.example")) for number in range(8)]
        until(lambda: crowd.most == 2)
        crowd.open.set()
        assert [image.result() for image in images] == [IMAGE] * 8
    assert crowd.most == 2


@contextmanager
def stalled(fetcher: Fetcher, server: ScriptedServer) -> Iterator[None]:
    """Keep a download from a server that never responds running."""
    scope = CancelScope(time.monotonic() + 60)
    with ThreadPoolExecutor(1) as pool:
        download = pool.submit(fetcher.fetch, server.url(), scope=scope)
        until(lambda: len(server.requests) == 1)
        try:
            yield
        finally:
            scope.cancel()
            assert isinstance(download.exception(), Cancelled)


def test_a_busy_host_delays_no_other(serve: Serve, make_fetcher: MakeFetcher) -> None:
    busy = serve(lambda exchange: exchange.stall())
    free = serve(lambda exchange: exchange.answer(IMAGE), address="127.0.0.2")
    fetcher = make_fetcher(busy, free, per_host=1, timeout_s=60)
    with stalled(fetcher, busy):
        assert fetcher.fetch(free.url()) == IMAGE


def test_a_host_without_a_free_slot_in_time_is_unavailable(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.stall())
    fetcher = make_fetcher(server, per_host=1, timeout_s=60, resolve=lambda *_: ["127.0.0.1"])
    with stalled(fetcher, server):
        for host in ("127.0.0.1", "other.example"):  # by address and by name
            started_s = time.monotonic()
            failure = failure_of(partial(fetcher.fetch, server.url(host=host), scope=within(0.3)))
            assert (failure.code, failure.retryable) == ("host_unavailable", True)
            assert 0.29 < time.monotonic() - started_s < 5
    assert len(server.requests) == 1


def test_cancelling_ends_the_wait_for_a_slot_at_once(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.stall())
    fetcher = make_fetcher(server, per_host=1, timeout_s=60)
    with stalled(fetcher, server), ThreadPoolExecutor(1) as pool:
        scope = CancelScope(time.monotonic() + 60)
        download = pool.submit(fetcher.fetch, server.url(), scope=scope)
        until(lambda: fetcher._hosts._names.users(("127.0.0.1", server.port)) == 2)
        scope.cancel()
        assert isinstance(download.exception(5), Cancelled)
        assert fetcher._hosts._names.users(("127.0.0.1", server.port)) == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize("trouble", ["404", "hang-up", "stall", "blocked", "too large", "redirect to a blocked one"])
def test_every_end_of_a_download_frees_its_slots(trouble: str, serve: Serve, make_fetcher: MakeFetcher) -> None:
    def script(exchange: Exchange) -> None:
        match trouble:
            case "404":
                exchange.answer(status="404 Not Found")
            case "hang-up":
                exchange.hang_up()
            case "too large":
                exchange.answer(b"x" * 2_000_000)
            case "redirect to a blocked one":
                exchange.redirect("http://10.0.0.1/")
            case _:
                exchange.stall()

    server = serve(script)
    fetcher = make_fetcher(server, per_host=1, timeout_s=0.5, resolve=lambda *_: ["10.0.0.1"])
    for _ in range(3):
        code_of(fetcher, "http://h.example/" if trouble == "blocked" else server.url())
    assert (fetcher._hosts._names._slots, fetcher._hosts.addresses._slots) == ({}, {})


def test_a_free_slot_goes_to_the_download_that_has_waited_longest() -> None:
    slots = Slots(1)
    slots.take("h", in_(10))
    order: list[int] = []

    def wait(number: int, scope: CancelScope) -> None:
        with slots.hold("h", scope):
            order.append(number)

    scopes = [in_(10) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        waits = []
        for number, scope in enumerate(scopes):
            waits.append(pool.submit(wait, number, scope))
            until(lambda: slots.users("h") == 1 + len(waits))
        scopes[2].cancel()
        until(lambda: slots.users("h") == 1 + 5)
        slots.give_back("h")
    assert isinstance(waits[2].exception(), Cancelled)
    assert order == [0, 1, 3, 4, 5]
    assert slots._slots == {}


def test_no_slot_is_lost_when_a_download_stops_waiting_just_as_it_gets_one() -> None:
    """Slots pass on while waiting downloads are cancelled or time out; in the end every slot is free."""
    slots = Slots(2)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(200):
            scope = in_(rng.choice([0.0, 0.0001, 0.001, 10]))
            if rng.random() < 0.3:
                threading.Timer(rng.random() / 1_000, scope.cancel).start()
            with suppress(FetchFailed, Cancelled), slots.hold(rng.choice("ab"), scope):
                time.sleep(rng.random() / 5_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert slots._slots == {}


@pytest.mark.parametrize("host", ["h.example", "127.0.0.1"])
def test_a_host_that_stalls_for_one_queue_has_slots_left_for_more_important_ones(
    host: str, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    arrived = threading.Semaphore(0)

    def script(exchange: Exchange) -> None:
        if exchange.path == "/quick":
            exchange.answer(IMAGE)
        else:
            arrived.release()
            exchange.over.wait(20)
            exchange.answer(IMAGE)

    server = serve(script)
    fetcher = make_fetcher(server, per_host=8, timeout_s=30, resolve=lambda *_: ["127.0.0.1"])
    scope = in_(30)
    with ThreadPoolExecutor(12) as pool:
        stalled = [pool.submit(fetcher.fetch, server.url(host=host), scope=scope, queue="bulk") for _ in range(12)]
        for _ in range(6):
            assert arrived.acquire(timeout=10)
        try:
            for queue in ("high", "default"):
                assert fetcher.fetch(server.url("/quick", host=host), queue=queue) == IMAGE
            assert not any(download.done() for download in stalled)
        finally:
            scope.cancel()
