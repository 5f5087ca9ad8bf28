"""A request with an Idempotency-Key may be repeated: one key is one job."""

import random
import string
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.client.stock_worker import StockWorker, result_for
from tests.valkey_server import ValkeyServer
from tests.web.keyring import Keys
from tests.web.serving import JOB, LABELS, Server, serving


def key(text: str = "order-4711") -> dict[str, str]:
    return {"Idempotency-Key": text}


def queued(valkey: ValkeyServer, queue: str = "default") -> int:
    with valkey.connect() as broker:
        return int(broker.llen(f"nameshot.{queue}"))


def test_a_hundred_equal_requests_at_once_are_one_job_and_one_message(valkey: ValkeyServer, tmp_path: Path) -> None:
    with serving(valkey, tmp_path / "log", "--processes", "2") as server, ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(lambda _: server.post("/v1/jobs", JOB, headers=key()), range(100)))
        status = server.stop()

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum(answer.headers.get("Idempotent-Replayed") == "true" for answer in answers) == 99
    assert queued(valkey) == 1
    assert status == 0


def test_a_repeated_request_gets_the_job_as_it_stands_now(server: Server, worker: StockWorker) -> None:
    first = server.post("/v1/jobs", JOB, headers=key())
    worker.take()
    worker.succeed(first.json()["id"], result_for(LABELS))

    again = server.post("/v1/jobs", {**JOB, "top_k": None, "queue": "default"}, headers=key())

    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert again.json()["status"] == "succeeded"
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    "change",
    [
        {"candidate_labels": ["owl"]},
        {"queue": "bulk"},
        {"expires_in": 60},
        {"top_k": 1},
        {"image": "http://a.example/b"},
    ],
    ids=str,
)
def test_a_key_used_with_another_body_is_refused(server: Server, valkey: ValkeyServer, change: dict[str, Any]) -> None:
    server.submit(headers=key())

    refused = server.post("/v1/jobs", {**JOB, **change}, headers=key())

    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert queued(valkey) + queued(valkey, "bulk") == 1


def test_the_same_idempotency_key_of_another_api_key_is_another_job(valkey: ValkeyServer, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    mine, yours = keys.add("mine"), keys.add("yours")
    with serving(valkey, tmp_path / "log", NAMESHOT_WEB_KEYS_FILE=str(keys.file)) as server:
        assert server.submit(headers={**key(), **mine}) != server.submit(headers={**key(), **yours})


@pytest.mark.parametrize("text", ["", "x" * 256, "with space", "\u00e9".encode().decode("latin-1")])
def test_an_idempotency_key_is_visible_ascii(server: Server, text: str) -> None:
    refused = server.post("/v1/jobs", JOB, headers=key(text))

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_idempotency_key")


def test_every_visible_character_may_be_in_an_idempotency_key(server: Server) -> None:
    text = "".join(sorted({*string.printable} - {*string.whitespace}))

    assert server.submit(headers=key(text)).startswith("k_")


def test_a_key_that_met_a_full_queue_is_free_for_any_body(valkey: ValkeyServer, tmp_path: Path) -> None:
    with serving(valkey, tmp_path / "log", NAMESHOT_MAX_QUEUE="1") as server:
        server.submit()
        full = server.post("/v1/jobs", JOB, headers=key())

        assert (full.status_code, full.json()["code"], full.headers["Retry-After"]) == (429, "queue_full", "5")
        with valkey.connect(1) as results, valkey.connect() as broker:
            assert len(results.keys("nameshot:record:*")) == 1
            broker.delete("nameshot.default")
        assert server.submit(headers=key(), job={"candidate_labels": ["owl"]}).startswith("k_")


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_request_whose_server_is_killed_is_repeated_without_a_second_job(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    """Twenty times at a random moment: the job is absent or whole, and the repeated request queues it once."""
    with serving(valkey, tmp_path / "second") as second, ThreadPoolExecutor(1) as thread:
        for number in range(20):
            with serving(valkey, tmp_path / "log") as first:
                sending = thread.submit(post_or_none, first, key(f"kill-{number}"))
                time.sleep(random.uniform(0, 0.012))  # moments spread over what a request takes
                first.kill()
                sent = sending.result()
            job_id = second.submit(headers=key(f"kill-{number}"))
            assert sent in (None, job_id)
            with valkey.connect() as broker:
                assert broker.llen("nameshot.default") == number + 1


def test_a_record_without_a_job_is_no_job_and_the_same_request_queues_it(server: Server, valkey: ValkeyServer) -> None:
    """What a server leaves that dies between both steps."""
    job_id = server.submit(headers=key())
    with valkey.connect() as broker:
        broker.flushdb()

    assert server.get(f"/v1/jobs/{job_id}").status_code == 404
    again = server.post("/v1/jobs", JOB, headers=key())
    assert (again.status_code, again.json()["id"], queued(valkey)) == (202, job_id, 1)
    assert "Idempotent-Replayed" not in again.headers


def post_or_none(server: Server, headers: dict[str, str]) -> str | None:
    try:
        job_id: str = server.post("/v1/jobs", JOB, headers=headers).json()["id"]
    except requests.ConnectionError:
        return None
    return job_id
