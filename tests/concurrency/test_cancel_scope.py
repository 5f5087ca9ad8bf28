"""A scope ends at its deadline or when it is cancelled, and ends every wait within it."""

import threading
import time
from concurrent.futures import Future

import pytest

from worker.concurrency.cancel_scope import Cancelled, CancelScope

#: Far longer than any wait in these tests.
LONG_S = 60.0


@pytest.fixture
def scope() -> CancelScope:
    return CancelScope(time.monotonic() + LONG_S)


def test_an_inner_scope_ends_with_the_outer_one_but_not_the_reverse(scope: CancelScope) -> None:
    part = scope.within(0.0)

    assert part.is_over
    assert not scope.is_over
    scope.cancel()
    assert scope.within(LONG_S).left_s == 0.0


def test_waiting_for_a_future_ends_at_the_deadline(scope: CancelScope) -> None:
    done: Future[int] = Future()
    done.set_result(3)

    assert scope.result_of(done) == 3
    with pytest.raises(TimeoutError):
        scope.within(0.01).result_of(Future())


def test_cancelling_ends_the_wait_for_a_future(scope: CancelScope) -> None:
    timer = threading.Timer(0.1, scope.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        scope.result_of(Future())
    timer.join()


def test_a_callback_is_called_once_even_if_it_is_added_after_the_cancellation(scope: CancelScope) -> None:
    calls: list[str] = []
    scope.on_cancel(lambda: calls.append("before"))
    scope.cancel()
    scope.cancel()
    scope.on_cancel(lambda: calls.append("after"))

    assert calls == ["before", "after"]
