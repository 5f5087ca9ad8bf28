"""A worker whose wall clock is wrong by minutes compares the times in messages with Redis's clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery

from producer import Client, JobExpired
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.delivery.conftest import StartWorker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["owl", "car"]
TIMEOUT_S = 60
APP = "tests.delivery.wrong_clock_worker"


@pytest.fixture(params=["600", "-600"], ids=["ahead", "behind"])
def wrong(request: pytest.FixtureRequest, start_worker: StartWorker) -> Worker:
    return start_worker("wrong", APP, CLOCK_AHEAD_S=request.param)


@pytest.fixture
def plain(own_valkey: ValkeyServer) -> Iterator[Celery]:
    with Celery(broker=own_valkey.broker_url, backend=own_valkey.result_backend, set_as_current=False) as plain:
        yield plain


def send(plain: Celery, origin: Origin, **options: datetime | bool) -> Any:
    kwargs = {"image": origin.url("/owl.png"), "candidate_labels": LABELS}
    return plain.send_task("nameshot.classify", kwargs=kwargs, queue="nameshot.default", **options)


@pytest.mark.usefixtures("wrong")
def test_a_worker_whose_clock_is_wrong_runs_a_job_that_has_not_expired_and_says_how_long_it_waited(
    client: Client, origin: Origin
) -> None:
    job = client.submit(origin.url("/owl.png"), LABELS, expires_in=TIMEOUT_S)

    queued_ms = job.result(TIMEOUT_S).timings_ms.queued
    assert queued_ms is not None
    assert 0 < queued_ms < TIMEOUT_S * 1000


@pytest.mark.usefixtures("wrong")
def test_an_answer_says_by_redis_clock_when_the_job_began_and_ended(
    client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    with own_valkey.connect() as broker:
        before = datetime.fromtimestamp(broker.time()[0], UTC)
        job = client.submit(origin.url("/owl.png"), LABELS)
        job.result(TIMEOUT_S)
        after = datetime.fromtimestamp(broker.time()[0] + 1, UTC)

    answer = client.look_up(job.id)
    assert answer.started_at is not None
    assert answer.finished_at is not None
    assert before <= answer.started_at <= answer.finished_at <= after


@pytest.mark.usefixtures("wrong")
def test_a_worker_whose_clock_is_wrong_does_not_run_a_job_that_has_expired(
    plain: Celery, client: Client, origin: Origin
) -> None:
    sent = send(plain, origin, expires=datetime.now(UTC) - timedelta(seconds=5), ignore_result=True)

    # Until a worker has taken it, a plain client's job is unknown.
    eventually(lambda: client.job(sent.id).status() == "expired")
    with pytest.raises(JobExpired):
        client.job(sent.id).result(TIMEOUT_S)
    assert not origin.paths


@pytest.mark.usefixtures("wrong")
def test_a_worker_whose_clock_is_wrong_runs_a_job_with_an_eta_at_its_time(
    plain: Celery, origin: Origin, own_valkey: ValkeyServer
) -> None:
    due = datetime.now(UTC) + timedelta(seconds=3)

    sent = send(plain, origin, eta=due)

    with own_valkey.connect() as broker:
        eventually(lambda: broker.zcard("nameshot:postponed") == 1)
    assert sent.get(TIMEOUT_S)["ranking"]
    assert datetime.now(UTC) >= due
