"""What several jobs want at the same moment is done once, and no job suffers from what happens to another."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from producer.errors import JobFailed
from tests.concurrency.watched_scope import WatchedScope
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.concurrency.single_flight import SingleFlight

TIMEOUT_S = 10.0
Asked = Future[tuple[str, bool]]


class Work:
    """Something that takes as long as a test wants, and ends as it wants."""

    def __init__(self, outcome: str | BaseException = "owl") -> None:
        self.begun = threading.Semaphore(0)
        self.times = 0
        self._outcome = outcome
        self.may_end = threading.Event()

    def __call__(self) -> str:
        self.times += 1
        self.begun.release()
        assert self.may_end.wait(TIMEOUT_S)
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


class Jobs:
    """Jobs that ask, each in a thread of its own."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.flights: SingleFlight[str] = SingleFlight()
        self._threads = threads

    def lead(self, work: Work, key: str = "k") -> Asked:
        """Ask first; the work is being done when this returns."""
        asked = self._ask(CancelScope(float("inf")), work, key)
        assert work.begun.acquire(timeout=TIMEOUT_S)
        return asked

    def follow(self, work: Callable[[], str], scope: WatchedScope | None = None) -> Asked:
        """Ask while another's work is being done; this one waits for it when this returns."""
        scope = scope or WatchedScope()
        asked = self._ask(scope, work, "k")
        assert scope.waits.wait(TIMEOUT_S)
        return asked

    def _ask(self, scope: CancelScope, work: Callable[[], str], key: str) -> Asked:
        return self._threads.submit(self.flights.do, key, scope, work)


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    with ThreadPoolExecutor() as threads:
        yield Jobs(threads)


def never() -> str:
    raise AssertionError("this work was another's")


def test_all_who_ask_meanwhile_get_what_the_first_one_makes(jobs: Jobs) -> None:
    work = Work()
    first = jobs.lead(work)
    others = [jobs.follow(never) for _ in range(3)]

    work.may_end.set()

    assert first.result(TIMEOUT_S) == ("owl", False)
    assert [other.result(TIMEOUT_S) for other in others] == [("owl", True)] * 3


def test_who_asks_afterwards_begins_anew(jobs: Jobs) -> None:
    work = Work()
    work.may_end.set()

    assert jobs.lead(work).result(TIMEOUT_S) == jobs.lead(work).result(TIMEOUT_S) == ("owl", False)
    assert work.times == 2


def test_different_keys_share_nothing(jobs: Jobs) -> None:
    one, other = Work("owl"), Work("fox")
    asked = jobs.lead(one, "one"), jobs.lead(other, "other")

    for work in (one, other):
        work.may_end.set()

    assert [future.result(TIMEOUT_S)[0] for future in asked] == ["owl", "fox"]


@pytest.mark.parametrize(
    "own_affair",
    [Cancelled(), JobFailed("fetch_timeout", "x"), JobFailed("deadline_exceeded", "x"), MemoryError(), SystemExit()],
    ids=repr,
)
def test_what_happens_to_the_first_alone_is_no_other_s_failure(jobs: Jobs, own_affair: BaseException) -> None:
    work = Work(own_affair)
    first = jobs.lead(work)
    others = [jobs.follow(lambda: "mine") for _ in range(2)]

    work.may_end.set()

    with pytest.raises(type(own_affair)):
        first.result(TIMEOUT_S)
    assert [other.result(TIMEOUT_S) for other in others] == [("mine", False)] * 2


def test_who_waited_in_vain_waits_for_nobody_else(jobs: Jobs) -> None:
    cancelled, slow = Work(Cancelled()), Work()
    jobs.lead(cancelled)
    waiting = [jobs.follow(slow) for _ in range(3)]

    cancelled.may_end.set()

    for _ in waiting:
        assert slow.begun.acquire(timeout=TIMEOUT_S)
    slow.may_end.set()
    assert [future.result(TIMEOUT_S) for future in waiting] == [("owl", False)] * 3


def test_a_failure_that_trying_again_would_not_mend_is_everybody_s(jobs: Jobs) -> None:
    work = Work(JobFailed("http_status", "the server responded with status 404."))
    first = jobs.lead(work)
    others = [jobs.follow(never) for _ in range(2)]

    work.may_end.set()

    failures = [future.exception(TIMEOUT_S) for future in (first, *others)]
    assert {str(failure) for failure in failures} == {"http_status: the server responded with status 404."}
    assert len({id(failure) for failure in failures}) == 3, "an exception is one thread's own"
    assert {failure.__context__ for failure in failures if failure} == {None}


def test_whoever_is_cancelled_while_waiting_goes_and_the_work_goes_on(jobs: Jobs) -> None:
    work, scope = Work(), WatchedScope()
    first = jobs.lead(work)
    other = jobs.follow(never, scope)

    scope.cancel()

    with pytest.raises(Cancelled):
        other.result(TIMEOUT_S)
    work.may_end.set()
    assert first.result(TIMEOUT_S) == ("owl", False)


def test_nobody_waits_longer_than_its_own_deadline(jobs: Jobs) -> None:
    work = Work()
    first = jobs.lead(work)

    with pytest.raises(TimeoutError):
        jobs.flights.do("k", CancelScope(time.monotonic() + 0.01), never)
    work.may_end.set()
    assert first.result(TIMEOUT_S) == ("owl", False)
