"""Work that several jobs want at the same moment is done once, and no job is affected by the fate of another."""

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
    """A function that ends when the test sets `may_end`, with the outcome that the test chose."""

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
    """Jobs that want some work, each in its own thread."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.flights: SingleFlight[str] = SingleFlight()
        self._threads = threads

    def lead(self, work: Work, key: str = "k") -> Asked:
        """Start the first job, and return once it does the work."""
        asked = self._ask(CancelScope(float("inf")), work, key)
        assert work.begun.acquire(timeout=TIMEOUT_S)
        return asked

    def follow(self, work: Callable[[], str], scope: WatchedScope | None = None) -> Asked:
        """Start a job while another does the work, and return once this job waits for it."""
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
    raise AssertionError("another job should have done this work")


def test_jobs_that_need_the_same_work_while_it_runs_get_the_first_job_s_result(jobs: Jobs) -> None:
    work = Work()
    first = jobs.lead(work)
    others = [jobs.follow(never) for _ in range(3)]

    work.may_end.set()

    assert first.result(TIMEOUT_S) == ("owl", False)
    assert [other.result(TIMEOUT_S) for other in others] == [("owl", True)] * 3


def test_a_job_that_needs_the_same_work_afterwards_does_it_again(jobs: Jobs) -> None:
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
def test_a_failure_that_concerns_only_the_first_job_is_not_shared(jobs: Jobs, own_affair: BaseException) -> None:
    work = Work(own_affair)
    first = jobs.lead(work)
    others = [jobs.follow(lambda: "mine") for _ in range(2)]

    work.may_end.set()

    with pytest.raises(type(own_affair)):
        first.result(TIMEOUT_S)
    assert [other.result(TIMEOUT_S) for other in others] == [("mine", False)] * 2


def test_a_job_that_waited_in_vain_does_the_work_itself_at_once(jobs: Jobs) -> None:
    cancelled, slow = Work(Cancelled()), Work()
    jobs.lead(cancelled)
    waiting = [jobs.follow(slow) for _ in range(3)]

    cancelled.may_end.set()

    for _ in waiting:
        assert slow.begun.acquire(timeout=TIMEOUT_S)
    slow.may_end.set()
    assert [future.result(TIMEOUT_S) for future in waiting] == [("owl", False)] * 3


def test_a_failure_that_is_not_retryable_is_shared_by_all_jobs(jobs: Jobs) -> None:
    work = Work(JobFailed("http_status", "the server responded with status 404."))
    first = jobs.lead(work)
    others = [jobs.follow(never) for _ in range(2)]

    work.may_end.set()

    failures = [future.exception(TIMEOUT_S) for future in (first, *others)]
    assert {str(failure) for failure in failures} == {"http_status: the server responded with status 404."}
    assert len({id(failure) for failure in failures}) == 3, "two threads must not share an exception"
    assert {failure.__context__ for failure in failures if failure} == {None}


def test_a_job_that_is_cancelled_while_it_waits_ends_and_the_work_goes_on(jobs: Jobs) -> None:
    work, scope = Work(), WatchedScope()
    first = jobs.lead(work)
    other = jobs.follow(never, scope)

    scope.cancel()

    with pytest.raises(Cancelled):
        other.result(TIMEOUT_S)
    work.may_end.set()
    assert first.result(TIMEOUT_S) == ("owl", False)


def test_no_job_waits_for_another_beyond_its_own_deadline(jobs: Jobs) -> None:
    work = Work()
    first = jobs.lead(work)

    with pytest.raises(TimeoutError):
        jobs.flights.do("k", CancelScope(time.monotonic() + 0.01), never)
    work.may_end.set()
    assert first.result(TIMEOUT_S) == ("owl", False)
