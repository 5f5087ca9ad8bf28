"""The life of a job over HTTP, from its submission to its answer."""

from datetime import datetime

import pytest

from producer.errors import ERROR_CODES, JobFailed
from tests.client.stock_worker import StockWorker, result_for
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from tests.web.serving import JOB, LABELS, Server


def test_a_job_is_accepted_queued_run_and_answered(server: Server, worker: StockWorker) -> None:
    accepted = server.post("/v1/jobs", JOB)

    assert accepted.status_code == 202
    job = accepted.json()
    assert accepted.headers["Location"] == job["urls"]["self"]
    assert accepted.headers["Retry-After"] == "1"
    assert (job["status"], job["queue"], job["position"]) == ("queued", "default", 0)
    assert job["created_at"].endswith("Z")
    assert job["result"] is job["error"] is job["kept_until"] is None

    worker.take()
    worker.start(job["id"])
    running = server.get(job["urls"]["self"])
    assert (running.status_code, running.json()["status"], running.headers["Retry-After"]) == (200, "running", "1")

    worker.succeed(job["id"], result_for(LABELS))
    answered = server.get(job["urls"]["self"])
    assert answered.status_code == 200
    assert "Retry-After" not in answered.headers
    assert answered.json()["status"] == "succeeded"
    assert [score["label"] for score in answered.json()["result"]["ranking"]] == LABELS
    assert datetime.fromisoformat(answered.json()["kept_until"]) > datetime.fromisoformat(
        answered.json()["finished_at"]
    )


@pytest.mark.parametrize("code", ERROR_CODES)
def test_a_failed_job_is_no_http_error_and_says_what_to_do(server: Server, worker: StockWorker, code: str) -> None:
    job_id = server.submit()
    worker.take()
    worker.fail(job_id, JobFailed(code))

    failed = server.get(f"/v1/jobs/{job_id}")

    assert failed.status_code == 200
    assert failed.json()["status"] == "failed"
    assert failed.json()["error"] == {
        "code": code,
        "message": ERROR_CODES[code].sentence,
        "retryable": ERROR_CODES[code].retryable,
        "action": ERROR_CODES[code].advice.replace("`", ""),
    }


def test_a_new_job_says_how_many_are_before_it(server: Server, worker: StockWorker) -> None:
    jobs = [server.submit() for _ in range(3)]

    assert [server.get(f"/v1/jobs/{job_id}").json()["position"] for job_id in jobs] == [0, 1, 2]

    worker.take()
    assert server.get(f"/v1/jobs/{jobs[2]}").json()["position"] == 1


def test_a_job_that_came_too_late_is_expired(server: Server, worker: StockWorker) -> None:
    job_id = server.submit(job={"expires_in": 600})
    worker.take()
    worker.expire(job_id)

    expired = server.get(f"/v1/jobs/{job_id}").json()

    assert (expired["status"], expired["result"], expired["error"]) == ("expired", None, None)
    assert expired["kept_until"] is not None


def test_a_job_that_no_worker_has_begun_in_time_is_expired_for_good(server: Server, valkey: ValkeyServer) -> None:
    job_id = server.submit(job={"expires_in": 0.1})

    eventually(lambda: server.get(f"/v1/jobs/{job_id}").json()["status"] == "expired")

    expired = server.get(f"/v1/jobs/{job_id}").json()
    assert expired["finished_at"] is not None
    with valkey.connect(1) as results:  # the answer is stored, and the record lives as long
        assert abs(int(results.ttl(f"celery-task-meta-{job_id}")) - int(results.ttl(f"nameshot:record:{job_id}"))) <= 1
    assert server.delete(f"/v1/jobs/{job_id}").status_code == 204
