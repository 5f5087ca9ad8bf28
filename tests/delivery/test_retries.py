"""A job that was submitted with retries runs again after a failure that may pass, and says how often it ran."""

from __future__ import annotations

import json
import signal
import threading
from itertools import count

import pytest

from producer import Client, InvalidJob, JobCancelled, JobFailed
from producer.contract.names import queue_name
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.eventually import eventually
from tests.fetch.servers import Exchange, ScriptedServer
from tests.jobs.test_messages import headers, message
from tests.valkey_server import ValkeyServer
from worker.jobs.retrying import LONGEST_PAUSE_S, pause_s

LABELS = ["owl", "car"]
TIMEOUT_S = 60
#: Short enough for a test, and long enough for the test to observe that the job waits.
QUICK = {"NULL_RETRY_PAUSE_S": "0.2"}
SLOW = {"NULL_RETRY_PAUSE_S": "600"}


class Ailing(ScriptedServer):
    """Answers 503 to the first `failures` requests of each path, and a picture after them."""

    def __init__(self, picture: bytes, failures: int) -> None:
        super().__init__(self._answer)
        self._picture = picture
        self._failures = failures
        self._asked: dict[str, count[int]] = {}

    def _answer(self, exchange: Exchange) -> None:
        number = next(self._asked.setdefault(exchange.path, count()))
        if number < self._failures:
            exchange.answer(b"", "503 Busy", ["Retry-After: 3600"])  # so that an attempt has one download
        else:
            exchange.answer(self._picture)


def allow(server: ScriptedServer) -> dict[str, str]:
    return {"NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{server.port}"}


@pytest.fixture
def picture(origin: Origin) -> bytes:
    return origin.pages["/owl.png"][1]


def test_a_job_with_retries_succeeds_after_passing_failures(
    client: Client, start_worker: StartWorker, picture: bytes
) -> None:
    with Ailing(picture, failures=2) as server:
        start_worker("a", **allow(server), **QUICK)
        retried = client.submit(server.url("/a.png"), LABELS, retries=3)
        plain = client.submit(server.url("/b.png"), LABELS)
        assert retried.result(timeout=TIMEOUT_S).attempts == 3
        with pytest.raises(JobFailed, match=r"^http_status: [^.]*503[^.]*\.$"):
            plain.result(timeout=TIMEOUT_S)


def test_the_failure_after_the_last_retry_says_how_often_the_job_ran(
    client: Client, start_worker: StartWorker, picture: bytes
) -> None:
    with Ailing(picture, failures=99) as server:
        start_worker("a", **allow(server), **QUICK)
        with pytest.raises(JobFailed, match=r"503.* Workers tried 3 times\.$") as failure:
            client.submit(server.url(), LABELS, retries=2).result(timeout=TIMEOUT_S)
        assert (failure.value.code, failure.value.retryable) == ("http_status", True)


def test_a_failure_that_is_not_retryable_is_the_answer_at_once(client: Client, start_worker: StartWorker) -> None:
    with ScriptedServer(lambda exchange: exchange.answer(b"no picture")) as server:
        start_worker("a", **allow(server), **SLOW)
        with pytest.raises(JobFailed) as failure:
            client.submit(server.url(), LABELS, retries=10).result(timeout=TIMEOUT_S)
        assert failure.value.code == "unsupported_format"


def test_no_attempt_begins_after_the_job_expires(client: Client, start_worker: StartWorker, picture: bytes) -> None:
    with Ailing(picture, failures=99) as server:
        start_worker("a", **allow(server), **SLOW)
        with pytest.raises(JobFailed) as failure:
            client.submit(server.url(), LABELS, retries=10, expires_in=30).result(timeout=TIMEOUT_S)
        assert failure.value.code == "http_status"


def test_between_attempts_a_job_is_queued_and_can_be_cancelled(
    client: Client, start_worker: StartWorker, picture: bytes
) -> None:
    with Ailing(picture, failures=99) as server:
        worker = start_worker("a", **allow(server), **SLOW)
        job = client.submit(server.url(), LABELS, retries=1)
        eventually(lambda: "runs again in" in worker.log, lambda: worker.log)
        assert job.status() == "queued"
        assert client.backlog().postponed == 1
        assert job.cancel()
        with pytest.raises(JobCancelled):
            job.result(timeout=TIMEOUT_S)


def test_attempts_are_counted_across_workers_and_a_worker_s_death_does_not_count(
    client: Client, start_worker: StartWorker, picture: bytes
) -> None:
    second = threading.Event()
    number = count(1)

    def script(exchange: Exchange) -> None:
        request = next(number)
        if request == 2:
            second.set()
            exchange.stall()
        elif request == 4:
            exchange.answer(picture)
        else:
            exchange.answer(b"", "503 Busy", ["Retry-After: 3600"])

    with ScriptedServer(script) as server:
        worker = start_worker("a", **allow(server), **QUICK)
        job = client.submit(server.url(), LABELS, retries=5)
        assert second.wait(TIMEOUT_S)
        worker.stop(signal.SIGKILL)
        start_worker("b", **allow(server), **QUICK)
        assert job.result(timeout=TIMEOUT_S).attempts == 3


def test_a_plain_celery_client_sets_retries_with_a_header_and_sees_celery_s_retry_state(
    own_valkey: ValkeyServer, start_worker: StartWorker, picture: bytes
) -> None:
    with Ailing(picture, failures=1) as server:
        worker = start_worker("a", **allow(server), **SLOW)
        body = [[], {"image": server.url(), "candidate_labels": LABELS}, {}]
        sent = message(headers(id="plain", nameshot_retries=1), body)
        own_valkey.connect().lpush(queue_name("nameshot", "default"), sent)
        eventually(lambda: "runs again in" in worker.log, lambda: worker.log)
        stored = json.loads(own_valkey.connect(1).get("celery-task-meta-plain") or "null")
        assert (stored["status"], stored["result"]["exc_type"]) == ("RETRY", "JobFailed")


@pytest.mark.parametrize("retries", [-1, 11, True, 1.0, "3", None, 10**30])
def test_a_client_refuses_an_impossible_number_of_retries(client: Client, retries: object) -> None:
    with pytest.raises(InvalidJob, match=r"^retries must be "):
        client.submit("https://example.com/a.png", LABELS, retries=retries)  # type: ignore[arg-type]  # on purpose


def test_a_message_with_an_impossible_number_of_retries_is_answered(
    own_valkey: ValkeyServer, client: Client, start_worker: StartWorker
) -> None:
    worker = start_worker("a")
    strange = {f"strange-{number}": retries for number, retries in enumerate((-1, 11, True, 1.0, "3", [1]))}
    for job_id, retries in strange.items():
        own_valkey.connect().lpush(
            queue_name("nameshot", "default"), message(headers(id=job_id, nameshot_retries=retries))
        )
    jobs = [client.job(job_id) for job_id in strange]
    eventually(lambda: {job.status() for job in jobs} == {"failed"}, lambda: worker.log)
    for job in jobs:
        with pytest.raises(JobFailed, match=r"invalid_job.*nameshot_retries is not an integer from 0 to 10"):
            job.result(timeout=TIMEOUT_S)


def test_pauses_double_and_end_at_ten_minutes() -> None:
    for failed, expected_s in enumerate((5, 10, 20, 40, 80, 160, 320, 600, 600, 600), 1):
        assert 0.79 * expected_s < pause_s(failed) < 1.21 * expected_s
    assert pause_s(1_000) < 1.21 * LONGEST_PAUSE_S


def test_without_retries_a_message_is_that_of_earlier_versions(client: Client, own_valkey: ValkeyServer) -> None:
    client.submit("https://example.com/a.png", LABELS)
    (raw,) = own_valkey.connect().lrange(queue_name("nameshot", "default"), 0, -1)
    assert "nameshot_retries" not in str(raw)
