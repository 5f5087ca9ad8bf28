"""Clients read answers, in every state and with every error, and cancel jobs."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from producer import (
    Client,
    InvalidJob,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    ResultTimeout,
    Score,
)
from tests.client.stock_worker import StockWorker, result_for
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]


def test_a_job_is_queued_then_running_then_succeeded(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS)
    states = [job.status()]
    worker.take()
    worker.start(job.id)
    states.append(job.status())
    worker.succeed(job.id, result_for(LABELS))
    states.append(job.status())

    assert states == ["queued", "running", "succeeded"]


def test_a_stored_result_is_read_at_once(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS)
    worker.succeed(job.id, result_for(LABELS))

    result = job.result(timeout=0)

    assert result.ranking == [Score("fox", 1.0), Score("owl", 0.5)]
    assert result.image.format == "JPEG"


def test_a_result_that_comes_later_wakes_the_waiting_client(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS)
    with worker.serving("default", lambda kwargs: result_for(kwargs["candidate_labels"])):
        assert job.result(timeout=10).best.label == "fox"


def test_classify_submits_and_waits(client: Client, worker: StockWorker) -> None:
    with worker.serving("default", lambda kwargs: result_for(kwargs["candidate_labels"])):
        assert client.classify(URL, LABELS, timeout=10).best == Score("fox", 1.0)


def test_the_start_of_a_job_does_not_end_the_wait(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS)
    starting = threading.Timer(0.1, worker.start, [job.id])
    starting.start()

    with pytest.raises(ResultTimeout):
        job.result(timeout=0.5)

    starting.join()
    assert job.status() == "running"


def test_a_timeout_names_the_job_and_does_not_cancel_it(client: Client) -> None:
    job = client.submit(URL, LABELS, job_id="order-17")

    with pytest.raises(ResultTimeout, match=r"job order-17 had no answer within 0\.05 s"):
        job.result(timeout=0.05)

    assert job.status() == "queued"


def test_a_failure_is_raised_with_its_code(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS)
    worker.fail(job.id, JobFailed("http_status", "the server answered 503.", True))

    with pytest.raises(JobFailed, match="http_status: the server answered 503") as failure:
        job.result(timeout=1)

    assert (failure.value.code, failure.value.retryable) == ("http_status", True)
    assert job.status() == "failed"


def test_an_expired_job_says_so(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS, expires_in=60)
    worker.expire(job.id)

    with pytest.raises(JobExpired):
        job.result(timeout=1)

    assert job.status() == "expired"


def test_a_job_revoked_with_celerys_tools_is_cancelled(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS)
    worker.revoke(job.id)

    with pytest.raises(JobCancelled):
        job.result(timeout=1)


def test_a_client_does_not_wait_for_an_unknown_id(client: Client) -> None:
    job = client.job("never-sent")

    assert job.status() == "unknown"
    with pytest.raises(JobNotFound, match="never-sent"):
        job.result(timeout=60)
    with pytest.raises(JobNotFound):
        job.cancel()


def test_a_malformed_job_id_is_refused(client: Client) -> None:
    with pytest.raises(InvalidJob):
        client.job("../order")


def test_the_answer_of_a_plain_celery_clients_job_is_read_too(client: Client, worker: StockWorker) -> None:
    worker.succeed("theirs", result_for(LABELS))

    assert client.job("theirs").result(timeout=1).best.label == "fox"


def test_answer_returns_the_error_that_result_would_raise(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS)
    worker.fail(job.id, JobFailed("empty", "the body has no bytes."))

    answer = job.answer(timeout=1)

    assert answer.state == "failed"
    assert isinstance(answer.error, JobFailed)


def test_a_bulk_message_has_no_single_result(client: Client, worker: StockWorker) -> None:
    worker.succeed("bulk-1", {"outcomes": []})

    with pytest.raises(InvalidJob, match="bulk-1 is a bulk message"):
        client.job("bulk-1").result(timeout=1)


def test_cancelling_a_queued_job_answers_it(client: Client) -> None:
    job = client.submit(URL, LABELS)

    assert job.cancel() is True
    assert job.status() == "cancelled"
    with pytest.raises(JobCancelled):
        job.result(timeout=1)


def test_cancelling_wakes_the_waiting_client(client: Client) -> None:
    job = client.submit(URL, LABELS)
    cancelling = threading.Timer(0.2, job.cancel)
    cancelling.start()

    with pytest.raises(JobCancelled):
        job.result(timeout=10)

    cancelling.join()


def test_cancelling_is_announced_to_running_workers(client: Client, valkey: ValkeyServer) -> None:
    job = client.submit(URL, LABELS)
    with valkey.connect() as connection, connection.pubsub(ignore_subscribe_messages=True) as announcements:
        announcements.subscribe("nameshot:cancelled")
        announcements.get_message(timeout=1)  # the confirmation
        job.cancel()

        heard = announcements.get_message(timeout=5)

    assert heard is not None
    assert heard["data"] == job.id.encode()


def test_cancelling_a_job_that_has_an_answer_changes_nothing(client: Client, worker: StockWorker) -> None:
    finished, cancelled = client.submit_many([(URL, LABELS)] * 2)
    worker.succeed(finished.id, result_for(LABELS))
    cancelled.cancel()

    assert finished.cancel() is False
    assert cancelled.cancel() is False
    assert finished.result(timeout=1).best.label == "fox"


def test_the_claim_of_a_cancelled_job_lives_as_long_as_its_answer(client: Client, valkey: ValkeyServer) -> None:
    client.submit(URL, LABELS, job_id="order-17").cancel()

    with valkey.connect() as broker, valkey.connect(1) as results:
        assert broker.ttl("nameshot:claim:order-17") == pytest.approx(86_400, abs=5)
        assert results.ttl("celery-task-meta-order-17") == pytest.approx(86_400, abs=5)


def test_celery_reads_a_cancelled_job_as_revoked(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS)
    job.cancel()

    theirs = worker.app.AsyncResult(job.id)

    assert theirs.state == "REVOKED"
    assert theirs.result.args == ("cancelled",)


@pytest.mark.parametrize("payload", ['["not", "a", "meta"]', pytest.param("[" * 100_000, id="too deep")])
def test_an_announcement_that_celery_could_not_have_written_fails_only_the_wait_for_its_job(
    payload: str, client: Client, worker: StockWorker, valkey: ValkeyServer
) -> None:
    strange, good = client.submit_many([(URL, LABELS)] * 2)

    def publish() -> None:
        key = f"celery-task-meta-{strange.id}"
        with valkey.connect(1) as connection:
            while not connection.publish(key, payload):
                time.sleep(0.01)
        worker.succeed(good.id, result_for(LABELS))

    patient = client._listener.wait(good.id)
    publishing = threading.Thread(target=publish)
    publishing.start()
    with pytest.raises(JobFailed, match="no worker wrote it"):
        strange.result(timeout=10)

    assert patient.result(timeout=10).state == "succeeded"
    publishing.join()


@pytest.mark.parametrize(
    "entry",
    ["", "nonsense", "[" * 100_000, '["x"]', "{}", '{"status": "SUCCESS"}', '{"status": "FAILURE", "result": 7}'],
)
def test_an_answer_that_no_worker_wrote_fails_only_the_wait_for_its_job(
    entry: str, client: Client, worker: StockWorker, valkey: ValkeyServer
) -> None:
    spoilt, good = client.submit_many([(URL, LABELS)] * 2)
    with valkey.connect(1) as results:
        results.set(f"celery-task-meta-{spoilt.id}", entry)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(job.answer, 10) for job in (spoilt, good)]
        answer = waiting[0].result()
        worker.succeed(good.id, result_for(LABELS))

        assert waiting[1].result().result().best.label == "fox"
    assert (answer.state, spoilt.status()) == ("failed", "failed")
    with pytest.raises(JobFailed, match="no worker wrote it"):
        spoilt.result()
