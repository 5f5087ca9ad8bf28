"""API keys: who may do what, to which jobs, and how often."""

import time
from pathlib import Path

import pytest

from producer import Client
from tests.client.stock_worker import StockWorker, result_for
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from tests.web.keyring import Keys
from tests.web.serving import IMAGE, JOB, LABELS, serving


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")


def test_without_a_valid_key_nothing_is_done(valkey: ValkeyServer, tmp_path: Path, keys: Keys) -> None:
    good = keys.add("good")["Authorization"]
    kid, secret = good.split("_", 2)[1:]
    wrong = [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Bearer nsk_{'0' * 8}_{secret}"},
        {"Authorization": f"Bearer nsk_{kid}_{'x' * 43}"},
        {"Authorization": good.replace("Bearer", "Basic")},
        {"Authorization": f"{good}x"},
        {"Authorization": "Bearer nsk_\u00e9"},
    ]
    with serving(valkey, tmp_path / "log", NAMESHOT_WEB_KEYS_FILE=str(keys.file)) as server:
        for headers in wrong:
            sent = {name: value.encode() for name, value in headers.items()}
            for refused in (
                server.post("/v1/jobs", JOB, headers=sent),
                server.get("/v1/jobs/some", headers=sent),
                server.get("/v1/queues", headers=sent),
            ):
                assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
                assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert server.get("/v1/info").json()["auth"] == "key"
        assert server.submit(headers={"Authorization": good})
        assert server.get("/v1/queues", headers={"Authorization": good.replace("Bearer", "bearer")}).status_code == 200
    with valkey.connect() as broker:
        assert broker.llen("nameshot.default") == 1


def test_keys_are_exchanged_while_the_server_runs(valkey: ValkeyServer, tmp_path: Path, keys: Keys) -> None:
    old = keys.add("old")
    with serving(valkey, tmp_path / "log", NAMESHOT_WEB_KEYS_FILE=str(keys.file)) as server:
        assert server.get("/v1/queues", headers=old).status_code == 200
        new = keys.add("new")
        keys.remove(old)
        changed_s = time.monotonic()

        eventually(lambda: server.get("/v1/queues", headers=new).status_code == 200)
        assert time.monotonic() - changed_s < 50  # 5 s, with room for a busy machine
        assert server.get("/v1/queues", headers=old).status_code == 401

        keys.file.write_text("nonsense")
        eventually(lambda: "The keys stay as they were" in (tmp_path / "log").read_text() or _ask(server, new))
        assert server.get("/v1/queues", headers=new).status_code == 200
    assert "nonsense" not in (tmp_path / "log").read_text()


def _ask(server: object, headers: dict[str, str]) -> bool:
    server.get("/v1/queues", headers=headers)  # type: ignore[attr-defined]  # a Server; asking has the file read
    return False


def test_a_job_of_another_key_is_as_one_that_does_not_exist(
    valkey: ValkeyServer, tmp_path: Path, keys: Keys, worker: StockWorker
) -> None:
    mine, yours = keys.add("mine"), keys.add("yours")
    with serving(valkey, tmp_path / "log", NAMESHOT_WEB_KEYS_FILE=str(keys.file)) as server:
        job_id = server.submit(headers=mine)
        worker.take()
        worker.succeed(job_id, result_for(LABELS))
        with Client(valkey.broker_url, valkey.result_backend) as client:
            pythons = client.submit(IMAGE, LABELS).id

        for foreign in (job_id, pythons, "never-sent"):
            assert server.get(f"/v1/jobs/{foreign}", headers=yours).json()["code"] == "job_not_found"
            assert server.post(f"/v1/jobs/{foreign}/cancel", headers=yours).status_code == 404
            assert server.delete(f"/v1/jobs/{foreign}", headers=yours).status_code == 404
        listed = server.get("/v1/jobs", params={"id": [job_id, pythons]}, headers=yours).json()
        assert listed == {"jobs": [], "missing": [job_id, pythons]}

        assert server.get(f"/v1/jobs/{job_id}", headers=mine).json()["status"] == "succeeded"
        assert server.delete(f"/v1/jobs/{job_id}", headers=mine).status_code == 204
        assert server.get(f"/v1/jobs/{job_id}", headers=mine).status_code == 410
        assert server.get(f"/v1/jobs/{job_id}", headers=yours).status_code == 404


def test_a_queue_needs_the_right_to_it(valkey: ValkeyServer, tmp_path: Path, keys: Keys) -> None:
    plain, urgent = keys.add("plain"), keys.add("urgent", queues=["high"])
    with serving(valkey, tmp_path / "log", NAMESHOT_WEB_KEYS_FILE=str(keys.file)) as server:
        for headers, queue, status in ((plain, "high", 403), (urgent, "default", 403), (urgent, "high", 202)):
            assert server.post("/v1/jobs", {**JOB, "queue": queue}, headers=headers).status_code == status
    with valkey.connect() as broker:
        assert [broker.llen(f"nameshot.{queue}") for queue in ("high", "default", "bulk")] == [1, 0, 0]


def test_a_key_that_sends_too_many_requests_is_told_when_to_come_back(
    valkey: ValkeyServer, tmp_path: Path, keys: Keys
) -> None:
    limited = keys.add("limited", rate="5/600")
    other = keys.add("other")
    with serving(valkey, tmp_path / "log", NAMESHOT_WEB_KEYS_FILE=str(keys.file)) as server:
        answers = [server.post("/v1/jobs", JOB, headers=limited) for _ in range(7)]

        assert [answer.status_code for answer in answers] == 5 * [202] + 2 * [429]
        assert all(answer.headers["RateLimit-Policy"] == '"requests";q=5;w=600' for answer in answers)
        assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == [
            *("r=4", "r=3", "r=2", "r=1", "r=0", "r=0", "r=0")
        ]
        problem = answers[-1].json()
        assert problem["code"] == "rate_limited"
        assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
        assert problem["violated-policies"] == ["requests"]
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 1200
        assert "RateLimit" not in server.post("/v1/jobs", JOB, headers=other).headers


def test_to_ask_for_a_job_costs_a_tenth(valkey: ValkeyServer, tmp_path: Path) -> None:
    with serving(valkey, tmp_path / "log", NAMESHOT_WEB_RATE="3/600") as server:
        job_id = server.submit()
        statuses = [server.get(f"/v1/jobs/{job_id}").status_code for _ in range(21)]

    assert statuses == 20 * [200] + [429]


def test_a_key_may_have_only_so_many_unanswered_jobs(valkey: ValkeyServer, tmp_path: Path, worker: StockWorker) -> None:
    with serving(valkey, tmp_path / "log", NAMESHOT_WEB_MAX_WAITING="3") as server:
        jobs = [server.submit(headers={"Idempotency-Key": str(number)}) for number in range(3)]
        full = server.post("/v1/jobs", JOB)

        assert (full.status_code, full.json()["code"], full.headers["Retry-After"]) == (429, "quota_exceeded", "5")
        assert server.submit(headers={"Idempotency-Key": "2"}) == jobs[2]
        worker.take()
        worker.succeed(jobs[0], result_for(LABELS))
        server.submit()
        assert server.post("/v1/jobs", JOB).status_code == 429
        server.post(f"/v1/jobs/{jobs[1]}/cancel")
        server.submit()
    with valkey.connect(1) as results:
        assert results.zcard("nameshot:open:open") == 3
