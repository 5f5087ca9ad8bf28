"""How a worker process hears that a job was cancelled."""

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
    """Publish until somebody listens."""
    with valkey.connect() as client:
        for _ in range(TIMEOUT_S * 20):
            if client.publish(CHANNEL, job_id):
                return
            threading.Event().wait(0.05)
    pytest.fail("nobody listens")


def test_an_id_is_heard(valkey: ValkeyServer, heard: "SimpleQueue[str]") -> None:
    announce(valkey, "a")

    assert heard.get(timeout=TIMEOUT_S) == "a"


def test_a_listener_whose_connection_was_lost_connects_again(valkey: ValkeyServer, heard: "SimpleQueue[str]") -> None:
    announce(valkey, "a")
    assert heard.get(timeout=TIMEOUT_S) == "a"

    with valkey.connect() as client:
        assert client.client_kill_filter(_type="pubsub") == 1
        # For a moment Valkey counts the connection that it has cut among those who listen.
        eventually(lambda: client.publish(CHANNEL, "b") and not heard.empty())

    assert heard.get() == "b"


def test_only_the_jobs_of_that_id_are_cancelled() -> None:
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
