"""Jobs that want the same URL at the same moment share one download and nothing else."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from tests.concurrency.watched_scope import WatchedScope
from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, failure_of, within
from tests.fetch.servers import Exchange, Script, ScriptedServer
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.fetch import CoalescingFetcher

TIMEOUT_S = 10.0


class Gate:
    """A script that sends its first response once `open` is set, and later ones at once."""

    def __init__(self, status: str = "200 OK", headers: tuple[str, ...] = ()) -> None:
        self.asked = threading.Event()
        self.open = threading.Event()
        self._first = status, headers

    def __call__(self, exchange: Exchange) -> None:
        if self.asked.is_set():
            exchange.answer(IMAGE)
            return
        self.asked.set()
        self.open.wait(TIMEOUT_S)
        exchange.answer(IMAGE, *self._first)


class Jobs:
    """Jobs that download from one server, each in its own thread."""

    def __init__(self, fetcher: CoalescingFetcher[bytes], server: ScriptedServer, threads: ThreadPoolExecutor) -> None:
        self.fetcher = fetcher
        self.server = server
        self._threads = threads

    def lead(self, gate: Gate, *, scope: CancelScope | None = None) -> Future[bytes]:
        """Begin the first download, and return once its request has reached the server."""
        download = self._threads.submit(self.fetcher.fetch, self.server.url(), scope=scope)
        assert gate.asked.wait(TIMEOUT_S)
        return download

    def follow(self, scope: WatchedScope | None = None) -> Future[bytes]:
        """Want the same URL meanwhile, and return once this job waits for the other's download."""
        scope = scope or WatchedScope()
        download = self._threads.submit(self.fetcher.fetch, self.server.url(), scope=scope)
        assert scope.waits.wait(TIMEOUT_S)
        return download


class Start:
    """Makes `Jobs` whose server follows a script."""

    def __init__(self, serve: Serve, make_fetcher: MakeFetcher, threads: ThreadPoolExecutor) -> None:
        self._serve, self._make_fetcher, self._threads = serve, make_fetcher, threads

    def __call__(self, script: Script, timeout_s: float = TIMEOUT_S) -> Jobs:
        server = self._serve(script)
        fetcher = self._make_fetcher(server, timeout_s=timeout_s)
        return Jobs(CoalescingFetcher(fetcher, timeout_s), server, self._threads)


@pytest.fixture
def start(serve: Serve, make_fetcher: MakeFetcher) -> Iterator[Start]:
    with ThreadPoolExecutor() as threads:
        yield Start(serve, make_fetcher, threads)


def test_a_url_is_requested_once_while_several_jobs_want_it(start: Start) -> None:
    gate = Gate()
    jobs = start(gate)
    downloads = [jobs.lead(gate), *(jobs.follow() for _ in range(4))]

    gate.open.set()

    assert {download.result(TIMEOUT_S) for download in downloads} == {IMAGE}
    assert len(jobs.server.requests) == 1
    assert jobs.fetcher.shared == 4


def test_urls_that_differ_in_anything_share_nothing(start: Start) -> None:
    gate = Gate()
    jobs = start(gate)
    first = jobs.lead(gate)

    for path in ("/image.png?", "/image.png?signature=2", "/image.PNG"):
        assert jobs.fetcher.fetch(jobs.server.url(path)) == IMAGE

    gate.open.set()
    assert first.result(TIMEOUT_S) == IMAGE
    assert len(jobs.server.requests) == 4
    assert jobs.fetcher.shared == 0


def test_a_download_is_not_shared_once_it_is_over(start: Start) -> None:
    gate = Gate()
    gate.open.set()
    jobs = start(gate)

    for _ in range(2):
        assert jobs.fetcher.fetch(jobs.server.url()) == IMAGE

    assert len(jobs.server.requests) == 2
    assert not jobs.fetcher._flights._flights


def test_cancelling_the_job_that_downloads_harms_no_other(start: Start) -> None:
    gate, scope = Gate(), CancelScope(float("inf"))
    jobs = start(gate)
    first = jobs.lead(gate, scope=scope)
    other = jobs.follow()

    scope.cancel()

    with pytest.raises(Cancelled):
        first.result(TIMEOUT_S)
    assert other.result(TIMEOUT_S) == IMAGE
    assert len(jobs.server.requests) == 2


def test_a_short_timeout_of_the_job_that_downloads_fails_only_that_job(start: Start) -> None:
    gate = Gate()
    jobs = start(gate)
    hasty = jobs.lead(gate, scope=within(2))
    patient = jobs.follow()

    assert failure_of(lambda: hasty.result(TIMEOUT_S)).code == "fetch_timeout"
    assert patient.result(TIMEOUT_S) == IMAGE


def test_a_job_that_waits_for_another_s_download_keeps_its_own_short_timeout(start: Start) -> None:
    gate = Gate()
    jobs = start(gate)
    patient = jobs.lead(gate)

    assert failure_of(lambda: jobs.fetcher.fetch(jobs.server.url(), scope=within(0.1))).code == "fetch_timeout"

    gate.open.set()
    assert patient.result(TIMEOUT_S) == IMAGE
    assert len(jobs.server.requests) == 1


def test_no_timeout_is_longer_than_the_fetcher_s_own(start: Start) -> None:
    jobs = start(Exchange.stall, timeout_s=0.5)

    assert failure_of(lambda: jobs.fetcher.fetch(jobs.server.url(), scope=within(60))).code == "fetch_timeout"


def test_a_job_cancelled_while_it_waits_for_another_s_download_ends_at_once(start: Start) -> None:
    gate, scope = Gate(), WatchedScope()
    jobs = start(gate)
    first = jobs.lead(gate)
    other = jobs.follow(scope)

    scope.cancel()

    with pytest.raises(Cancelled):
        other.result(TIMEOUT_S)
    gate.open.set()
    assert first.result(TIMEOUT_S) == IMAGE


def test_a_failure_that_is_not_retryable_is_shared_by_all_jobs(start: Start) -> None:
    gate = Gate("404 Not Found")
    jobs = start(gate)
    downloads = [jobs.lead(gate), jobs.follow()]

    gate.open.set()

    codes = [failure_of(partial(download.result, TIMEOUT_S)).code for download in downloads]
    assert codes == ["http_status"] * 2
    assert len(jobs.server.requests) == 1


def test_a_retryable_failure_is_not_shared(start: Start) -> None:
    gate = Gate("503 Service Unavailable", ("Retry-After: 60",))  # so that the first job does not repeat its request
    jobs = start(gate)
    first = jobs.lead(gate)
    other = jobs.follow()

    gate.open.set()

    assert other.result(TIMEOUT_S) == IMAGE
    assert failure_of(lambda: first.result(TIMEOUT_S)).code == "http_status"


def test_a_queues_job_waits_for_no_other_queues_download(serve: Serve, make_fetcher: MakeFetcher) -> None:
    gate = Gate()
    server = serve(gate)
    fetcher = CoalescingFetcher[bytes](make_fetcher(server), TIMEOUT_S)
    with ThreadPoolExecutor(1) as threads:
        stalled = threads.submit(fetcher.fetch, server.url(), queue="bulk")
        assert gate.asked.wait(TIMEOUT_S)
        assert fetcher.fetch(server.url(), queue="high") == IMAGE
        assert not stalled.done()
        gate.open.set()
        assert stalled.result(TIMEOUT_S) == IMAGE
    assert fetcher.shared == 0
