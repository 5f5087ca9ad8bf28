"""`Prefer: wait`, ETags, and states that never fall."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.client.stock_worker import StockWorker, result_for
from tests.client.test_aio import subscriptions
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from tests.web.serving import JOB, LABELS, Server, serving


def prefer(value: str) -> dict[str, str]:
    return {"Prefer": value}


def test_a_request_that_waits_gets_the_answer(server: Server, worker: StockWorker) -> None:
    with worker.serving("default", lambda kwargs: result_for(kwargs["candidate_labels"])):
        answered = server.post("/v1/jobs", JOB, headers=prefer("wait=20"))

    assert (answered.status_code, answered.json()["status"]) == (200, "succeeded")
    assert answered.headers["Preference-Applied"] == "wait=20"
    assert "Retry-After" not in answered.headers


def test_without_a_worker_a_request_waits_as_long_as_it_says(server: Server) -> None:
    began_s = time.monotonic()
    accepted = server.post("/v1/jobs", JOB, headers=prefer("wait=1"))

    assert (accepted.status_code, accepted.json()["status"]) == (202, "queued")
    assert 1 <= time.monotonic() - began_s < 10
    got = server.get(accepted.headers["Location"], headers=prefer("foo, wait=1; bar"))
    assert (got.status_code, got.headers["Preference-Applied"]) == (200, "wait=1")


@pytest.mark.parametrize(
    ("preference", "applied"),
    [
        ("respond-async, wait=20", "respond-async"),
        ("wait=20, Respond-Async", "respond-async"),
        ("wait=0", "wait=0"),
        ("wait=x", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("return=minimal", None),
    ],
)
def test_what_asks_for_no_wait_is_answered_at_once(server: Server, preference: str, applied: str | None) -> None:
    accepted = server.post("/v1/jobs", JOB, headers=prefer(preference))

    assert accepted.status_code == 202
    assert accepted.headers.get("Preference-Applied") == applied
    assert accepted.elapsed.total_seconds() < 10


def test_a_wait_is_cut_to_what_gateways_endure(server: Server, worker: StockWorker) -> None:
    job_id = server.submit()
    worker.take()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(server.get, f"/v1/jobs/{job_id}", headers=prefer("wait=999"))
        worker.succeed(job_id, result_for(LABELS))

        assert waiting.result().headers["Preference-Applied"] == "wait=25"
        assert waiting.result().json()["status"] == "succeeded"


def test_callers_who_hang_up_leave_no_subscription_and_cancel_nothing(server: Server, valkey: ValkeyServer) -> None:
    async def hang_up() -> list[str]:
        async with httpx2.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
            made = [(await client.post("/v1/jobs", json=JOB)).json()["id"] for _ in range(20)]
            waits = [
                asyncio.create_task(client.get(f"/v1/jobs/{job_id}", headers=prefer("wait=25"))) for job_id in made
            ]
            await asyncio.to_thread(eventually, lambda: subscriptions(valkey) == 20)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            return made

    made = asyncio.run(hang_up())

    eventually(lambda: subscriptions(valkey) == 0)
    assert {server.get(f"/v1/jobs/{job_id}").json()["status"] for job_id in made} == {"queued"}


def test_those_who_wait_when_the_server_ends_are_answered_at_once(
    valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("ending") / "log"
    for processes in ("1", "2"):
        with serving(valkey, log, "--processes", processes) as server, ThreadPoolExecutor(10) as threads:
            waits = [threads.submit(server.post, "/v1/jobs", JOB, headers=prefer("wait=25")) for _ in range(10)]
            eventually(lambda: subscriptions(valkey) >= 10)
            began_s = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began_s < 20
            assert {wait.result().status_code for wait in waits} == {202}
        assert "ERROR" not in log.read_text()
        eventually(lambda: subscriptions(valkey) == 0)


def test_a_state_that_the_caller_has_is_not_sent_again(server: Server, worker: StockWorker) -> None:
    job_id = server.submit()
    path = f"/v1/jobs/{job_id}"
    seen = []
    for move in (
        lambda: worker.take(),
        lambda: worker.start(job_id),
        lambda: worker.succeed(job_id, result_for(LABELS)),
    ):
        etag = server.get(path).headers["ETag"]
        again = server.get(path, headers={"If-None-Match": f'"other", W/{etag}'})
        assert (again.status_code, again.text, again.headers["ETag"]) == (304, "", etag)
        seen.append(etag)
        move()
    last = server.get(path, headers={"If-None-Match": seen[-1]})

    assert seen[:2] == [f'"{job_id}.1"', f'"{job_id}.1"']
    assert (last.status_code, last.headers["ETag"]) == (200, f'"{job_id}.3"')


def test_a_job_that_is_asked_for_all_the_time_is_never_absent_and_its_states_never_fall(
    server: Server, worker: StockWorker
) -> None:
    order = {"queued": 1, "running": 2, "succeeded": 3}
    jobs = [server.submit() for _ in range(100)]
    ended = threading.Event()
    seen: list[list[int]] = [[] for _ in jobs]

    def watch(part: int) -> None:
        with httpx2.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            while True:
                is_last = ended.is_set()
                for number in range(part, len(jobs), 2):
                    answer = client.get(f"/v1/jobs/{jobs[number]}")
                    assert answer.status_code == 200, answer.text
                    seen[number].append(order[answer.json()["status"]])
                if is_last:
                    return

    with ThreadPoolExecutor(2) as threads:
        watches = [threads.submit(watch, part) for part in range(2)]
        for job_id in jobs:
            worker.take()
            worker.start(job_id)
            worker.succeed(job_id, result_for(LABELS))
        ended.set()
        for each in watches:
            each.result()

    assert all(states == sorted(states) and states[-1] == 3 for states in seen)
