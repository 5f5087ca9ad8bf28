"""If a job breaks the device of a worker without an engine process, the job fails and its neighbours are answered."""

import pytest

from producer import Client, JobFailed
from tests.acceptance.origin import Origin
from tests.delivery.conftest import Supervise
from tests.delivery.null_workers import MAX_ATTEMPTS
from tests.eventually import eventually

TIMEOUT_S = 60
LABELS = ["fox", "bear"]
BREAKING = "an illegal address"


def test_a_job_that_breaks_the_device_is_poisoned_and_its_neighbours_are_answered(
    supervise: Supervise, client: Client, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NULL_BREAKING_LABEL", BREAKING)
    origin.hold.clear()
    with supervise() as workers:
        neighbours = [client.submit(origin.url("/held/owl.png"), LABELS) for _ in range(3)]
        for _ in neighbours:
            assert origin.asked.acquire(timeout=TIMEOUT_S)
        culprit = client.submit(origin.url("/car.jpg"), ["fox", BREAKING])
        eventually(lambda: workers.starts > 1, lambda: workers.log)
        origin.hold.set()

        with pytest.raises(JobFailed, match="poisoned"):
            culprit.result(timeout=TIMEOUT_S)
        for job in neighbours:
            assert job.result(timeout=TIMEOUT_S).ranking
        assert workers.starts == MAX_ATTEMPTS + 1
        assert "the device stopped answering: this worker ends" in workers.log
        assert "Traceback" not in workers.log
