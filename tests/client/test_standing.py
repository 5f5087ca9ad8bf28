"""A job is queued while its message exists anywhere, and unknown once neither message nor answer is left."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from producer import Client, JobNotFound
from producer.contract.names import QUEUES
from tests.client.stock_worker import IN_HAND, StockWorker, result_for
from tests.delivery.moves import FAR_AHEAD_S, OURS, give_back, postpone, take
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]
QUEUE = "nameshot.default"
OLD_WORKER = "a-host/7/0123456789ab"


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


def submit(client: Client, job_id: str, **arguments: Any) -> str:
    return client.submit(URL, LABELS, job_id=job_id, **arguments).id


def test_a_job_says_whether_it_is_new(client: Client) -> None:
    first = client.submit(URL, LABELS, job_id="order-17")
    again, other = client.submit_many([{"url": URL, "labels": LABELS, "job_id": "order-17"}, (URL, LABELS)])

    assert (first.is_new, again.is_new, other.is_new) == (True, False, True)
    assert client.job("order-17").is_new is None
    assert again == first


def test_a_job_has_a_place_key_beside_its_claim(client: Client, broker: redis.Redis) -> None:
    submit(client, "a")
    submit(client, "b")
    broker.incrby(f"{QUEUE}:taken", 40)
    broker.lmove(QUEUE, f"{QUEUE}:rung", "RIGHT", "LEFT")
    submit(client, "c")
    submit(client, "d", queue="high")

    def place(job_id: str) -> list[str]:
        value = broker.get(f"nameshot:claim:{job_id}:place")
        assert isinstance(value, bytes)
        return value.decode().split(" ")

    assert [place(job_id)[:2] for job_id in "abcd"] == [
        *(["default", "1"], ["default", "2"], ["default", "43"], ["high", "1"])
    ]
    assert len({place(job_id)[2] for job_id in "abcd"}) == 4
    assert abs(broker.pttl("nameshot:claim:a") - broker.pttl("nameshot:claim:a:place")) < 1_000


def test_a_plain_clients_job_is_known_only_once_a_worker_has_taken_it(
    client: Client, worker: StockWorker, broker: redis.Redis
) -> None:
    worker.app.send_task("nameshot.classify", (), {}, queue=QUEUE, task_id="plain")
    client.submit(URL, LABELS)
    job = client.job("plain")
    assert (job.status(), job.position()) == ("unknown", None)
    with pytest.raises(JobNotFound):
        job.result(timeout=0)

    broker.set(OURS.lease, 1)
    broker.sadd(OURS.workers, OURS.worker)
    (*_, tag, _) = take(broker, "tag")
    assert job.status() == "queued"
    assert give_back(broker, tag) == 1
    assert (job.status(), job.position()) == ("queued", 0)
    assert postpone(broker, take(broker, "again")[5], FAR_AHEAD_S) == 1
    assert job.status() == "queued"


def test_a_position_counts_the_messages_before_it(client: Client, worker: StockWorker) -> None:
    jobs = [client.submit(URL, LABELS) for _ in range(3)]
    other = client.submit(URL, LABELS, queue="bulk")

    assert [job.position() for job in (*jobs, other)] == [0, 1, 2, 0]

    worker.take()
    assert [job.position() for job in jobs] == [None, 0, 1]
    worker.succeed(jobs[0].id, result_for(LABELS))
    assert [job.position() for job in jobs] == [None, 0, 1]
    assert client.job("never-sent").position() is None


def test_a_requeued_job_waits_before_all_others(client: Client, worker: StockWorker, broker: redis.Redis) -> None:
    jobs = [client.submit(URL, LABELS) for _ in range(3)]
    raw = broker.lindex(QUEUE, -1)
    assert isinstance(raw, bytes)
    worker.take()
    requeue(broker, jobs[0].id, raw)

    assert [job.status() for job in jobs] == ["queued"] * 3
    assert [job.position() for job in jobs] == [0, 1, 2]


def requeue(broker: redis.Redis, job_id: str, raw: bytes) -> None:
    """Requeue a message as a worker's scripts do."""
    number = broker.decr(f"{QUEUE}:taken") + 1
    broker.rpush(QUEUE, raw)
    broker.hset(IN_HAND, job_id, f"returned default {number}")


@pytest.mark.parametrize("hand", ["a-host/1/n00", "postponed 1772366400.25"])
def test_a_job_that_a_worker_holds_or_postponed_is_never_unknown(
    hand: str, client: Client, worker: StockWorker, broker: redis.Redis
) -> None:
    job = client.submit(URL, LABELS)
    worker.take()
    broker.hset(IN_HAND, job.id, hand)

    assert job.status() == "queued"
    assert not client.submit(URL, LABELS, job_id=job.id).is_new


def test_a_started_job_whose_message_is_lost_is_unknown(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS)
    worker.take()
    worker.start(job.id)
    assert job.status() == "running"

    worker.let_go(job.id)

    assert job.status() == "unknown"


def purge(broker: redis.Redis) -> None:
    """Delete a queue's list, as `celery purge` does."""
    broker.delete(QUEUE)


def test_a_job_whose_queue_another_program_purged_is_unknown_at_once_if_the_queue_is_empty(
    client: Client, broker: redis.Redis
) -> None:
    job = client.submit(URL, LABELS)
    purge(broker)

    assert job.status() == "unknown"
    assert job.position() is None
    with pytest.raises(JobNotFound):
        job.result(timeout=10)
    with pytest.raises(JobNotFound):
        job.cancel()


def test_a_job_that_another_program_purged_is_unknown_once_workers_took_as_many_later_messages(
    client: Client, worker: StockWorker, broker: redis.Redis
) -> None:
    lost = [client.submit(URL, LABELS) for _ in range(2)]
    purge(broker)
    for _ in range(3):
        client.submit(URL, LABELS)

    states = []
    for _ in range(2):
        worker.take()
        states.append([job.status() for job in lost])

    assert states == [["unknown", "queued"], ["unknown", "unknown"]]


@pytest.mark.parametrize("payload", [LABELS, ["another"]])
def test_a_lost_job_is_queued_again_with_any_payload(
    payload: list[str], client: Client, worker: StockWorker, broker: redis.Redis, valkey: ValkeyServer
) -> None:
    submit(client, "order-17")
    life = str(broker.get("nameshot:claim:order-17:place")).rstrip("'").split(" ")[2]
    purge(broker)

    again = client.submit(URL, payload, job_id="order-17")

    assert again.is_new
    assert again.status() == "queued"
    assert worker.take().payload[1]["candidate_labels"] == payload
    with valkey.connect(1) as results:
        # A frozen worker may still hold the lost message; if the question is the same, its answer is right too.
        forgotten = results.zrange("nameshot-forgotten-order-17", 0, -1)
        assert forgotten == ([] if payload == LABELS else [b"", life.encode()])


def test_submit_many_queues_lost_jobs_again_but_no_answered_or_waiting_one(
    client: Client, worker: StockWorker, broker: redis.Redis
) -> None:
    def jobs(labels: list[str]) -> list[dict[str, Any]]:
        return [{"url": URL, "labels": labels, "job_id": f"order-{number}"} for number in range(6)]

    client.submit_many(jobs(LABELS)[:4])
    purge(broker)
    standing = client.submit_many([{"url": URL, "labels": LABELS, "job_id": "order-0"}])
    worker.take()
    worker.succeed(standing[0].id, result_for(LABELS))

    again = client.submit_many(jobs(LABELS))

    assert [job.is_new for job in again] == [False, True, True, True, True, True]
    assert client.queue_depths()["default"] == 5
    broker.ltrim(QUEUE, 1, 0)
    assert [job.is_new for job in client.submit_many(jobs(["another"])[1:])] == [True] * 5
    assert client.queue_depths()["default"] == 5


def test_all_jobs_of_a_queue_that_another_program_purged_can_be_submitted_again_in_one_call(
    client: Client, broker: redis.Redis
) -> None:
    jobs = [{"url": URL, "labels": LABELS, "job_id": f"order-{number}"} for number in range(250)]
    client.submit_many(jobs)
    purge(broker)

    again = client.submit_many(jobs)

    assert all(job.is_new for job in again)
    assert client.queue_depths()["default"] == 250
    assert not any(job.is_new for job in client.submit_many(jobs))
    assert client.queue_depths()["default"] == 250


def test_the_id_of_a_lost_answer_is_free(client: Client, worker: StockWorker, valkey: ValkeyServer) -> None:
    job = client.submit(URL, LABELS, job_id="order-17")
    worker.take()
    worker.succeed(job.id, result_for(LABELS))
    with valkey.connect(1) as results:
        results.flushdb()

    assert job.status() == "unknown"
    assert client.submit(URL, ["another"], job_id="order-17").is_new


def test_all_ids_are_free_after_the_broker_lost_everything(client: Client, broker: redis.Redis) -> None:
    job = client.submit(URL, LABELS, job_id="order-17")
    broker.flushall()

    assert job.status() == "unknown"
    assert client.submit(URL, ["another"], job_id="order-17").is_new


@pytest.mark.parametrize("queue", QUEUES)
def test_a_job_without_a_place_key_is_queued_while_any_message_waits(
    queue: str, client: Client, worker: StockWorker, broker: redis.Redis
) -> None:
    job = client.submit(URL, LABELS)
    broker.delete(f"nameshot:claim:{job.id}:place")
    worker.take()
    worker.let_go(job.id)
    broker.lpush(f"nameshot.{queue}", "anything")

    assert job.status() == "queued"
    broker.lmove(f"nameshot.{queue}", f"nameshot.{queue}:rung", "RIGHT", "LEFT")
    assert job.status() == "queued"
    broker.rename(f"nameshot.{queue}:rung", f"nameshot.{queue}\x06\x163")
    assert job.status() == "queued"
    broker.delete(f"nameshot.{queue}\x06\x163")
    assert job.status() == "unknown"


def test_a_place_key_that_outlives_its_claim_proves_no_loss(
    client: Client, worker: StockWorker, broker: redis.Redis
) -> None:
    job = client.submit(URL, LABELS)
    worker.take()
    worker.let_go(job.id)
    # A worker of an older version shortens only the claim of an answered job, not the place key's life; afterwards a
    # client of that version claims the id again.
    broker.expire(f"nameshot:claim:{job.id}", 60)
    broker.lpush(QUEUE, "anything")

    assert job.status() == "queued"


@pytest.mark.parametrize("trace", ["in flight", "postponed", "waiting"])
def test_a_job_that_a_worker_of_an_older_version_may_hold_is_not_unknown(
    trace: str, client: Client, broker: redis.Redis
) -> None:
    job = client.submit(URL, LABELS)
    raw = broker.rpop(QUEUE)
    assert isinstance(raw, bytes)
    broker.sadd("nameshot:workers", OLD_WORKER)
    match trace:
        case "in flight":
            broker.hset(f"nameshot:in-flight:{OLD_WORKER}", "tag", QUEUE.encode() + b"\n" + raw)
        case "postponed":
            broker.zadd("nameshot:postponed", {b"tag\n" + QUEUE.encode() + b"\n" + raw: 1})
        case "waiting":
            broker.rpush(QUEUE, raw)
            broker.incrby(f"{QUEUE}:taken", 10)  # workers took ten other messages

    assert job.status() == "queued"
    broker.srem("nameshot:workers", OLD_WORKER)
    broker.set("nameshot:mixed", "1")
    assert job.status() == (
        "unknown" if trace == "in flight" else "queued"
    )  # a worker returns what it holds before it leaves the set
    broker.delete(QUEUE, "nameshot:postponed")
    assert job.status() == "unknown"


def test_a_record_of_an_earlier_message_does_not_hide_that_a_job_waits(client: Client, broker: redis.Redis) -> None:
    job = client.submit(URL, LABELS)
    broker.hset(IN_HAND, job.id, "returned default 0")

    assert (job.status(), job.position()) == ("queued", 0)


def test_keys_of_a_wrong_type_hide_no_job(client: Client, broker: redis.Redis) -> None:
    job = client.submit(URL, LABELS)
    broker.set(IN_HAND, "a text")
    broker.set("nameshot.high", "a text")
    broker.lpush("nameshot.bulk:taken", "a list")

    assert (job.status(), job.position()) == ("queued", 0)
    assert client.job("never-sent").status() == "unknown"


def test_priorities_of_plain_clients_count_for_the_limit_and_the_depths(
    valkey: ValkeyServer, broker: redis.Redis
) -> None:
    for step, separator in ((1, "\x06\x16"), (5, ":"), (9, "\x06\x16")):
        broker.lpush(f"{QUEUE}{separator}{step}", "anything")
    with Client(valkey.broker_url, valkey.result_backend, max_queue=4) as client:
        job = client.submit(URL, LABELS)

        assert client.queue_depths() == {"high": 0, "default": 4, "bulk": 0}
        assert job.position() == 0
        with pytest.raises(Exception, match="holds 4 waiting messages or more"):
            client.submit(URL, LABELS)
