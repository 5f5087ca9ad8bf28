"""What the API says of itself: queues, health, metrics, and its own description."""

import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from producer.contract.image_url import check_url_shape
from producer.contract.labels import check_candidate_labels, check_templates
from producer.errors import InvalidJob
from producer.web.schemas import (
    IMAGE_PATTERN,
    LABEL_PATTERN,
    TEMPLATE_PATTERN,
    InfoObject,
    JobObject,
    ProblemObject,
    QueuesObject,
)
from tests.client.stock_worker import StockWorker, result_for
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from tests.web.keyring import Keys
from tests.web.serving import LABELS, Server, serving


def test_queues_count_what_waits_and_what_runs_and_who_works(
    server: Server, valkey: ValkeyServer, worker: StockWorker
) -> None:
    jobs = [server.submit() for _ in range(3)]
    server.submit(job={"queue": "bulk"})
    worker.take()
    with valkey.connect() as broker:
        broker.sadd("nameshot:workers", "a-host/1/n00", "a-host/2/n00")
        broker.set("nameshot:lease:a-host/1/n00", "a-host/1")
        broker.hset("nameshot:in-flight:a-host/1/n00", jobs[0], "message")
        broker.hset("nameshot:in-flight:a-host/2/n00", "of a dead worker", "message")

    def counted() -> dict[str, Any]:
        found: dict[str, Any] = server.get("/v1/queues").json()
        return found

    eventually(lambda: counted()["backlog"] == 5)  # what was counted serves all callers for a second
    found = counted()
    assert {queue: its["waiting"] for queue, its in found["queues"].items()} == {"high": 0, "default": 2, "bulk": 1}
    assert (found["running"], found["workers"]) == (2, 1)


def test_a_wait_is_estimated_of_what_was_taken_lately(
    valkey: ValkeyServer, tmp_path: Path, worker: StockWorker
) -> None:
    with serving(valkey, tmp_path / "log") as server:
        eventually(lambda: server.get("/v1/queues").json()["queues"]["default"]["taken_per_s"] is not None)
        jobs = [server.submit() for _ in range(15)]
        assert server.get(f"/v1/jobs/{jobs[-1]}").json()["estimated_wait_s"] is None
        for _ in range(10):
            worker.take()

        eventually(lambda: server.get(f"/v1/jobs/{jobs[-1]}").json()["estimated_wait_s"])


def test_health_and_readiness_tell_a_dead_server_from_a_dead_redis(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    with serving(own_valkey, tmp_path / "log") as server:
        assert server.get("/readyz").json() == {"status": "ok"}
        own_valkey.stop()

        eventually(lambda: server.get("/readyz").status_code == 503)
        unready = server.get("/readyz")
        assert unready.json()["detail"] == "the broker cannot be used. the result backend cannot be used."
        assert server.get("/healthz").json() == {"status": "ok"}
        failed = server.post("/v1/jobs", {"image": "http://a.example/b", "candidate_labels": ["owl"]})
        assert (failed.status_code, failed.json()["code"]) == (503, "unavailable")
        assert (failed.headers["Retry-After"], failed.json()["may_have_been_accepted"]) == ("2", False)
        assert str(own_valkey.port) not in failed.text

        own_valkey.start()
        eventually(lambda: server.get("/readyz").status_code == 200)
        assert server.submit()


def test_while_redis_is_silent_a_request_fails_within_seconds_and_says_that_it_may_have_been_accepted(
    own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    with serving(own_valkey, tmp_path / "log") as server:
        server.submit()
        own_valkey.freeze()
        failed = server.post("/v1/jobs", {"image": "http://a.example/b", "candidate_labels": ["owl"]})
        own_valkey.thaw()

    assert (failed.status_code, failed.json()["may_have_been_accepted"]) == (503, True)
    assert failed.elapsed.total_seconds() < 10


def test_a_response_on_a_kept_connection_waits_for_no_acknowledgement(server: Server) -> None:
    """With Nagle's algorithm each would take the 40 ms of a delayed acknowledgement."""
    taken_s = []
    with requests.Session() as session:
        for _ in range(20):
            began_s = time.perf_counter()
            assert session.get(f"{server.url}/v1/info", timeout=60).content
            taken_s.append(time.perf_counter() - began_s)

    assert min(taken_s[1:]) < 0.03


def test_supervisors_may_ask_with_head(server: Server) -> None:
    assert [server.send("HEAD", path, None, {}).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def test_metrics_are_for_this_machine_and_for_marked_keys(valkey: ValkeyServer, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    marked, plain = keys.add("marked", metrics=True), keys.add("plain")
    settings = {"NAMESHOT_WEB_KEYS_FILE": str(keys.file)}
    forwarded = {"X-Forwarded-For": "10.0.0.1"}
    with serving(valkey, tmp_path / "log", "--host", "0.0.0.0", **settings) as server:
        job_id = server.submit(headers=plain, job={"candidate_labels": ["a label of note"]})
        server.get(f"/v1/jobs/{job_id}", headers=plain)
        server.get("/v1/jobs/never-sent", headers=plain)
        server.get(f"/no/path/of/{job_id}")
        found = server.get("/metrics")

        assert found.status_code == 200
        assert 'nameshot_http_requests_total{method="POST",route="/v1/jobs",status="202"} 1.0' in found.text
        assert 'nameshot_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"} 1.0' in found.text
        assert 'route="unmatched",status="404"' in found.text
        assert not [word for word in (job_id, "never-sent", "/no/path", "label of note") if word in found.text]
        assert server.get("/metrics", headers=forwarded).status_code == 404
        assert server.get("/metrics", headers={**forwarded, **plain}).status_code == 404
        assert server.get("/metrics", headers={**forwarded, **marked}).status_code == 200
        try:
            server.url = f"http://{own_address()}:{server.port}"
        except OSError:
            pytest.skip("this machine has no address but loopback")
        assert server.get("/metrics").status_code == 404
        assert server.get("/metrics", headers=marked).status_code == 200


def test_the_description_documents_every_response_and_repeats_no_operation(server: Server) -> None:
    described = server.get("/openapi.json").json()
    operations = [operation for path in described["paths"].values() for operation in path.values()]

    assert described["openapi"].startswith("3.1")
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert {"submitJob", "getJob", "getJobs", "cancelJob", "deleteJob", "info", "queues"} <= set(names)
    for reference in re.findall(r'"\$ref": ?"#/components/schemas/([^"]+)"', json.dumps(described)):
        assert reference in described["components"]["schemas"]
    job = described["components"]["schemas"]["JobObject"]
    assert set(job["required"]) == set(job["properties"])


def test_responses_are_as_described(server: Server, worker: StockWorker) -> None:
    jobs = [server.submit() for _ in range(2)]
    worker.take()
    worker.succeed(jobs[0], result_for(LABELS))
    for job_id in jobs:
        TypeAdapter(JobObject).validate_python(server.get(f"/v1/jobs/{job_id}").json())
    InfoObject.model_validate(server.get("/v1/info").json())
    QueuesObject.model_validate(server.get("/v1/queues").json())
    ProblemObject.model_validate(server.post("/v1/jobs", {}).json())


TEXTS = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from("{} \t\u200b\u200d\u180e\u1820\ufe0f\u2800\U0001f3f4\U000e0067\U000e0062\U000e007f\u202eowl"),
    ),
    max_size=8,
)


@given(TEXTS)
def test_the_pattern_of_labels_is_the_rule_of_the_contract(label: str) -> None:
    assert bool(re.search(LABEL_PATTERN, label)) == is_accepted(lambda: check_candidate_labels([label]))


@given(TEXTS.map(lambda text: text.replace("ow", "{}")))
def test_the_pattern_of_templates_is_the_rule_of_the_contract(template: str) -> None:
    assert bool(re.search(TEMPLATE_PATTERN, template)) == is_accepted(lambda: check_templates(template))


@given(
    st.tuples(
        st.sampled_from(["http://", "https://", "HTTP://", "ftp://", "http:/", "http:///", ""]),
        st.text(st.sampled_from("a.:@/?#[]\\ \u2028\u00e9\x00"), max_size=6),
    ).map("".join)
)
def test_the_pattern_of_images_is_the_rule_of_the_contract(url: str) -> None:
    assert bool(re.search(IMAGE_PATTERN, url)) == is_accepted(lambda: check_url_shape(url))


def is_accepted(check: Any) -> bool:
    try:
        check()
    except InvalidJob:
        return False
    return True
