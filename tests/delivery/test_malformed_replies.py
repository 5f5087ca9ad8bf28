"""A reply that does not fit its command is an outage of its connection: no job is lost or fails, and no worker ends."""

from __future__ import annotations

import pytest

from producer import Client
from producer.broker.scripting import digest
from producer.operations.answers import FIRST_ANSWER_WINS
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.delivery.meddling_link import MeddlingLink
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from worker.delivery.scripts import TAKE

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
OF_ANOTHER_TAKE = b"*7\r\n$16\r\nnameshot.default\r\n$2\r\n{}\r\n:0\r\n:0\r\n:2\r\n$3\r\nold\r\n$0\r\n\r\n"


@pytest.mark.parametrize(
    ("marker", "replies"),
    [
        (digest(TAKE).encode(), [b"*1\r\n:1\r\n", b"*0\r\n", OF_ANOTHER_TAKE, b"?\r\n"]),
        (b"PSUBSCRIBE", [b"*1\r\n:1\r\n", b"*1\r\n:1\r\n", b"*0\r\n", b"?\r\n"]),
    ],
    ids=["take", "subscribe"],
)
def test_a_worker_outlives_malformed_replies_of_the_broker(
    marker: bytes,
    replies: list[bytes],
    start_worker: StartWorker,
    client: Client,
    origin: Origin,
    own_valkey: ValkeyServer,
) -> None:
    with MeddlingLink(own_valkey.port, marker) as link:
        link.replies += replies
        url = own_valkey.url(0, "worker").replace(f":{own_valkey.port}/", f":{link.port}/")
        worker = start_worker("unmoved", NAMESHOT_BROKER_URL=url, is_ready=False)
        job = client.submit(origin.url("/owl.png"), LABELS)
        eventually(lambda: not link.replies)

        assert job.result(timeout=TIMEOUT_S).ranking
        assert worker.process.poll() is None
        assert "CRITICAL" not in worker.log
        assert "Traceback" not in worker.log


def test_an_answer_is_stored_although_redis_seemed_to_reply_that_it_was(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    with MeddlingLink(own_valkey.port, digest(FIRST_ANSWER_WINS).encode()) as link:
        url = own_valkey.url(1, "worker").replace(f":{own_valkey.port}/", f":{link.port}/")
        worker = start_worker("doubting", NAMESHOT_RESULT_BACKEND=url)
        link.replies += [b":1\r\n", b"+OK\r\n", b"*0\r\n", b"$1\r\n1\r\n", b":1792000000000000\r\n"]
        jobs = [client.submit(origin.url("/owl.png"), LABELS) for _ in range(3)]
        eventually(lambda: not link.replies)

        assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)
        assert "the result backend does not take answers (MalformedReply): retrying" in worker.log
