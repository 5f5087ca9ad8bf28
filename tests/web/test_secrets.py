"""No secret of a request is in any response, log or metric, whatever is refused or fails."""

from pathlib import Path

import requests

from producer.errors import JobFailed
from tests.client.stock_worker import StockWorker
from tests.valkey_server import ValkeyServer
from tests.web.keyring import Keys
from tests.web.serving import JOB, serving

CANARY = "canary-5f1d"


def test_no_secret_of_a_request_is_repeated_anywhere(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    key = keys.add("mine", rate="30/3600", max_waiting=3)
    log = tmp_path / "log"
    secret = {
        "Idempotency-Key": CANARY,
        "Cookie": CANARY,
        "X-Forwarded-For": CANARY,
        "Referer": f"http://{CANARY}.example",
        "User-Agent": CANARY,
        "If-None-Match": CANARY,
        "Prefer": CANARY,
        **key,
    }
    urls = [
        f"http://images.example/owl.jpg?signature={CANARY}",
        f"ftp://{CANARY}.example",
        f"http://{CANARY}@images.example/a",
        f"http://images.example/{CANARY} b",
        f"http://images.example/{CANARY}?{'x' * 9000}",
    ]
    settings = {"NAMESHOT_WEB_KEYS_FILE": str(keys.file), "NAMESHOT_LOG_LEVEL": "DEBUG", "NAMESHOT_MAX_QUEUE": "2"}
    texts: list[str] = []
    worker = StockWorker(own_valkey)
    with serving(own_valkey, log, **settings) as server:

        def keep(*answers: requests.Response) -> None:
            texts.extend(f"{answer.status_code} {answer.headers} {answer.text}" for answer in answers)

        for url in urls:
            keep(server.post("/v1/jobs", {**JOB, "image": url}, headers=secret))
        keep(server.post("/v1/jobs", {**JOB, "image": urls[0], "top_k": 1}, headers=secret))
        keep(server.post("/v1/jobs", {**JOB, "queue": CANARY}, headers=key))
        keep(server.post("/v1/jobs", {**JOB, "queue": "high", "image": urls[0]}, headers=key))
        keep(
            server.send(
                "POST", "/v1/jobs", f'{{"image": "{urls[0]}"'.encode(), {**key, "Content-Type": "application/json"}
            )
        )
        keep(server.send("POST", "/v1/jobs", urls[0].encode(), {**key, "Content-Type": CANARY}))
        keep(server.post("/v1/jobs", {**JOB, "image": urls[0]}, headers={"Authorization": f"Bearer {CANARY}"}))
        keep(server.post("/v1/jobs", JOB, headers={**key, "Idempotency-Key": f"{CANARY} \x7f"}))
        keep(server.get(f"/{CANARY}", headers=key), server.get(f"/v1/jobs/{CANARY}", headers=key))
        keep(server.get("/v1/jobs", params={"id": 101 * [CANARY]}, headers=key))
        keep(server.get("/v1/info", headers={"Host": f"{CANARY}.example"}))
        keep(server.post("/v1/jobs", JOB, headers={**key, "Origin": f"https://{CANARY}.example"}))
        job_id = str(worker.take().headers["id"])
        worker.fail(job_id, JobFailed("http_status"))
        keep(server.get(f"/v1/jobs/{job_id}", headers=key), server.delete(f"/v1/jobs/{job_id}", headers=key))
        for number in range(4):
            more = {**key, "Idempotency-Key": f"{CANARY}-{number}"}
            keep(server.post("/v1/jobs", {**JOB, "image": urls[0]}, headers=more))
        keep(*(server.get("/v1/queues", headers=key) for _ in range(20)))
        keep(server.get("/metrics"))
        worker.close()
        own_valkey.stop()
        keep(server.post("/v1/jobs", {**JOB, "image": urls[0]}, headers=key), server.get("/readyz"))

    seen = {text.split(" ")[0] for text in texts}
    assert {"202", "401", "403", "400", "404", "415", "421", "422", "429", "503", "204"} <= seen
    bearer = key["Authorization"].split("_")[2]
    for text in [*texts, log.read_text()]:
        assert CANARY not in text.replace(f"/v1/jobs/{CANARY}", "")
        assert bearer not in text
