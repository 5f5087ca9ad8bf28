"""Cancel and delete jobs; ask for many at once."""

import json

import pytest

from producer import Client, JobConflict, JobNotFound
from producer.contract.names import answer_key
from tests.client.stock_worker import StockWorker, result_for
from tests.delivery.hands import give_up
from tests.valkey_server import ValkeyServer
from tests.web.monitor import commands_during
from tests.web.serving import IMAGE, JOB, LABELS, Server


def test_a_queued_and_a_running_job_are_cancelled_any_number_of_times(server: Server, worker: StockWorker) -> None:
    running, queued = server.submit(), server.submit()
    worker.take()
    worker.start(running)

    for job_id in (queued, running):
        for _ in range(2):
            cancelled = server.post(f"/v1/jobs/{job_id}/cancel")
            assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
            assert cancelled.json()["kept_until"] is not None
        assert server.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"
    worker.succeed(running, result_for(LABELS))


def test_an_answer_that_stood_first_remains_when_its_job_is_cancelled(server: Server, worker: StockWorker) -> None:
    job_id = server.submit()
    worker.take()
    worker.succeed(job_id, result_for(LABELS))

    cancelled = server.post(f"/v1/jobs/{job_id}/cancel")

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "succeeded")


def test_cancelling_one_job_leaves_all_others_as_they_are(server: Server) -> None:
    jobs = [server.submit() for _ in range(33)]

    server.post(f"/v1/jobs/{jobs[7]}/cancel")

    states = [job["status"] for job in server.get("/v1/jobs", params={"id": jobs}).json()["jobs"]]
    assert states == [*7 * ["queued"], "cancelled", *25 * ["queued"]]


@pytest.mark.parametrize("path", ["/v1/jobs/never-sent/cancel", "/v1/jobs/j_0000/cancel"])
def test_an_unknown_job_cannot_be_cancelled(server: Server, path: str) -> None:
    refused = server.post(path)

    assert (refused.status_code, refused.json()["code"]) == (404, "job_not_found")


def test_a_job_without_an_answer_cannot_be_deleted(server: Server, worker: StockWorker) -> None:
    job_id = server.submit()
    queued = server.delete(f"/v1/jobs/{job_id}")
    worker.take()
    worker.start(job_id)
    running = server.delete(f"/v1/jobs/{job_id}")

    for refused in (queued, running):
        assert (refused.status_code, refused.json()["code"]) == (409, "job_not_finished")


def test_a_deleted_job_is_gone_through_every_door_and_a_late_answer_changes_nothing(
    server: Server, valkey: ValkeyServer, worker: StockWorker
) -> None:
    headers = {"Idempotency-Key": "once"}
    job_id = server.submit(headers=headers)
    path = f"/v1/jobs/{job_id}"
    worker.take()
    worker.succeed(job_id, result_for(LABELS))
    with valkey.connect(1) as results:
        kept_s = results.ttl(answer_key(job_id))
        assert server.delete(path).status_code == 204
        answer = results.get(answer_key(job_id))
        assert isinstance(answer, bytes)
        assert json.loads(answer)["result"]["exc_message"] == ["deleted"]
        assert abs(int(results.ttl(answer_key(job_id))) - int(kept_s)) <= 2
        assert b"owl" not in b"".join(results.get(key) or b"" for key in results.scan_iter("*"))

    for _ in range(2):
        assert server.get(path).json()["code"] == "job_deleted"
        assert server.get(path).status_code == 410
        assert server.delete(path).status_code == 410
        assert server.post(f"{path}/cancel").status_code == 410
        assert server.post("/v1/jobs", JOB, headers=headers).status_code == 410
        assert server.get("/v1/jobs", params={"id": job_id}).json() == {"jobs": [], "missing": [job_id]}
        with Client(valkey.broker_url, valkey.result_backend) as client:
            assert client.job(job_id).status() == "unknown"
            assert not client.forget(job_id)
            with pytest.raises(JobNotFound):
                client.cancel(job_id)
            with pytest.raises(JobNotFound):
                client.job(job_id).result(timeout=5)
            with pytest.raises(JobConflict):
                client.submit(IMAGE, ["another"], job_id=job_id)
        # A second execution, late: the answer that stands is terminal, so that of a worker of ours is not stored.
        assert not stored_by_a_worker(valkey, job_id)


def stored_by_a_worker(valkey: ValkeyServer, job_id: str) -> bool:
    from producer.contract.names import forgotten_key
    from producer.operations.answers import FIRST_ANSWER_WINS

    meta = json.dumps({"status": "SUCCESS", "result": result_for(LABELS)})
    with valkey.connect(1) as results:
        keys = (answer_key(job_id), forgotten_key(job_id))
        return int(results.eval(FIRST_ANSWER_WINS, 2, *keys, meta, 60, "", "")) > 0


def test_the_dead_letter_of_a_deleted_job_is_to_be_removed_too(
    server: Server, valkey: ValkeyServer, worker: StockWorker
) -> None:
    job_id = server.submit()
    with valkey.connect() as broker:
        give_up(broker, job_id)
        worker.fail(job_id, ValueError("poison"))
        assert server.delete(f"/v1/jobs/{job_id}").status_code == 204

        (request,) = broker.lrange("nameshot:forget", 0, -1)
        assert request.decode().split(" ")[0] == job_id
        assert request.decode().split(" ")[1]
        assert broker.get(f"nameshot:claim:{job_id}:place") is None


def test_many_jobs_come_in_the_order_asked_by_one_read_of_the_answers(
    server: Server, valkey: ValkeyServer, worker: StockWorker
) -> None:
    jobs = [server.submit() for _ in range(98)]
    for job_id in jobs[:50]:
        worker.take()
        worker.succeed(job_id, result_for(LABELS))
    asked = [*reversed(jobs), "no.id"]
    server.get("/v1/jobs", params={"id": asked})  # which gives the records the lives of their answers

    with commands_during(valkey) as commands:
        found = server.get("/v1/jobs", params={"id": asked})

    assert [job["id"] for job in found.json()["jobs"]] == asked[:98]
    assert found.json()["missing"] == ["no.id"]
    assert [command.name for command in commands if command.database == 1] == ["MGET"]
    # A job that neither waits nor is answered is looked for once more, since it may have been answered in between.
    assert server.get("/v1/jobs", params={"id": ["never-sent", jobs[0]]}).json()["missing"] == ["never-sent"]


def test_ids_that_no_job_can_have_are_missing(server: Server) -> None:
    found = server.get("/v1/jobs", params={"id": ["0.5", "a b"]})

    assert (found.status_code, found.json()) == (200, {"jobs": [], "missing": ["0.5", "a b"]})


@pytest.mark.parametrize("count", [0, 101])
def test_one_to_a_hundred_jobs_may_be_asked_for_at_once(server: Server, count: int) -> None:
    refused = server.get("/v1/jobs", params={"id": count * ["x"]})

    assert (refused.status_code, refused.json()["code"]) == (422, "too_many_ids")


def test_a_job_of_another_client_is_readable_where_no_key_is_needed(
    server: Server, valkey: ValkeyServer, worker: StockWorker
) -> None:
    with Client(valkey.broker_url, valkey.result_backend) as client:
        job = client.submit(IMAGE, LABELS)
    queued = server.get(f"/v1/jobs/{job.id}").json()
    worker.take()
    worker.succeed(job.id, result_for(LABELS))
    answered = server.get(f"/v1/jobs/{job.id}").json()

    assert (queued["status"], queued["created_at"], queued["queue"], queued["position"]) == ("queued", None, None, None)
    assert answered["result"]["ranking"][0]["label"] == "fox"
    assert answered["kept_until"] is not None


def test_a_malformed_result_fails_its_own_job_only(server: Server, worker: StockWorker) -> None:
    jobs = [server.submit() for _ in range(2)]
    worker.succeed(jobs[0], {"ranking": "none"})

    found = server.get("/v1/jobs", params={"id": jobs}).json()["jobs"]

    assert [job["status"] for job in found] == ["failed", "queued"]
    assert found[0]["error"]["code"] == "model_error"
