"""A job that a client once found lost stays unknown, and the next submission queues it again."""

from collections.abc import Iterator

import pytest
import redis

from producer import Client
from tests.client.stock_worker import StockWorker
from tests.client.test_standing import LABELS, QUEUE, URL, purge, requeue, submit
from tests.valkey_server import ValkeyServer


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


@pytest.mark.parametrize("was_requeued", [False, True])
def test_a_job_found_lost_stays_unknown_while_later_jobs_wait_and_is_queued_again_once(
    was_requeued: bool, client: Client, worker: StockWorker, broker: redis.Redis
) -> None:
    for number in range(3):
        submit(client, f"lost-{number}")
    if was_requeued:
        raw = broker.lindex(QUEUE, -1)
        assert isinstance(raw, bytes)
        worker.take()
        requeue(broker, "lost-0", raw)
    purge(broker)
    assert client.job("lost-0").status() == "unknown"
    for _ in range(3):  # these messages get the numbers of the purged ones
        client.submit(URL, LABELS)

    assert client.job("lost-0").status() == "unknown"
    again = submit(client, "lost-0"), submit(client, "lost-0")

    assert again == ("lost-0", "lost-0")
    assert client.job("lost-0").status() == "queued"
    assert broker.llen(QUEUE) == 4


def test_an_observer_also_sees_that_a_job_is_lost_and_writes_nothing(
    client: Client, valkey: ValkeyServer, broker: redis.Redis
) -> None:
    submit(client, "order-17")
    purge(broker)
    place = broker.get("nameshot:claim:order-17:place")

    with Client(valkey.url(0, "observer"), valkey.url(1, "observer")) as observer:
        assert observer.job("order-17").status() == "unknown"

    assert broker.get("nameshot:claim:order-17:place") == place
