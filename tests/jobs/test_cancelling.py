"""How a worker process learns that a job was cancelled."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from worker.concurrency.cancel_scope import CancelScope
from worker.jobs.cancelling import CancelListener, RunningJobs

TIMEOUT_S = 10
CHANNEL = "cancelled"


@pytest.fixture
def heard(valkey: ValkeyServer) -> Iterator["SimpleQueue[str]"]:
    heard: SimpleQueue[str] = SimpleQueue()
    with valkey.connect() as client:
        listener = CancelListener(client, CHANNEL, heard.put)
        listener.start()
        yield heard
        listener.close()
        client.publish(CHANNEL, "the end")
        listener._thread.join(TIMEOUT_S)


def announce(valkey: ValkeyServer, job_id: str) -> None:
    """Publish a cancellation until a listener receives it."""
    with valkey.connect() as client:
        for _ in range(TIMEOUT_S * 20):
            if client.publish(CHANNEL, job_id):
                return
            threading.Event().wait(0.05)
    pytest.fail("no listener has subscribed")


def test_a_listener_receives_an_announced_id(valkey: ValkeyServer, heard: "SimpleQueue[str]") -> None:
    announce(valkey, "a")

    assert heard.get(timeout=TIMEOUT_S) == "a"


def test_a_listener_whose_connection_was_closed_connects_again(valkey: ValkeyServer, heard: "SimpleQueue[str]") -> None:
    announce(valkey, "a")
    assert heard.get(timeout=TIMEOUT_S) == "a"

    with valkey.connect() as client:
        assert client.client_kill_filter(_type="pubsub") == 1
        # For a moment Valkey still counts the closed connection among the subscribers.
        eventually(lambda: client.publish(CHANNEL, "b") and not heard.empty())

    assert heard.get() == "b"


def test_cancelling_an_id_ends_all_its_running_jobs_and_no_others() -> None:
    jobs = RunningJobs()
    first, again, other = (CancelScope(float("inf")) for _ in range(3))

    with jobs.job("a", first), jobs.job("a", again), jobs.job("b", other):
        jobs.cancel("a")
        jobs.cancel("unknown")

    assert (first.is_over, again.is_over, other.is_over) == (True, True, False)


def test_a_job_that_has_ended_is_not_cancelled() -> None:
    jobs = RunningJobs()
    scope = CancelScope(float("inf"))

    with jobs.job("a", scope):
        pass
    jobs.cancel("a")

    assert not scope.is_over
