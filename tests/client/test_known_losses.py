"""What is once known to be lost: it stays unknown, and is queued anew by the next submission."""

from collections.abc import Iterator

import pytest
import redis

from producer import Client
from tests.client.stock_worker import StockWorker
from tests.client.test_standing import LABELS, QUEUE, URL, purge, put_back, submit
from tests.valkey_server import ValkeyServer


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


@pytest.mark.parametrize("was_put_back", [False, True])
def test_a_job_that_is_known_to_be_lost_stays_so_and_is_queued_anew_whatever_waits_since(
    was_put_back: bool, client: Client, worker: StockWorker, broker: redis.Redis
) -> None:
    for number in range(3):
        submit(client, f"lost-{number}")
    if was_put_back:
        raw = broker.lindex(QUEUE, -1)
        assert isinstance(raw, bytes)
        worker.take()
        put_back(broker, "lost-0", raw)
    purge(broker)
    assert client.job("lost-0").status() == "unknown"
    for _ in range(3):  # which have the numbers of those that were purged
        client.submit(URL, LABELS)

    assert client.job("lost-0").status() == "unknown"
    again = submit(client, "lost-0"), submit(client, "lost-0")

    assert again == ("lost-0", "lost-0")
    assert client.job("lost-0").status() == "queued"
    assert broker.llen(QUEUE) == 4


def test_an_observer_notes_nothing_and_is_told_the_same(
    client: Client, valkey: ValkeyServer, broker: redis.Redis
) -> None:
    submit(client, "order-17")
    purge(broker)
    place = broker.get("nameshot:claim:order-17:place")

    with Client(valkey.url(0, "observer"), valkey.url(1, "observer")) as observer:
        assert observer.job("order-17").status() == "unknown"

    assert broker.get("nameshot:claim:order-17:place") == place
