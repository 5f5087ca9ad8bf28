"""A real worker answers or keeps each strange message of other programs, and good jobs are not affected."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from producer import Client
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.delivery.test_envelopes import SLOPPY
from tests.eventually import eventually
from tests.jobs.test_messages import headers, message, mutated
from tests.valkey_server import ValkeyServer
from worker.delivery.envelope import MAX_MESSAGE_BYTES

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
MESSAGES = 400
BURST = 20


def generated() -> list[bytes]:
    """Return some hundreds of mutated messages, the same in each run."""
    found: list[bytes] = []

    @seed(1)
    @settings(max_examples=MESSAGES, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(mutated() | st.binary())
    def collect(raw: bytes) -> None:
        found.append(raw)

    collect()
    return found


def test_one_worker_answers_all_good_jobs_among_hundreds_of_strange_messages(
    start_worker: StartWorker, client: Client, own_valkey: ValkeyServer, origin: Origin
) -> None:
    worker = start_worker("steady", NAMESHOT_FETCH_TIMEOUT="1", NAMESHOT_LOG_LEVEL="DEBUG")
    pid = worker.process.pid
    strange = generated()
    jobs = []
    with own_valkey.connect() as broker:
        for start in range(0, len(strange), BURST):
            broker.lpush("nameshot.default", *strange[start : start + BURST])
            jobs.append(client.submit(origin.url("/owl.png"), LABELS))
        for job in jobs:
            assert job.result(timeout=TIMEOUT_S).ranking
        eventually(lambda: not broker.keys("nameshot:in-flight:*"), lambda: "a message is still held")
        assert broker.llen("nameshot.default") == 0
        assert broker.llen("nameshot:dead-letters") > MESSAGES / 4
    assert (worker.process.pid, worker.process.poll()) == (pid, None)
    assert "Traceback" not in worker.log
    assert "died" not in worker.log


@pytest.fixture
def plain(own_valkey: ValkeyServer) -> Any:
    with Celery(broker=own_valkey.broker_url, backend=own_valkey.result_backend) as app:
        yield app


def ask(plain: Celery, origin: Origin, **options: Any) -> "AsyncResult[Any]":
    kwargs = {"image": origin.url("/owl.png"), "candidate_labels": LABELS}
    return plain.send_task("nameshot.classify", kwargs=kwargs, queue="nameshot.default", **options)


def test_options_of_other_celery_clients_do_not_affect_a_job(
    start_worker: StartWorker, plain: Celery, origin: Origin, own_valkey: ValkeyServer
) -> None:
    start_worker("patient")
    options: list[dict[str, Any]] = [
        {"ignore_result": True},
        {"time_limit": 0.001, "soft_time_limit": 0.001},
        {"retries": 99},
        {"shadow": "a name for people"},
        {"group_id": "a-group", "root_id": "a-root", "parent_id": "a-parent"},
        {"stamped_headers": ["batch"], "batch": "7"},
        {"countdown": -1},
        {"reply_to": "nobody"},
        {"headers": {"get": 1, "update": 2, "delivery_info": 3}},
    ]
    for option in options:
        result = ask(plain, origin, **option)
        assert AsyncResult(result.id, app=plain).get(TIMEOUT_S)["ranking"], option
    from_node = message(
        {"lang": "js", "task": "nameshot.classify", "id": "from-node"},
        [[], {"image": origin.url("/owl.png"), "candidate_labels": LABELS}, {}],
    )
    with own_valkey.connect() as broker:
        broker.lpush("nameshot.default", from_node)
        for number, sloppy in enumerate(SLOPPY):
            named = from_node.replace(b'"from-node"', f'"sloppy-{number}", {sloppy}'.encode())
            broker.lpush("nameshot.default", named)
    assert plain.AsyncResult("from-node").get(TIMEOUT_S)["ranking"]
    for number, sloppy in enumerate(SLOPPY):
        assert plain.AsyncResult(f"sloppy-{number}").get(TIMEOUT_S)["ranking"], sloppy


def test_a_job_with_celery_callbacks_is_refused_and_they_are_never_published(
    start_worker: StartWorker, plain: Celery, origin: Origin, own_valkey: ValkeyServer
) -> None:
    start_worker("alone")
    follow = plain.signature("stranger.task", queue="strangers")

    for option in ({"link": follow}, {"link_error": follow}, {"chain": [follow]}, {"chord": follow}):
        with pytest.raises(Exception, match="is not accepted") as caught:
            ask(plain, origin, **option).get(TIMEOUT_S)
        assert caught.value.args[0] == "invalid_job"

    with own_valkey.connect() as broker:
        assert not broker.exists("strangers")


def test_a_job_with_an_eta_waits_in_redis_rather_than_in_a_worker_and_runs_in_time(
    start_worker: StartWorker, plain: Celery, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    first = start_worker("first")
    due = datetime.now(UTC) + timedelta(seconds=4)
    later = ask(plain, origin, eta=due)
    cancelled = ask(plain, origin, countdown=5)
    ask(plain, origin, countdown=3_000)
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking

    with own_valkey.connect() as broker:
        eventually(lambda: broker.zcard("nameshot:postponed") == 3, lambda: "they are not postponed")
        eventually(lambda: not broker.keys("nameshot:in-flight:*"), lambda: "the answered job is still held")
        first.process.kill()
        first.process.wait()
        start_worker("second")
        with Celery(broker=own_valkey.url(0, "worker"), set_as_current=False) as operator:
            operator.control.revoke(cancelled.id)

        assert later.get(TIMEOUT_S)["ranking"]
        assert datetime.now(UTC) >= due
        eventually(lambda: broker.zcard("nameshot:postponed") == 1, lambda: "not every job came back")
        assert not broker.exists("nameshot:suspects")
    assert cancelled.state == "REVOKED"


def test_an_eta_beyond_an_hour_is_refused(start_worker: StartWorker, plain: Celery, origin: Origin) -> None:
    start_worker("prompt")

    with pytest.raises(Exception, match="its eta is more than an hour ahead") as caught:
        ask(plain, origin, countdown=3_700).get(TIMEOUT_S)

    assert caught.value.args[0] == "invalid_job"


def test_a_refused_message_that_names_its_id_is_answered(
    start_worker: StartWorker, plain: Celery, own_valkey: ValkeyServer
) -> None:
    start_worker("polite")
    broken = json.loads(message(headers(id="broken")))
    broken["body"] = base64.b64encode(b'[[], {"image": NaN}, {}]').decode()

    with own_valkey.connect() as broker:
        broker.lpush("nameshot.default", json.dumps(broken))

    with pytest.raises(Exception, match="it holds NaN or infinity"):
        plain.AsyncResult("broken").get(TIMEOUT_S)


def test_a_message_of_more_than_4_mib_is_answered(
    start_worker: StartWorker, plain: Celery, own_valkey: ValkeyServer
) -> None:
    start_worker("polite")

    with own_valkey.connect() as broker:
        broker.lpush("nameshot.default", message(headers(id="large"), ["x" * MAX_MESSAGE_BYTES]))

    with pytest.raises(Exception, match="more than 4194304 bytes"):
        plain.AsyncResult("large").get(TIMEOUT_S)
