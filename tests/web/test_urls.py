"""Every address in a response leads somewhere, also behind a proxy that removes a path."""

from pathlib import Path

import requests

from tests.client.stock_worker import StockWorker, result_for
from tests.valkey_server import ValkeyServer
from tests.web.prefix_proxy import PREFIX, proxying
from tests.web.serving import JOB, LABELS, Server, serving


def follow(origin: str, prefix: str, worker: StockWorker) -> None:
    accepted = requests.post(f"{origin}{prefix}/v1/jobs", json=JOB, timeout=60)
    job = accepted.json()
    worker.take()
    worker.succeed(job["id"], result_for(LABELS))

    assert all(url.startswith(f"{prefix}/v1/") for url in job["urls"].values())
    assert requests.get(origin + accepted.headers["Location"], timeout=60).json()["id"] == job["id"]
    assert requests.get(origin + job["urls"]["self"], timeout=60).status_code == 200
    assert requests.get(origin + job["urls"]["events"], timeout=60).status_code == 200
    assert requests.post(origin + job["urls"]["cancel"], timeout=60).status_code == 200
    problem = requests.get(f"{origin}{prefix}/v1/jobs/never-sent", timeout=60).json()
    assert problem["type"].startswith(f"{prefix}/errors/")
    page = requests.get(origin + problem["type"], headers={"Accept": "text/html"}, timeout=60)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_every_address_leads_somewhere(server: Server, worker: StockWorker) -> None:
    follow(server.url, "", worker)


def test_every_address_leads_somewhere_behind_a_proxy(
    valkey: ValkeyServer, tmp_path: Path, worker: StockWorker
) -> None:
    with (
        serving(valkey, tmp_path / "log", NAMESHOT_WEB_ROOT_PATH=PREFIX) as server,
        proxying(server.url) as origin,
    ):
        follow(origin, PREFIX, worker)
