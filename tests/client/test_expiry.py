"""A job that no worker has begun within its ``expires_in`` is expired, even if no worker runs."""

from collections.abc import Iterator

import pytest
import redis

from producer import Client, JobExpired
from producer.contract.names import place_key
from producer.operations import traces
from tests.client.stock_worker import IN_HAND, NAME, StockWorker, result_for
from tests.client.test_standing import requeue
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]
QUEUE = "nameshot.default"


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "EXPIRY_GRACE_S", 0)


def test_a_job_without_a_worker_expires(client: Client) -> None:
    job = client.submit(URL, LABELS, expires_in=0.01)

    eventually(lambda: job.status() == "expired")
    assert job.position() is None
    assert not job.cancel()
    with pytest.raises(JobExpired, match=f"job {job.id} expired before a worker took it"):
        job.result(timeout=10)


def test_a_wait_ends_when_the_job_expires(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.client.waiting.RECHECK_S", 0.1)
    job = client.submit(URL, LABELS, expires_in=1)
    assert job.status() == "queued"

    with pytest.raises(JobExpired):
        job.result(timeout=30)


def test_a_job_counts_as_queued_for_a_grace_period_after_its_expiry(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "EXPIRY_GRACE_S", 3_600)

    assert client.submit(URL, LABELS, expires_in=0.001).status() == "queued"


@pytest.mark.parametrize("expires_in", [None, 3_600])
def test_a_job_that_has_not_expired_is_queued(client: Client, expires_in: float | None) -> None:
    assert client.submit(URL, LABELS, expires_in=expires_in).status() == "queued"


def test_a_job_that_a_worker_took_in_time_is_not_expired(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS, job_id="taken", expires_in=1)
    worker.take()
    still_waiting = client.submit(URL, LABELS, expires_in=1)

    eventually(lambda: still_waiting.status() == "expired")
    assert job.status() == "queued"
    worker.start(job.id)
    assert job.status() == "running"
    worker.succeed(job.id, result_for(LABELS))
    assert job.result(timeout=10).ranking[0].label == "fox"


@pytest.mark.parametrize("hand", ["returned", "postponed 1772366400.25"])
def test_a_job_that_a_worker_requeued_or_postponed_expires_too(
    hand: str, client: Client, worker: StockWorker, broker: redis.Redis
) -> None:
    job = client.submit(URL, LABELS, expires_in=0.01)
    raw = broker.lindex(QUEUE, -1)
    assert isinstance(raw, bytes)
    worker.take()
    if hand == "returned":
        requeue(broker, job.id, raw)
    else:
        broker.hset(IN_HAND, job.id, hand)

    eventually(lambda: job.status() == "expired")
    broker.hset(IN_HAND, job.id, NAME)
    assert job.status() == "queued"


def test_a_job_that_a_worker_began_does_not_expire_when_another_requeues_it(
    client: Client, worker: StockWorker, broker: redis.Redis
) -> None:
    """The first worker may only be cut off from Redis, and answer the job later."""
    job = client.submit(URL, LABELS, expires_in=1)
    raw = broker.lindex(QUEUE, -1)
    assert isinstance(raw, bytes)
    worker.take()
    worker.start(job.id)
    requeue(broker, job.id, raw)
    waiting = client.submit(URL, LABELS, expires_in=1)

    eventually(lambda: waiting.status() == "expired")
    assert job.status() == "queued"
    worker.succeed(job.id, result_for(LABELS))
    assert job.status() == "succeeded"


def test_an_expired_job_can_be_forgotten_and_sent_again(client: Client) -> None:
    job = client.submit(URL, LABELS, job_id="order-17", expires_in=0.01)
    eventually(lambda: job.status() == "expired")
    assert not client.submit(URL, LABELS, job_id="order-17").is_new

    assert client.forget("order-17")

    assert client.submit(URL, ["another", "label"], job_id="order-17").is_new
    assert client.job("order-17").status() == "queued"


def test_the_place_key_holds_the_expiry_before_the_life(client: Client, broker: redis.Redis) -> None:
    client.submit(URL, LABELS, job_id="order-17", expires_in=60)
    value = broker.get(place_key("nameshot", "order-17"))

    assert isinstance(value, bytes)
    location = traces.Location.read(value)
    assert location is not None
    assert location.expires_s is not None
    assert 0 < location.expires_s - broker.time()[0] <= 61
    assert location.life == traces.JobTraces(place=value).life == value.split(b" ")[-1].decode()
