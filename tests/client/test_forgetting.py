"""Freeing an id whose job is answered or lost, so that it can be sent again with any payload."""

from collections.abc import Iterator

import pytest
import redis

from producer import Client, JobFailed
from producer.contract.names import answer_key, forgotten_key
from producer.operations.answers import ANY_LIFE, FIRST_ANSWER_WINS, revoked_meta
from producer.operations.ending import forget
from producer.operations.exchanges import Call, Operation, Together
from producer.operations.purging import purge
from tests.access.walk import TYPES
from tests.client.stock_worker import StockWorker, result_for
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg?signature="
LABELS = ["fox", "owl"]
SUCCESS = '{"status": "SUCCESS", "result": {"ranking": []}, "life": "%s"}'


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


@pytest.fixture
def results(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect(1) as results:
        yield results


def life_of(broker: redis.Redis, job_id: str) -> str:
    place = broker.get(f"nameshot:claim:{job_id}:place")
    assert isinstance(place, bytes)
    return place.decode().split(" ")[2]


def answer(results: redis.Redis, job_id: str, life: str, taken: int | str = 0) -> bool:
    """Store an answer as a worker's backend does, for a message of that life; return whether Redis took it."""
    keys = (f"celery-task-meta-{job_id}", f"nameshot-forgotten-{job_id}")
    return int(results.eval(FIRST_ANSWER_WINS, 2, *keys, SUCCESS % life, 60, life, taken, "sure")) > 0


def test_a_failed_job_is_sent_again_under_its_own_id_with_a_freshly_signed_url(
    client: Client, worker: StockWorker
) -> None:
    job = client.submit(URL + "old", LABELS, job_id="order-17")
    worker.take()
    worker.fail(job.id, JobFailed("http_status", "the server answered 403.", False))

    assert job.forget() is True

    assert job.status() == "unknown"
    again = client.submit(URL + "new", LABELS, job_id="order-17")
    assert (again.is_new, again.status()) == (True, "queued")
    assert worker.take().payload[1]["image"] == URL + "new"
    worker.succeed(again.id, result_for(LABELS))
    assert again.result(timeout=5).best.label == "fox"


def test_a_job_without_an_answer_is_not_forgotten(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS, job_id="order-17")
    assert (job.forget(), client.forget("never-sent")) == (False, False)
    worker.take()
    assert job.forget() is False
    worker.start(job.id)

    assert job.forget() is False
    assert job.status() == "running"


def test_a_lost_job_is_forgotten_with_its_claim(client: Client, broker: redis.Redis) -> None:
    job = client.submit(URL, LABELS, job_id="order-17")
    broker.delete("nameshot.default")

    assert job.forget() is True

    assert not broker.exists("nameshot:claim:order-17", "nameshot:claim:order-17:place")
    assert job.forget() is False


def test_a_forgotten_job_leaves_only_a_record_of_its_lives_and_workers_learn_which_life_to_remove(
    client: Client, worker: StockWorker, broker: redis.Redis, results: redis.Redis
) -> None:
    job = client.submit(URL, LABELS, job_id="order-17")
    life = life_of(broker, job.id)
    worker.take()
    worker.succeed(job.id, result_for(LABELS))

    job.forget()

    assert broker.lrange("nameshot:forget", 0, -1) == [f"order-17 {life}".encode()]
    assert set(broker.keys("*order-17*")) == set()
    assert results.keys("*order-17*") == [b"nameshot-forgotten-order-17"]
    assert results.ttl("nameshot-forgotten-order-17") == pytest.approx(9 * 86_400, abs=5)


def test_a_message_of_an_earlier_life_never_answers_the_new_job(
    client: Client, worker: StockWorker, broker: redis.Redis, results: redis.Redis
) -> None:
    """If it is delivered again, or a frozen worker holds it, `FIRST_ANSWER_WINS` refuses its answer."""
    job = client.submit(URL + "old", LABELS, job_id="order-17")
    old_life = life_of(broker, job.id)
    worker.take()
    assert answer(results, job.id, old_life)
    job.forget()
    again = client.submit(URL + "new", LABELS, job_id="order-17")
    worker.take()

    assert not answer(results, again.id, old_life)
    assert again.status() == "queued"
    assert answer(results, again.id, life_of(broker, again.id))
    assert again.status() == "succeeded"


def test_without_a_place_key_forget_takes_the_life_from_the_answer(
    client: Client, worker: StockWorker, broker: redis.Redis, results: redis.Redis
) -> None:
    job = client.submit(URL, LABELS, job_id="order-17")
    broker.delete("nameshot:claim:order-17:place")
    worker.take()
    answer(results, job.id, "a-life")

    assert job.forget() is True

    assert results.zscore("nameshot-forgotten-order-17", "a-life")
    assert broker.lrange("nameshot:forget", 0, -1) == [b"order-17 a-life"]
    assert not broker.exists("nameshot:claim:order-17")


def test_an_id_can_be_submitted_or_forgotten_again_after_a_program_died_while_forgetting_it(
    client: Client, worker: StockWorker, broker: redis.Redis
) -> None:
    for then in ("send", "forget"):
        job = client.submit(URL, LABELS, job_id=f"to-{then}")
        worker.take()
        worker.succeed(job.id, result_for(LABELS))
        die_before_the_claim_goes(client, job.id)
        assert broker.exists(f"nameshot:claim:{job.id}")

    assert client.submit(URL + "new", LABELS, job_id="to-send").is_new
    assert client.forget("to-forget") is True
    assert not broker.exists("nameshot:claim:to-forget")


def die_before_the_claim_goes(client: Client, job_id: str) -> Call | Together:
    """Execute all of `forget` but its last call, and return that call."""
    operation = forget("nameshot", job_id, result_ttl_s=60)
    call = next(operation)
    while not (isinstance(call, Call) and "LPUSH" in str(call.command[1])):
        call = operation.send(client._link._execute(call))
    return call


def test_forgetting_leaves_a_job_that_was_submitted_meanwhile_under_the_same_id(
    client: Client, worker: StockWorker, broker: redis.Redis
) -> None:
    job = client.submit(URL, LABELS, job_id="order-17")
    worker.take()
    worker.succeed(job.id, result_for(LABELS))
    last_call = die_before_the_claim_goes(client, job.id)
    again = client.submit(URL + "new", LABELS, job_id="order-17")
    claim = broker.get("nameshot:claim:order-17")

    client._link._execute(last_call)

    assert broker.get("nameshot:claim:order-17") == claim
    assert again.status() == "queued"


def test_a_full_redis_still_stores_answers(own_valkey: ValkeyServer) -> None:
    with own_valkey.connect(1) as results:
        results.config_set("maxmemory", 1)

        assert answer(results, "a-job", "a-life")
        assert not answer(results, "a-job", "a-life")


def now_us(results: redis.Redis) -> int:
    seconds, microseconds = results.time()
    return seconds * 1_000_000 + microseconds


@pytest.mark.parametrize("life", ["", "life-of-a-plain-client"])
def test_a_message_of_unknown_life_that_was_taken_before_its_job_was_forgotten_answers_nothing(
    client: Client, results: redis.Redis, life: str
) -> None:
    taken = now_us(results)
    results.set("celery-task-meta-order-17", revoked_meta("order-17", "cancelled"))

    assert client.forget("order-17") is True

    assert not answer(results, "order-17", life, taken)
    assert not answer(results, "order-17", life, -1_000_000)
    assert answer(results, "order-17", life)
    assert client.forget("order-17") is True
    assert not answer(results, "order-17", life, taken)
    assert answer(results, "order-17", "a-new-life" if life else "", now_us(results))


def test_the_new_message_of_a_forgotten_id_is_answered_even_if_a_wrong_clock_says_it_was_taken_earlier(
    client: Client, worker: StockWorker, broker: redis.Redis, results: redis.Redis
) -> None:
    job = client.submit(URL, LABELS, job_id="order-17")
    worker.take()
    answer(results, job.id, life_of(broker, job.id))
    job.forget()

    assert answer(results, job.id, "new-life", -3_600_000_000)


def test_old_records_of_forgotten_lives_are_removed_when_an_id_is_forgotten_again(
    client: Client, worker: StockWorker, results: redis.Redis
) -> None:
    results.zadd("nameshot-forgotten-order-17", {"long-ago": now_us(results) - 10 * 86_400 * 1_000_000})
    worker.succeed("order-17", result_for(LABELS))
    assert client.forget("order-17") is True

    assert results.zrange("nameshot-forgotten-order-17", 0, -1) == [b"", ANY_LIFE.encode()]


@pytest.mark.parametrize("kind", ["string", "list", "set"])
def test_a_key_of_another_program_prevents_neither_answers_nor_forgetting(
    client: Client, worker: StockWorker, broker: redis.Redis, results: redis.Redis, kind: str
) -> None:
    job = client.submit(URL, LABELS, job_id="order-17")
    worker.take()
    TYPES[kind](results, "nameshot-forgotten-order-17")
    life = life_of(broker, job.id)

    assert answer(results, job.id, life)
    assert job.forget() is True
    assert not answer(results, job.id, life)


def test_the_key_of_forgotten_lives_can_be_no_answer_key_of_another_id() -> None:
    assert not forgotten_key("x").startswith(answer_key(""))


def rest_of(operation: Operation[bool], reply: object) -> Operation[bool]:
    """Continue an operation with the reply to the call for which it waits."""
    try:
        while True:
            reply = yield operation.send(reply)
    except StopIteration as ended:
        return bool(ended.value)


def test_forgetting_leaves_a_job_that_was_submitted_and_begun_meanwhile_under_the_same_id(
    client: Client, worker: StockWorker, broker: redis.Redis, results: redis.Redis
) -> None:
    """Two clients forget the id: the slower one's call reaches Redis once the faster one's new job runs."""
    job = client.submit(URL, LABELS, job_id="order-17")
    worker.take()
    worker.succeed(job.id, result_for(LABELS))
    slow = forget("nameshot", job.id, result_ttl_s=60)
    call = next(slow)
    while not (isinstance(call, Call) and "ZADD" in str(call.command[1])):
        call = slow.send(client._link._execute(call))
    assert client.forget(job.id) is True
    again = client.submit(URL + "new", LABELS, job_id="order-17")
    worker.take()
    worker.start(again.id)
    broker.hset("nameshot:in-hand", again.id, "a-worker")
    taken = now_us(results)

    reply = client._link._execute(call)

    assert client._link.run(rest_of(slow, reply)) is False
    assert again.status() == "running"
    assert answer(results, again.id, life_of(broker, again.id), taken)


def test_a_requeued_message_that_was_then_purged_never_answers_the_new_job(
    client: Client, valkey: ValkeyServer, broker: redis.Redis, results: redis.Redis
) -> None:
    """The worker from which the message was requeued may be frozen, and still hold a copy."""
    jobs = [client.submit(URL + "old", LABELS, job_id=job_id) for job_id in ("taken-once", "never-taken")]
    lives = [life_of(broker, job.id) for job in jobs]
    broker.hset("nameshot:in-hand", "taken-once", "returned default 1")
    taken = now_us(results)
    with Client(valkey.url(0, "worker"), valkey.url(1, "worker")) as operator:
        assert operator._link.run(purge("nameshot", "default")) == 2
    again = client.submit(URL + "new", LABELS, job_id="taken-once")

    assert again.is_new
    assert not answer(results, again.id, lives[0])
    assert not answer(results, again.id, "", taken)
    assert answer(results, again.id, life_of(broker, again.id))
    assert not results.exists("nameshot-forgotten-never-taken")
