"""The API before a real worker with the bundled model."""

from collections.abc import Iterator
from datetime import datetime

import pytest

from producer import Client
from producer.demo.gallery import FOLDER
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.valkey_server import ValkeyServer
from tests.web.serving import Server, serving

LABELS = ["fox", "bear", "seagull", "owl"]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    with Origin() as origin:
        origin.pages["/owl.png"] = ("image/png", (FOLDER / "owl.png").read_bytes())
        yield origin.url("/owl.png")


@pytest.fixture(scope="module")
def real_worker(
    valkey_of_this_run: ValkeyServer, tmp_path_factory: pytest.TempPathFactory, image: str
) -> Iterator[Worker]:
    """A worker that may download from the fixture's origin."""
    folder = tmp_path_factory.mktemp("real")
    port = image.split(":")[2].split("/")[0]
    settings = {
        **valkey_of_this_run.settings("worker"),
        "NAMESHOT_MODEL": "bundled",
        "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{port}",
        "NAMESHOT_METRICS_PORT": "0",
    }
    with Worker(folder, settings) as worker:
        worker.wait_until_ready()
        yield worker


@pytest.fixture(scope="module")
def own_server(
    valkey_of_this_run: ValkeyServer, real_worker: Worker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server whose jobs the worker takes."""
    assert real_worker.is_ready
    with serving(valkey_of_this_run, tmp_path_factory.mktemp("server") / "log") as server:
        yield server


def test_an_answer_over_http_is_the_clients_answer(
    own_server: Server, valkey_of_this_run: ValkeyServer, image: str
) -> None:
    body = {"image": image, "candidate_labels": LABELS}
    answered = own_server.post("/v1/jobs", body, headers={"Prefer": "wait=25"}).json()
    with Client(valkey_of_this_run.broker_url, valkey_of_this_run.result_backend) as client:
        result = client.classify(image, LABELS, timeout=60)

    assert answered["status"] == "succeeded"
    assert answered["result"]["ranking"] == result.to_dict()["ranking"]
    assert answered["result"]["ranking"][0]["label"] == "owl"
    assert answered["result"]["image"]["sha256"] == result.image.sha256
    created, started, finished = (
        datetime.fromisoformat(answered[name]) for name in ("created_at", "started_at", "finished_at")
    )
    assert created <= started <= finished
    assert own_server.get("/v1/queues").json()["workers"] >= 1


def test_the_log_of_the_worker_names_the_request_of_a_job(own_server: Server, real_worker: Worker, image: str) -> None:
    body = {"image": image, "candidate_labels": LABELS}
    job_id = own_server.post("/v1/jobs", body, headers={"Prefer": "wait=25", "X-Request-Id": "my-request.1"}).json()[
        "id"
    ]

    assert f"job {job_id} (request my-request.1): " in real_worker.log


def test_a_job_whose_image_cannot_be_fetched_fails_with_what_to_do(own_server: Server) -> None:
    body = {"image": "http://127.0.0.1/owl.png", "candidate_labels": LABELS}
    failed = own_server.post("/v1/jobs", body, headers={"Prefer": "wait=25"})

    assert (failed.status_code, failed.json()["status"]) == (200, "failed")
    assert failed.json()["error"]["code"] == "address_blocked"
    assert failed.json()["error"]["action"]


def test_a_real_worker_never_answers_a_deleted_job_again(
    own_server: Server, valkey_of_this_run: ValkeyServer, image: str
) -> None:
    """Its message is delivered once more, as after the death of a worker."""
    with valkey_of_this_run.connect() as broker:
        body = {"image": image, "candidate_labels": ["a", "b"]}
        job = own_server.post("/v1/jobs", body, headers={"Prefer": "wait=25"}).json()
        assert own_server.delete(job["urls"]["self"]).status_code == 204
        with Client(valkey_of_this_run.broker_url, valkey_of_this_run.result_backend) as client:
            message = client._writer.single(image, ["a", "b"], job_id=job["id"]).message
            raw = f'{message.before}"expires":null,"nameshot_sent_at":0{message.after}'
            broker.lpush("nameshot.default", raw)
            assert client.classify(image, LABELS, timeout=60).best.label == "owl"

    assert own_server.get(job["urls"]["self"]).status_code == 410
