"""If another program overwrote the record of what workers hold, clients report no job as lost."""

from collections.abc import Iterator

import pytest
import redis

from producer import Client, ResultTimeout
from tests.client.stock_worker import IN_HAND
from tests.delivery.moves import OURS, take
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


def test_no_job_is_unknown_while_another_program_has_overwritten_the_records_of_held_jobs(
    client: Client, broker: redis.Redis
) -> None:
    broker.set(OURS.lease, 1)
    taken, waiting = (client.submit(URL, LABELS, job_id=job_id).id for job_id in ("taken", "waiting"))
    assert take(broker, "tag")
    broker.delete(IN_HAND)
    broker.set(IN_HAND, "junk")

    assert [client.job(job_id).status() for job_id in (taken, waiting)] == ["queued", "queued"]
    with pytest.raises(ResultTimeout):
        client.job(taken).result(timeout=0.1)
    assert client.job("never-sent").status() == "unknown"

    broker.delete(IN_HAND)
    assert client.job(taken).status() == "unknown"
