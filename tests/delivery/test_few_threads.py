"""If the system permits too few threads, a worker refuses to start, or works with the threads that it has."""

import os

import pytest

from producer import Client, JobFailed
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
#: The number of a worker's threads besides those for its images.
IDLE_THREADS = 18
#: Runs a command as a user without other processes; `READING` lets it read what root's tests have written.
OTHER_USER = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups")
READING = tuple(f"--{kind}-caps=+dac_read_search,+dac_override" for kind in ("inh", "ambient"))

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root starts a worker as a user without other processes")


def permitting(threads: int) -> tuple[str, ...]:
    return (*OTHER_USER, *READING, "prlimit", f"--nproc={threads}:{threads}")


def test_a_worker_refuses_to_start_with_fewer_threads_than_images_in_flight(
    start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    client.submit(origin.url("/owl.png"), LABELS)
    worker = start_worker("few", prefix=permitting(40), is_ready=False, NAMESHOT_CONCURRENCY="64")

    assert worker.process.wait(TIMEOUT_S) == os.EX_CONFIG
    assert "64 images in flight (NAMESHOT_CONCURRENCY) need as many threads" in worker.log
    assert "Traceback" not in worker.log
    assert not worker.is_ready
    assert client.queue_depths()["default"] == 1


@pytest.mark.parametrize("spare", [0, 4, 8])
def test_a_worker_that_can_start_no_more_threads_answers_its_jobs_and_ends_normally(
    spare: int, start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    """A job that needs a further thread or decoder process may fail, with the code for such a shortage."""
    settings = {"NAMESHOT_CONCURRENCY": "24", "NAMESHOT_JOB_TIMEOUT": "8", "NAMESHOT_FETCH_TIMEOUT": "5"}
    worker = start_worker("full", prefix=permitting(24 + IDLE_THREADS + spare), **settings)
    jobs = [client.submit(origin.url(f"/owl.png?{number}"), LABELS) for number in range(60)]

    for job in jobs:
        try:
            assert job.result(timeout=TIMEOUT_S).ranking
        except JobFailed as failure:
            # With most limits the job succeeds.
            assert failure.code in ("out_of_memory", "deadline_exceeded"), failure  # noqa: PT017 - the job need not fail
    assert worker.stop() == 0
    assert not worker.is_ready
    assert "Unrecoverable" not in worker.log
