"""Credit counts images rather than messages, and can be counted while threads work."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import pytest
from celery.worker import state

from worker.jobs.consumer import images_in, requests_in_hand


@pytest.mark.parametrize(
    ("task", "kwargs", "images"),
    [
        ("nameshot.classify", {"image": "http://x.example/y.png"}, 1),
        ("nameshot.classify_many", {"images": ["http://x.example/y.png"] * 32}, 32),
        ("nameshot.classify_many", {"images": []}, 1),
        ("nameshot.classify_many", {"images": 7}, 1),
        ("nameshot.classify_many", {}, 1),
    ],
)
def test_a_message_counts_as_its_number_of_images_or_as_one_if_it_is_malformed(
    task: str, kwargs: dict[str, Any], images: int
) -> None:
    assert images_in(task, kwargs) == images


def test_requests_in_hand_can_be_counted_while_threads_finish_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Iterating over a set that changes raises an error, which in the event loop would end the worker."""
    monkeypatch.setattr(state, "reserved_requests", WeakSet())
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            requests = [Request() for _ in range(50)]
            for request in requests:
                state.reserved_requests.add(request)

    with ThreadPoolExecutor(2) as threads, ending(over):
        for _ in range(2):
            threads.submit(work)
        for _ in range(5_000):
            assert all(isinstance(request, Request) for request in requests_in_hand())


class Request:
    """Stands for Celery's request in a weak set."""


@contextmanager
def ending(over: threading.Event) -> Iterator[None]:
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval_s)
        over.set()
